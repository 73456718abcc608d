"""Which candidates are tried for which model, and what cannot be tried says why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.transform.small_models import matrices, small_convolutions

from hasten.engine.base import Device, Probe
from hasten.engine.host import environment
from hasten.model.open import open_model
from hasten.optimize import plan as plan_module
from hasten.optimize import recipes
from hasten.optimize.plan import plan, reference_variant, second_wave
from hasten.optimize.recipes import recipes_for
from hasten.optimize.wish import Want, Wish
from hasten.spec.signature import Signature
from hasten.spec.target import Format, Runtime, Target
from hasten.spec.tensor import TensorSpec
from hasten.spec.variant import Step


@dataclass
class Imagined:
    """A model that is only described."""

    format: Format = "onnx"
    opset: int = 17
    bytes_on_disk: int = 2**20
    kinds: dict[str, int] = field(default_factory=lambda: {"Conv": 3, "Relu": 3})
    path: Path = Path("model.onnx")
    digest: str = "0"
    signature: Signature = field(default_factory=lambda: Signature(inputs=(), outputs=()))

    def files(self) -> list[Path]:
        return [self.path]

    def operators(self) -> Counter[str]:
        return Counter(self.kinds)

    def parameters(self) -> int:
        return 1000

    def metadata(self) -> dict[str, str]:
        return {}


def probe(engine: str, *precisions: Any) -> Probe:
    device = Device(name="CPU", hardware="CPU", detail="imaginary", precisions=precisions)
    return Probe(engine=engine, version="1", devices=(device,))


def host(monkeypatch: pytest.MonkeyPatch, *features: str) -> None:
    two = msgspec.structs.replace(
        environment(), cores_logical=2, cores_physical=2, architecture="x86_64", features=features
    )
    for module in (plan_module, recipes):
        monkeypatch.setattr(module, "environment", lambda: two)


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    host(monkeypatch, "avx2")


ORT, OV = probe("onnxruntime", "f32", "int8"), probe("openvino", "f32", "int8")


def ids(model: Imagined, *probes: Probe) -> set[str]:
    return {wish.id for wish in plan(model, probes)[0]}


def steps(model: Imagined, id_: str, *probes: Probe) -> list[str]:
    [wish] = [wish for wish in plan(model, probes)[0] if wish.id == id_]
    return [want.step.transform for want in wish.wants]


def test_every_engine_is_tried_in_every_precision_that_it_computes() -> None:
    assert ids(Imagined(), ORT, OV) == {
        "onnxruntime-f32-1t", "onnxruntime-f32-graph-2t", "onnxruntime-int8-static-2t", "onnxruntime-int8-all-2t",
        "openvino-f32-1t", "openvino-f32-2t", "openvino-f32-graph-2t", "openvino-int8-static-2t",
        "openvino-int8-nncf-2t", "openvino-int8-nncf7-2t",
    }  # fmt: skip


def test_dynamic_quantization_is_tried_where_there_are_matrix_products() -> None:
    assert "onnxruntime-int8-dynamic-2t" in ids(Imagined(kinds={"MatMul": 12}), ORT)


def test_dynamic_quantization_is_left_out_where_convolutions_do_the_work(tmp_path: Path) -> None:
    """The head of a network of convolutions is a matrix product, too."""
    convolutions = open_model(small_convolutions(tmp_path / "convolutions.onnx"))
    products = open_model(matrices(tmp_path)[0])
    names = [[name for name, _ in recipes_for(m, "onnxruntime", "int8")] for m in (convolutions, products)]
    assert ["dynamic" in each for each in names] == [False, True]


@pytest.mark.parametrize(("kinds", "told"), [({"MatMul": 9, "Softmax": 3}, True), ({"MatMul": 9, "Conv": 3}, False)])
def test_nncf_is_told_of_transformers(kinds: dict[str, int], told: bool) -> None:
    [wish] = [wish for wish in plan(Imagined(kinds=kinds), [OV])[0] if wish.id == "openvino-int8-nncf-2t"]
    assert ("transformer" in wish.wants[-1].step.options) is told


def test_weight_only_quantization_is_tried_where_weights_do_not_fit_the_caches() -> None:
    large = Imagined(kinds={"MatMul": 12}, bytes_on_disk=90 * 2**20)
    assert "onnxruntime-f32-weights8-2t" in ids(large, ORT)
    assert "onnxruntime-f32-weights8-2t" not in ids(Imagined(kinds={"MatMul": 12}), ORT)


def test_an_old_operator_set_is_raised_first_and_folding_comes_before_fusion() -> None:
    found = steps(Imagined(opset=11), "onnxruntime-f32-graph-2t", ORT)
    assert found[:2] == ["raise_opset", "fold"]
    assert found.index("fold") < found.index("fuse") < found.index("layout")


def test_padding_is_cut_off_where_the_interface_allows_for_it() -> None:
    tokens = [TensorSpec(name=name, dtype="INT64", shape=("n", "s")) for name in ("ids", "mask")]
    text = Imagined(kinds={"MatMul": 2}, signature=Signature(inputs=tuple(tokens), outputs=()))
    brain = probe("openvino", "f32", "bf16")
    assert "trim_padding" in steps(text, "onnxruntime-f32-graph-2t", ORT)
    assert steps(text, "openvino-bf16-trim-2t", brain) == ["fold", "trim_padding", "flush_subnormals"]
    assert "openvino-bf16-trim-2t" not in ids(Imagined(), brain)


@pytest.mark.parametrize(("features", "reduced"), [(("avx2",), True), (("avx2", "avx512_vnni"), False)])
def test_weights_have_seven_bits_where_products_would_saturate(
    features: tuple[str, ...], reduced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    host(monkeypatch, *features)
    [wish] = [wish for wish in plan(Imagined(), [ORT])[0] if wish.id == "onnxruntime-int8-static-2t"]
    assert wish.wants[-1].step.options["reduce_range"] is reduced


def test_a_tflite_model_runs_on_the_engines_that_load_it_and_the_others_say_so() -> None:
    wishes, impossible = plan(Imagined(format="tflite"), [ORT, OV])
    assert {wish.target.engine for wish in wishes} == {"openvino"}
    told = [item.reason for item in impossible if item.variant.target.engine == "onnxruntime"]
    assert told == ["onnxruntime does not load tflite models."]


def test_an_engine_that_is_missing_is_told_once_with_what_to_type() -> None:
    absent = Probe(engine="openvino", reason="It is not installed.", remedy="pip install 'hasten[openvino]'")
    _, impossible = plan(Imagined(), [ORT, absent])
    told = [item.reason for item in impossible if item.variant.target.engine == "openvino"]
    assert told == ["It is not installed. pip install 'hasten[openvino]'"]


def test_recipes_after_an_export_begin_with_it() -> None:
    wishes, _ = plan(Imagined(), [ORT], (Step(transform="export_onnx"),))
    assert all(wish.wants[0].step.transform == "export_onnx" for wish in wishes)
    assert "onnxruntime-f32-2t" in {wish.id for wish in wishes}, "the export itself is not the reference"


@pytest.mark.parametrize(
    ("format_", "engine"),
    [("onnx", "onnxruntime"), ("tflite", "litert"), ("openvino", "openvino"), ("torch", "torch")],
)
def test_the_reference_is_the_usual_engine_of_the_format(format_: Format, engine: str) -> None:
    assert reference_variant(Imagined(format=format_)).target == Target(engine=engine)


def test_the_second_wave_turns_only_knobs_that_the_engine_obeys() -> None:
    best = [wish for wish in plan(Imagined(), [ORT])[0] if wish.id == "onnxruntime-int8-static-2t"]
    wave = second_wave(best, {"onnxruntime": frozenset({"io_binding"})})
    assert [wish.id for wish in wave] == [
        "onnxruntime-int8-static-1t", "onnxruntime-int8-static-2t-unpinned", "onnxruntime-int8-static-2t-bound",
    ]  # fmt: skip
    assert [wish.target.pin for wish in wave] == [True, False, True]
    assert second_wave([], {}) == []
    assert all(wish.wants == best[0].wants for wish in wave)


def test_a_knob_is_not_turned_on_top_of_another() -> None:
    best = [wish for wish in plan(Imagined(), [ORT])[0] if wish.id == "onnxruntime-int8-static-2t"]
    bound = second_wave(best, {"onnxruntime": frozenset({"io_binding"})})[-1]
    assert bound.id.endswith("-bound")
    wave = second_wave([bound], {"onnxruntime": frozenset({"io_binding", "flush_denormals"})})
    assert not any(wish.target.runtime.turned() - {"io_binding"} for wish in wave)
    assert not any(wish.id.endswith("-bound-bound") for wish in wave)


def test_the_best_is_tried_at_lower_resolutions_before_its_numbers_are_looked_at() -> None:
    best = [wish for wish in plan(Imagined(opset=11), [ORT])[0] if wish.id == "onnxruntime-int8-static-2t"]
    smaller = [Want(step=Step(transform="reduce_resolution", options={"scale": 0.75}))]
    wish = second_wave(best, {}, smaller)[0]
    assert wish.id == "onnxruntime-int8-static-2t-at0.75"
    steps = [want.step.transform for want in wish.wants]
    assert steps == ["raise_opset", "fold", "flush_subnormals", "reduce_resolution", "quantize_static"]


def test_ids_are_unique() -> None:
    wishes: list[Wish] = plan(Imagined(kinds={"MatMul": 2}, bytes_on_disk=2**27), [ORT, OV])[0]
    assert len({wish.id for wish in wishes}) == len(wishes)


TEXT = Signature(
    inputs=tuple(TensorSpec(name=name, dtype="INT64", shape=("n", "s")) for name in ("ids", "mask")), outputs=()
)


def test_graphs_for_a_few_lengths_are_tried_where_an_engine_can_and_lengths_are_known() -> None:
    text, brain = Imagined(kinds={"MatMul": 2}, signature=TEXT), probe("openvino", "f32", "bf16", "int8")
    wishes = {wish.id: wish for wish in plan(text, [ORT, brain], lengths=(8, 16))[0]}
    fitted = {id_: wish for id_, wish in wishes.items() if wish.target.runtime.lengths}
    assert set(fitted) == {
        "openvino-f32-lengths-1t", "openvino-f32-lengths-2t", "openvino-bf16-lengths-1t", "openvino-bf16-lengths-2t",
        "openvino-int8-static-lengths-2t", "openvino-int8-nncf-lengths-2t", "openvino-int8-nncf7-lengths-2t",
    }  # fmt: skip
    assert all(wish.target.runtime.lengths == (8, 16) for wish in fitted.values())
    assert not any(want.step.transform == "trim_padding" for wish in fitted.values() for want in wish.wants)
    assert not any(wish.target.runtime.lengths for wish in plan(text, [ORT, brain])[0])


def test_a_knob_is_turned_beside_the_lengths_of_the_best() -> None:
    target = Target(engine="openvino", threads=2, runtime=Runtime(lengths=(8,)))
    wave = second_wave(
        [Wish(id="openvino-f32-lengths-2t", target=target)], {"openvino": frozenset({"flush_denormals"})}
    )
    assert {wish.id for wish in wave} == {"openvino-f32-lengths-2t-unpinned", "openvino-f32-lengths-2t-denormals"}
    assert all(wish.target.runtime.lengths == (8,) for wish in wave)


@pytest.mark.parametrize(("shape", "fixed"), [(("n", 4), True), ((1, 4), False)])
def test_single_rows_get_a_graph_of_their_own_where_the_batch_is_open(shape: Any, fixed: bool) -> None:
    tensor = TensorSpec(name="x", dtype="FP32", shape=shape)
    model = Imagined(signature=Signature(inputs=(tensor,), outputs=(tensor,)))
    wishes = plan(model, [ORT, OV], single_row=True)[0]
    assert {wish.target.engine for wish in wishes if wish.target.runtime.single_row} == (
        {"openvino"} if fixed else set()
    )
    assert all(wish.target.runtime.single_row is fixed for wish in wishes if wish.target.engine == "openvino")
    assert not any(wish.target.runtime.turned() for wish in plan(model, [ORT, OV])[0])
