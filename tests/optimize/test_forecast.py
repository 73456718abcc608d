"""What the cost model expects of candidates that were not tried, and how each trial changes its mind."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.engine.host import environment
from hasten.optimize import forecast as forecast_module
from hasten.optimize.forecast import WORTH, Forecast, Lesson, Prospect, techniques_of, traits_of
from hasten.optimize.wish import Want, Wish
from hasten.spec.target import Precision, Runtime, Target
from hasten.spec.variant import Step


def wish(
    engine: str = "openvino", precision: Precision = "f32", *steps: str, threads: int = 0, knob: bool = False
) -> Wish:
    target = Target(engine=engine, precision=precision, threads=threads, runtime=Runtime(io_binding=knob))
    name = "-".join([engine, precision, *steps, str(threads), str(knob)])
    return Wish(id=name, target=target, wants=tuple(Want(step=Step(transform=step)) for step in steps))


def lesson(of: Wish, gain: float | None, *, safe: bool | None = True, model: str = "", spread: float = 0.01) -> Lesson:
    return Lesson(
        traits=traits_of(of),
        techniques=techniques_of(of),
        precision=of.target.precision,
        log_gain=None if gain is None else math.log(gain),
        spread=spread,
        safe=safe,
        seconds=4.0,
        model=model,
    )


def outlook(forecast: Forecast, of: Wish, best: float = 1.0) -> Prospect:
    return forecast.rank([of], best)[0]


def test_a_slow_trial_of_an_engine_speaks_against_its_other_candidates() -> None:
    forecast, other = Forecast(), wish("openvino", "int8", "quantize_static")
    before = outlook(forecast, other)
    forecast.learn(lesson(wish("openvino", "f32"), 0.3))
    after = outlook(forecast, other)
    assert after.gain < before.gain
    assert after.worth < before.worth


def test_a_trial_says_nothing_about_candidates_that_share_only_the_model() -> None:
    forecast, other = Forecast(), wish("onnxruntime", "int8", "quantize_static")
    before = outlook(forecast, other).gain
    forecast.learn(lesson(wish("openvino", "f32"), 0.3))
    assert outlook(forecast, other).gain > before * 0.8


def test_padding_that_one_engine_gained_much_by_is_expected_of_every_engine() -> None:
    forecast, other = Forecast(), wish("onnxruntime", "int8", "trim_padding", "quantize_dynamic")
    before = outlook(forecast, other).gain
    forecast.learn(lesson(wish("openvino", "f32", "trim_padding"), 5.0))
    assert outlook(forecast, other).gain > 2 * before


@pytest.mark.parametrize(("precision", "feature"), [("int8", "avx512_vnni"), ("int8", "asimddp"), ("bf16", "amx_bf16")])
def test_more_is_expected_of_a_precision_that_the_processor_has_instructions_for(
    precision: Precision, feature: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def expected(*features: str) -> float:
        host = msgspec.structs.replace(environment(), features=features)
        monkeypatch.setattr(forecast_module, "environment", lambda: host)
        return outlook(Forecast(), wish("openvino", precision)).gain

    assert expected("avx2", feature) > 1.2 * expected("avx2")


def test_what_was_tried_itself_is_known_almost_exactly() -> None:
    forecast, same = Forecast(), wish("openvino", "int8", "quantize_static")
    forecast.learn(lesson(same, 1.7))
    found = outlook(forecast, same)
    assert found.gain == pytest.approx(1.7, rel=0.05)
    assert found.high / found.low < 1.3


def test_precise_trials_weigh_more_than_noisy_ones() -> None:
    same = wish("openvino", "f32")
    sharp, vague = Forecast(), Forecast()
    sharp.learn(lesson(same, 2.0, spread=0.01))
    vague.learn(lesson(same, 2.0, spread=0.8))
    assert outlook(sharp, same).gain > outlook(vague, same).gain > 1.0


def test_nothing_is_worth_a_trial_that_cannot_reach_the_best_so_far() -> None:
    forecast, other = Forecast(), wish("openvino", "f32", threads=1)
    forecast.learn(lesson(wish("openvino", "f32"), 0.3))
    assert outlook(forecast, other, best=1.5).worth < WORTH


def test_a_recipe_whose_answers_failed_on_one_engine_is_doubted_on_the_other() -> None:
    forecast = Forecast()
    other = wish("onnxruntime", "int8", "quantize_static")
    before = outlook(forecast, other).safe
    forecast.learn(lesson(wish("openvino", "int8", "quantize_static"), 1.5, safe=False))
    assert outlook(forecast, other).safe < before / 2


def test_what_answers_wrongly_on_two_threads_does_on_one() -> None:
    forecast, one = Forecast(), wish("openvino", "bf16", threads=1)
    forecast.learn(lesson(wish("openvino", "bf16"), 2.4, safe=False))
    assert outlook(forecast, one).safe < 0.1


def test_techniques_that_are_raced_one_by_one_take_longer() -> None:
    plain = wish("openvino", "f32")
    step = Step(transform="fuse")
    graph = msgspec.structs.replace(plain, id="graph", wants=(Want(step=step, required=False),))
    assert outlook(Forecast(), graph).seconds > outlook(Forecast(), plain).seconds + 5


def test_lessons_of_other_models_count_less_than_those_of_the_same_model() -> None:
    same = wish("openvino", "f32")
    known = Forecast("abc", [lesson(same, 3.0, model="abc")])
    foreign = Forecast("abc", [lesson(same, 3.0, model="other")])
    assert outlook(known, same).gain > outlook(foreign, same).gain > outlook(Forecast("abc"), same).gain


def test_a_trial_that_never_ran_teaches_no_speed() -> None:
    forecast, same = Forecast(), wish("openvino", "f32")
    before = outlook(forecast, same).gain
    forecast.learn(lesson(same, None, safe=None))
    assert outlook(forecast, same).gain == before


def test_equal_outlooks_stay_in_the_planned_order() -> None:
    wishes = [wish("openvino"), wish("openvino", knob=False)]
    assert [prospect.wish for prospect in Forecast().rank(wishes, 1.0)] == wishes


@given(
    st.lists(st.tuples(st.sampled_from(["openvino", "torch"]), st.floats(0.05, 20.0), st.booleans()), max_size=12),
    st.floats(0.5, 8.0),
)
def test_forecasts_stay_sound_whatever_was_learned(trials: list[tuple[str, float, bool]], best: float) -> None:
    forecast = Forecast()
    for engine, gain, safe in trials:
        forecast.learn(lesson(wish(engine), gain, safe=safe))
    wishes = [wish("openvino"), wish("torch", "bf16"), wish("onnxruntime", "int8", "quantize_dynamic", threads=1)]
    ranked = forecast.rank(wishes, best)
    assert {prospect.wish.id for prospect in ranked} == {one.id for one in wishes}
    for prospect in ranked:
        assert 0 < prospect.low <= prospect.gain <= prospect.high
        assert 0 <= prospect.safe <= 1
        assert prospect.worth >= 0
        assert prospect.seconds > 0
    assert [p.rate for p in ranked] == sorted((p.rate for p in ranked), reverse=True)


def test_what_is_surer_is_held_against_what_is_sure() -> None:
    sure, narrow = wish("onnxruntime", "f32"), wish("openvino", "bf16")
    plain = {prospect.wish.id: prospect.worth for prospect in Forecast().rank([sure, narrow], 1.5)}
    aware = {prospect.wish.id: prospect.worth for prospect in Forecast().rank([sure, narrow], 1.5, 1.0)}
    assert aware[sure.id] > plain[sure.id]
    assert aware[narrow.id] == plain[narrow.id]


def test_a_hundred_lessons_of_other_models_do_not_outvote_what_this_one_shows() -> None:
    fast = wish("openvino", "bf16")
    others = [lesson(fast, 0.9, model=f"other{at % 3}") for at in range(100)]
    forecast = Forecast("mine", others)
    assert outlook(forecast, fast).gain < 1.3, "of a model that showed nothing yet they are all that is known"
    forecast.learn(lesson(fast, 3.4))
    assert outlook(forecast, wish("openvino", "bf16", knob=True)).gain > 3.0
