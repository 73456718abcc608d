"""Laws that hold while instances come and go with the load."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from hasten.serve.core import (
    Core,
    Dispatch,
    EngineUp,
    Finished,
    LatencyTable,
    Policy,
    StartInstance,
    StopInstance,
)
from hasten.testing.replay import Arrival, Replayed, replay

MEASURED = [(1, 0.010), (8, 0.024)]
# Spells of load: how many requests, and the gap between two of them in seconds.
SPELLS = st.lists(st.tuples(st.integers(1, 60), st.sampled_from([0.0, 0.001, 0.004, 0.05, 1.5])), max_size=6)


def policies(least: int, usual: int, most: int, max_batch: int, queue: int) -> Policy:
    return Policy(
        instances=least + min(usual, most),
        min_instances=least,
        max_instances=least + most,
        max_batch=max_batch,
        queue_capacity=queue,
        idle_s=2.0,
    )


POLICIES = st.builds(
    policies,
    least=st.integers(1, 2),
    usual=st.integers(0, 2),
    most=st.integers(1, 3),
    max_batch=st.sampled_from([1, 4]),
    queue=st.sampled_from([3, 200]),
)


def played(policy: Policy, spells: list[tuple[int, float]], start_s: float) -> tuple[Core, list[Arrival], Replayed]:
    at, arrivals = 0.0, list[Arrival]()
    for count, gap in spells:
        for _ in range(count):
            at += gap
            arrivals.append(Arrival(at=at))
    core = Core(policy, table=LatencyTable({"": MEASURED}, policy.ladder))
    wanted: list[int] = []

    def seconds(batch: Dispatch) -> float:
        wanted.append(core.wanted)
        return 0.008 + 0.002 * batch.rows

    found = replay(core, arrivals, seconds, start_s=start_s)
    least, most = policy.scale
    assert all(least <= number <= most for number in [*wanted, core.wanted])
    return core, arrivals, found


@settings(deadline=None, max_examples=60)
@given(policy=POLICIES, spells=SPELLS, start_s=st.sampled_from([0.01, 1.0, 5.0]))
def test_every_request_ends_once_while_instances_come_and_go(
    policy: Policy, spells: list[tuple[int, float]], start_s: float
) -> None:
    core, arrivals, found = played(policy, spells, start_s)
    assert sorted(found.ended) == list(range(len(arrivals)))
    assert sum(core.outcomes.states.values()) == len(arrivals)


@settings(deadline=None, max_examples=60)
@given(policy=POLICIES, spells=SPELLS, start_s=st.sampled_from([0.01, 1.0, 5.0]))
def test_only_instances_that_are_up_run_and_none_rests_while_work_waits(
    policy: Policy, spells: list[tuple[int, float]], start_s: float
) -> None:
    _, _, found = played(policy, spells, start_s)
    up, busy, waiting = set(range(policy.instances)), set[int](), 0
    for _, event, commands in found.log:
        match event:
            case Finished(_, number):
                busy.discard(number)
            case EngineUp(number):
                up.add(number)
            case _:
                waiting += type(event).__name__ == "Arrived"
        for command in commands:
            match command:
                case Dispatch(ids, _, number):
                    assert number in up - busy
                    busy.add(number)
                    waiting -= len(ids)
                case StopInstance(number):
                    assert number not in busy
                    up.discard(number)
                case StartInstance(number):
                    assert number not in up
                case _:
                    waiting -= type(command).__name__ == "Refuse"
        assert waiting == 0 or up <= busy
        assert waiting <= policy.queue_capacity
        assert len(up) <= policy.scale[1]


@settings(deadline=None, max_examples=30)
@given(policy=POLICIES, spells=SPELLS)
def test_after_long_rest_only_the_least_number_of_instances_is_left(
    policy: Policy, spells: list[tuple[int, float]]
) -> None:
    core, _, _ = played(policy, [*spells, (1, 1.0), (1, 60.0), (1, 1.0)], 0.01)
    assert core.wanted == policy.scale[0]
