"""The joined scheduler: deadlines, lanes, ladder, instances. Simulated time, invented service times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasten.serve.core import (
    Arrived,
    Cancelled,
    Command,
    Core,
    Dispatch,
    Drain,
    EngineDown,
    EngineUp,
    Finished,
    Lane,
    LatencyTable,
    Policy,
    Refuse,
    Rung,
    StartInstance,
    StopInstance,
    Tick,
    Wake,
)
from hasten.serve.outcomes import REQUEST
from hasten.testing.replay import Arrival, Replayed, replay

LANES = (
    Lane(name="critical", priority=1, deadline_s=0.1),
    Lane(name="background", priority=2, min_share=0.1, max_age_s=5.0, background=True),
)
LADDER = (Rung(variant="f32", accuracy=0.90), Rung(variant="int8", speed=2.0, accuracy=0.89))
SIZES = [(1, 0.010), (8, 0.024)]


def table(policy: Policy) -> LatencyTable:
    return LatencyTable({policy.ladder[0].variant: SIZES}, policy.ladder, spread=0.0)


def seconds(batch: Dispatch) -> float:
    """10 ms for one row, 24 ms for eight, as the table says."""
    return (0.008 + 0.002 * batch.rows) / (2.0 if batch.variant == "int8" else 1.0)


def run(policy: Policy, arrivals: Sequence[Arrival]) -> tuple[Core, Replayed]:
    core = Core(policy, table=table(policy))
    return core, replay(core, arrivals, seconds)


def steady(rate: float, lane: str = "", *, start: float = 0.0, until: float = 10.0) -> list[Arrival]:
    """Arrivals in even gaps."""
    return [Arrival(at=start + n / rate, lane=lane) for n in range(round((until - start) * rate))]


def merged(*streams: list[Arrival]) -> list[Arrival]:
    return sorted((one for stream in streams for one in stream), key=lambda one: one.at)


def attained(played: Replayed, lane: str) -> float:
    mine = [one for one in played.ended.values() if one.arrival.lane == lane]
    return sum(one.on_time for one in mine) / len(mine)


def refusals(commands: list[Command]) -> list[tuple[int, str, str]]:
    return [(c.id, c.code, c.reason) for c in commands if isinstance(c, Refuse)]


def busy(policy: Policy, *, lane: str = "") -> Core:
    """A core whose instance runs request 0."""
    core = Core(policy, table=table(policy))
    core.handle(Arrived(0, lane=lane), now=0.0)
    return core


def test_a_request_that_the_queue_would_make_late_is_refused_at_once_and_told_when_to_come_back() -> None:
    core = busy(Policy(max_batch=1))
    for id_ in range(1, 6):
        core.handle(Arrived(id_, deadline=0.065), now=0.0)
    [refusal] = [c for c in core.handle(Arrived(9, deadline=0.068), now=0.0) if isinstance(c, Refuse)]
    assert (refusal.code, refusal.reason) == ("overloaded", "would be late")
    assert refusal.retry_after_s == pytest.approx(0.05)
    assert not refusals(core.handle(Arrived(10, deadline=0.075), now=0.0))


def test_who_waits_for_whom_follows_deadlines_not_arrivals() -> None:
    core = busy(Policy(max_batch=1))
    for id_ in range(1, 6):
        core.handle(Arrived(id_, deadline=1.0), now=0.0)
    assert not refusals(core.handle(Arrived(6, deadline=0.035), now=0.0))
    assert not refusals(core.handle(Arrived(7, deadline=0.036), now=0.0))
    assert refusals(core.handle(Arrived(8, deadline=0.038), now=0.0)) == [(8, "overloaded", "would be late")]


def test_a_deadline_shorter_than_any_run_is_not_told_to_come_back() -> None:
    core = busy(Policy(max_batch=1))
    [refusal] = [c for c in core.handle(Arrived(1, deadline=0.005), now=0.0) if isinstance(c, Refuse)]
    assert (refusal.code, refusal.reason, refusal.retry_after_s) == ("deadline", "too late to start", None)


def test_an_idle_engine_now_and_then_tries_what_the_table_calls_too_slow() -> None:
    """Otherwise a table that is wrong once would refuse for ever."""
    core = Core(Policy(), table=table(Policy()))
    for _ in range(50):
        core.table.learn("", 1, None, 1.0)
    late = [refusals(core.handle(Arrived(n, deadline=n * 0.1 + 0.05), now=n * 0.1)) for n in range(1, 9)]
    assert late[0] == []
    assert all(late[1:])
    core.handle(Finished(0.01), now=1.0)
    assert Dispatch((99,), 1) in core.handle(Arrived(99, deadline=1.25), now=1.2)


def test_a_lane_gives_its_requests_the_deadline_that_they_do_not_name() -> None:
    core = busy(Policy(lanes=LANES))
    assert Wake(0.1) in core.handle(Arrived(1, lane="critical"), now=0.0)


def test_background_work_that_would_outlive_its_maximum_age_is_refused_at_once() -> None:
    core = busy(Policy(max_batch=1, lanes=LANES, queue_capacity=10**4), lane="background")
    told = [refusals(core.handle(Arrived(n, lane="background"), now=0.0)) for n in range(1, 600)]
    assert told[400] == []
    assert told[550] == [(551, "overloaded", "would be late")]


def test_an_unknown_lane_is_refused_by_name() -> None:
    assert refusals(busy(Policy(lanes=LANES)).handle(Arrived(1, lane="vip"), now=0.0)) == [
        (1, "invalid", "unknown lane")
    ]


def test_a_request_that_reaches_its_lanes_maximum_age_is_answered_not_run() -> None:
    core = busy(Policy(max_batch=8, lanes=LANES), lane="critical")
    core.handle(Arrived(1, lane="background"), now=0.0)
    assert refusals(core.handle(Tick(), now=5.0)) == [(1, "overloaded", "too old")]


def test_a_full_queue_gives_a_background_place_to_a_critical_request() -> None:
    core = busy(Policy(lanes=LANES, queue_capacity=2), lane="background")
    for id_ in (1, 2):
        core.handle(Arrived(id_, lane="background"), now=0.0)
    assert refusals(core.handle(Arrived(3, lane="critical"), now=0.0)) == [(2, "overloaded", "displaced")]
    assert refusals(core.handle(Arrived(4, lane="background"), now=0.0)) == [(4, "overloaded", "queue full")]


def test_background_work_rides_in_the_free_rows_of_a_critical_batch() -> None:
    core = busy(Policy(max_batch=8, lanes=LANES), lane="critical")
    core.handle(Arrived(1, lane="background"), now=0.0)
    core.handle(Arrived(2, lane="critical"), now=0.0)
    assert Dispatch((2, 1), 2) in core.handle(Finished(0.01), now=0.01)


def test_a_batch_with_free_rows_takes_the_better_variant_that_its_company_needs() -> None:
    lanes = (Lane(name="any", priority=1, deadline_s=0.1), Lane(name="exact", priority=2, accuracy_floor=0.9))
    policy = Policy(max_batch=8, lanes=lanes, ladder=LADDER)
    core = busy(policy, lane="any")
    for id_ in range(1, 300):
        assert refusals(core.handle(Arrived(id_, deadline=0.101, lane="any"), now=0.1))
    core.handle(Tick(), now=0.5)
    assert core.level == 1
    core.handle(Arrived(1001, lane="any"), now=0.51)
    core.handle(Arrived(1002, lane="exact"), now=0.51)
    assert Dispatch((1001, 1002), 2, variant="f32") in core.handle(Finished(0.01), now=0.52)
    core.handle(Arrived(1003, lane="any"), now=0.52)
    assert Dispatch((1003,), 1, variant="int8") in core.handle(Finished(0.012), now=0.532)


def test_a_critical_lane_without_deadlines_takes_no_company() -> None:
    lanes = (Lane(name="critical", priority=1), Lane(name="background", priority=2, background=True))
    core = busy(Policy(max_batch=8, lanes=lanes))
    core.handle(Arrived(1, lane="background"), now=0.0)
    core.handle(Arrived(2, lane="critical"), now=0.0)
    assert Dispatch((2,), 1) in core.handle(Finished(0.01), now=0.01)


def test_critical_work_waits_for_one_batch_at_most_while_background_saturates() -> None:
    """R12: unloaded time plus the longest batch; background still gets its share."""
    lanes = (
        Lane(name="critical", priority=1),
        Lane(name="background", priority=2, min_share=0.05, background=True, capacity=64),
    )
    policy = Policy(max_batch=8, lanes=lanes)
    critical = [Arrival(at=n * 0.05 + 0.0071, lane="critical") for n in range(200)]
    _, played = run(policy, merged(steady(600, "background"), critical))
    times = sorted(o.at - o.arrival.at for o in played.ended.values() if o.arrival.lane == "critical")
    assert len(times) == 200
    assert times[-3] <= 0.010 + 0.024 + 1e-9
    assert sum(o.outcome == "answered" and o.arrival.lane == "background" for o in played.ended.values()) > 1000


def test_critical_deadlines_are_met_and_background_keeps_its_share_at_three_times_the_capacity() -> None:
    policy = Policy(max_batch=8, lanes=LANES)
    _, played = run(policy, merged(steady(250, "critical"), steady(750, "background")))
    answered = [one for one in played.ended.values() if one.outcome == "answered"]
    assert attained(played, "critical") >= 0.999
    assert sum(one.arrival.lane == "background" for one in answered) >= 0.05 * len(answered)
    assert len(answered) >= 0.95 * 333 * 10


def test_of_ten_requests_too_many_exactly_ten_are_refused_with_a_time_to_come_back() -> None:
    """R9."""
    core = busy(Policy(queue_capacity=32))
    told = [c for id_ in range(1, 43) for c in core.handle(Arrived(id_), now=0.0) if isinstance(c, Refuse)]
    assert [refusal.id for refusal in told] == list(range(33, 43))
    assert {(refusal.code, refusal.reason) for refusal in told} == {("overloaded", "queue full")}
    assert all(refusal.retry_after_s == pytest.approx(0.32) for refusal in told)


def test_three_times_the_capacity_costs_those_who_are_let_in_neither_goodput_nor_their_deadline() -> None:
    """R10 and R11: the queue stays short by prediction, and nothing runs that nobody waits for any more."""
    policy = Policy(max_batch=8, lanes=(Lane(name="only", deadline_s=0.2),), queue_capacity=10**6)
    _, played = run(policy, merged(steady(1000, "only"), steady(100, "only", start=10.0, until=12.0)))
    answered = [one for one in played.ended.values() if one.outcome == "answered"]
    assert all(one.on_time for one in answered)
    assert sum(one.at <= 10.0 for one in answered) >= 0.95 * 333 * 10
    assert all(one.at - one.arrival.at <= 0.05 for one in answered if one.arrival.at > 10.5)


def test_overload_is_answered_by_the_cheaper_variant_and_the_first_returns_after_calm() -> None:
    policy = Policy(max_batch=8, lanes=(Lane(name="critical", deadline_s=0.1),), ladder=LADDER)
    core, played = run(policy, merged(steady(500, until=5.0), steady(50, start=5.0, until=20.0)))
    variants = [(one.arrival.at, one.variant) for one in played.ended.values() if one.outcome == "answered"]
    assert {variant for at, variant in variants if 1.0 < at < 5.0} == {"int8"}
    assert {variant for at, variant in variants if at > 15.6} == {"f32"}
    late = [one for one in played.ended.values() if one.arrival.at > 1.0 and not one.on_time]
    assert late == []
    assert core.level == 0


def test_the_first_variant_returns_although_no_request_comes() -> None:
    policy = Policy(max_batch=8, lanes=(Lane(name="critical", deadline_s=0.1),), ladder=LADDER)
    core, played = run(policy, steady(500, until=2.0))
    assert core.level == 0
    assert 10.0 <= played.log[-1][0] <= 11.0


def test_instances_start_when_work_piles_up_and_stop_one_by_one_after_rest() -> None:
    policy = Policy(max_batch=8, instances=1, min_instances=1, max_instances=3, idle_s=20.0, queue_capacity=10**6)
    _, played = run(policy, merged(steady(700, until=10.0), steady(5, start=10.0, until=100.0)))
    scaled = [
        (at, c) for at, _, commands in played.log for c in commands if isinstance(c, StartInstance | StopInstance)
    ]
    started = [at for at, c in scaled if isinstance(c, StartInstance)]
    stopped = [at for at, c in scaled if isinstance(c, StopInstance)]
    assert len(started) == 2 and max(started) <= 1.0
    assert len(stopped) == 2 and min(stopped) >= 30.0 and stopped[1] - stopped[0] >= 20.0


def test_an_instance_that_runs_is_stopped_after_its_batch() -> None:
    policy = Policy(instances=2, min_instances=1, max_instances=2, idle_s=1.0)
    core = Core(policy, table=table(policy))
    core.handle(Arrived(1), now=0.0)
    core.handle(Arrived(2), now=0.0)
    commands = [c for n in range(1, 5) for c in core.handle(Tick(), now=n * 0.5)]
    assert not any(isinstance(c, StopInstance) for c in commands)
    assert StopInstance(1) in core.handle(Finished(2.1, 1), now=2.1)
    assert not core.is_up(1)


def test_a_tenant_cannot_fill_the_queue_for_the_others() -> None:
    core = busy(Policy(tenant_capacity=1))
    assert core.handle(Arrived(1, tenant="a"), now=0.0) == []
    assert refusals(core.handle(Arrived(2, tenant="a"), now=0.0)) == [(2, "overloaded", "tenant full")]
    assert core.handle(Arrived(3, tenant="b"), now=0.0) == []


def test_every_refusal_is_counted_with_its_reason() -> None:
    core = busy(Policy(lanes=LANES, queue_capacity=1), lane="background")
    for id_ in (1, 2, 3):
        core.handle(Arrived(id_, lane="background"), now=0.0)
    core.handle(Arrived(4, deadline=-1.0), now=0.0)
    assert dict(core.outcomes.refusals) == {(1, "queue full"): 2, (0, "late on arrival"): 1}


POLICIES = st.builds(
    Policy,
    instances=st.just(2),
    max_instances=st.sampled_from([2, 3]),
    max_batch=st.sampled_from([1, 3, 8]),
    max_delay_s=st.sampled_from([0.0, 0.01]),
    company=st.sampled_from(["window", "adaptive"]),
    queue_capacity=st.sampled_from([2, 20, 200]),
    tenant_capacity=st.sampled_from([None, 3]),
    lanes=st.sampled_from([
        LANES,
        (Lane(name="critical"), Lane(name="background", weight=0.5)),
        (Lane(name="critical", accuracy_floor=0.9), Lane(name="background", priority=9, max_age_s=0.5, capacity=3)),
    ]),
    ladder=st.sampled_from([LADDER, LADDER[:1]]),
    speeds=st.just(()),
)  # fmt: skip
ARRIVALS = st.lists(
    st.builds(
        lambda gap, **rest: (gap, rest),
        st.sampled_from([0.0, 0.0, 0.001, 0.004, 0.02, 0.7]),
        rows=st.sampled_from([1, 1, 1, 2, 4]),
        key=st.sampled_from("ab"),
        within_s=st.sampled_from([None, 0.012, 0.03, 0.2]),
        leaves_s=st.sampled_from([None, None, 0.0, 0.01]),
        lane=st.sampled_from(["critical", "background", ""]),
        tenant=st.sampled_from(["", "a"]),
    ),
    max_size=150,
)
FAULTS = st.lists(
    st.tuples(st.floats(0.0, 1.0), st.sampled_from([EngineDown, EngineUp]), st.integers(0, 1)), max_size=4
)


@settings(deadline=None, max_examples=150)
@given(policy=POLICIES, drawn=ARRIVALS, faults=FAULTS, noise=st.lists(st.floats(0.5, 3.0), min_size=1, max_size=7))
def test_whatever_comes_every_law_holds(
    policy: Policy,
    drawn: list[tuple[float, dict[str, object]]],
    faults: list[tuple[float, type[EngineDown] | type[EngineUp], int]],
    noise: list[float],
) -> None:
    """One outcome each, nothing expired runs, bounds hold, floors hold, engines do not rest while work waits."""
    at, arrivals = 0.0, list[Arrival]()
    for gap, rest in drawn:
        at += gap
        arrivals.append(Arrival(at=at, **rest))  # type: ignore[arg-type]
    events = [(t, kind(number)) for t, kind, number in faults]
    events += [(at + 30.0, EngineUp(number)) for number in range(2)]
    core = Core(policy, table=table(policy))
    factors = iter(noise * 1000)
    played = replay(core, arrivals, lambda batch: seconds(batch) * next(factors), events=events)
    assert sorted(played.ended) == list(range(len(arrivals)))
    check_batches(policy, arrivals, played)
    check_counts(core, played)
    check_queue(policy, played)


def check_batches(policy: Policy, arrivals: list[Arrival], played: Replayed) -> None:
    for now, _, commands in played.log:
        for batch in commands:
            if not isinstance(batch, Dispatch):
                continue
            asked = [arrivals[id_] for id_ in batch.ids]
            lanes = [policy.lanes[policy.lane_numbers[one.lane]] for one in asked]
            accuracy = next(rung.accuracy for rung in policy.ladder if rung.variant == batch.variant)
            assert len({one.key for one in asked}) == 1
            assert batch.rows == sum(one.rows for one in asked)
            assert batch.rows <= policy.max_batch or len(asked) == policy.max_batch == 1
            assert all(accuracy >= lane.accuracy_floor for lane in lanes)
            for one, lane in zip(asked, lanes, strict=True):
                patience = min(
                    lane.deadline_s if one.within_s is None and lane.deadline_s else one.within_s or math.inf,
                    lane.max_age_s or math.inf,
                )
                assert now < one.at + patience, "nothing expired is run"


def check_counts(core: Core, played: Replayed) -> None:
    """What the core counts is what happened, and nobody is left in between."""
    states = {state: 0 for state in set(REQUEST.values())}
    for (_, state), count in core.outcomes.states.items():
        states[state] += count
    assert states["waiting"] == states["running"] == 0
    outcomes = [one.outcome for one in played.ended.values()]
    names = {"refused": "refused", "cancelled": "cancelled", "answered": "finished", "lost": "lost"}
    assert all(outcomes.count(mine) == states[its] for mine, its in names.items())  # type: ignore[arg-type, index]
    assert sum(core.outcomes.refusals.values()) == states["refused"]


def check_queue(policy: Policy, played: Replayed) -> None:
    """Walk through the log with a queue of our own: bounds hold, and no instance rests without a reason."""
    waiting: set[int] = set()
    idle, running = {0, 1}, dict[int, Dispatch]()
    for now, event, commands in played.log:
        match event:
            case Arrived(id_):
                waiting.add(id_)
            case Cancelled(id_):
                waiting.discard(id_)
            case Finished(_, number):
                if running.pop(number, None):
                    idle.add(number)
            case EngineDown(number):
                running.pop(number, None)
                idle.discard(number)
            case EngineUp(number):
                if number not in running:
                    idle.add(number)
            case _:
                pass
        for command in commands:
            match command:
                case Refuse(id_):
                    waiting.discard(id_)
                case Dispatch(ids, _, number):
                    waiting -= set(ids)
                    idle.discard(number)
                    running[number] = command
                case StopInstance(number):
                    idle.discard(number)
                case _:
                    pass
        assert len(waiting) <= policy.queue_capacity
        if idle and waiting:
            assert policy.max_delay_s > 0, f"an instance rests at {now} while {waiting} wait"
            assert policy.company == "window" or running, "an idle server waits for nobody"


@settings(deadline=None, max_examples=30)
@given(load=st.floats(1.0, 4.0), share=st.sampled_from([0.05, 0.2]), max_batch=st.sampled_from([1, 8]))
def test_no_lane_starves_however_much_more_urgent_work_comes(load: float, share: float, max_batch: int) -> None:
    lanes = (Lane(name="critical", priority=1, capacity=50), Lane(name="background", priority=2, min_share=share))
    policy = Policy(max_batch=max_batch, lanes=lanes, queue_capacity=10**6)
    capacity = max_batch / (0.008 + 0.002 * max_batch)
    background = [Arrival(at=0.0, lane="background") for _ in range(round(2 * capacity))]
    _, played = run(policy, merged(background, steady(load * capacity, "critical", until=4.0)))
    got = sum(o.outcome == "answered" and o.at <= 4.0 for o in played.ended.values() if o.arrival.lane == "background")
    assert got >= 0.9 * share * capacity * 4.0


@settings(deadline=None, max_examples=20)
@given(low=st.floats(0.0, 1.0), high=st.floats(1.0, 4.0))
def test_load_that_oscillates_at_one_hertz_moves_the_variant_at_most_once_in_ten_seconds(
    low: float, high: float
) -> None:
    """R13, through the whole core: Ticks carry the time where nothing comes."""
    policy = Policy(max_batch=8, lanes=(Lane(name="critical", deadline_s=0.1),), ladder=LADDER)
    halves = [steady(max(1.0, (low if n % 2 else high) * 333), start=n / 2, until=(n + 1) / 2) for n in range(40)]
    core = Core(policy, table=table(policy))
    moves, level = list[float](), 0
    played = replay(core, merged(*halves), seconds)
    for now, _, commands in played.log:
        for command in commands:
            if isinstance(command, Dispatch) and (command.variant == "int8") != bool(level):
                level = 1 - level
                moves.append(now)
    assert all(after - before >= 9.9 for before, after in pairwise(moves))


def test_a_draining_core_neither_starts_nor_stops_instances() -> None:
    policy = Policy(instances=1, min_instances=1, max_instances=3, queue_capacity=10**6)
    core = Core(policy, table=table(policy))
    for id_ in range(500):
        core.handle(Arrived(id_), now=0.0)
    core.handle(Drain(), now=0.1)
    assert not [c for c in core.handle(Tick(), now=0.6) if isinstance(c, StartInstance)]


@pytest.mark.parametrize("lane", ["critical", "background"])
def test_a_client_that_leaves_gives_its_place_and_its_work_back(lane: str) -> None:
    core = busy(Policy(lanes=LANES), lane=lane)
    core.handle(Arrived(1, lane=lane), now=0.0)
    core.handle(Cancelled(1), now=0.0)
    assert len(core.lanes) == 0
    assert core.lanes.work(0) == core.lanes.work(1) == 0.0
