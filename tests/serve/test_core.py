from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasten.serve.core import (
    Announced,
    Arrived,
    Cancelled,
    Command,
    Core,
    Dispatch,
    Drain,
    EngineDown,
    EngineLost,
    EngineUp,
    Event,
    Finished,
    Lane,
    LatencyTable,
    Policy,
    Refuse,
    Tick,
    Wake,
)
from hasten.serve.latency import GUESS_S

LANES = ("urgent", "usual", "background")


def make_core(
    max_batch: int = 8, max_delay_s: float = 0.0, queue_capacity: int = 256, *, engine_up: bool = True
) -> Core:
    return Core(Policy(max_batch=max_batch, max_delay_s=max_delay_s, queue_capacity=queue_capacity), engine_up)


def busy_core(max_batch: int = 8, max_delay_s: float = 0.0, queue_capacity: int = 256) -> Core:
    """A core whose engine runs request 0."""
    core = make_core(max_batch, max_delay_s, queue_capacity)
    core.handle(Arrived(0, rows=max_batch), now=0.0)
    assert core.is_busy()
    return core


def codes(commands: list[Command]) -> list[tuple[int, str]]:
    return [(command.id, command.code) for command in commands if isinstance(command, Refuse)]


def test_a_lone_request_goes_to_an_idle_engine_at_once() -> None:
    assert make_core().handle(Arrived(1), now=0.0) == [Dispatch((1,), 1)]


def test_requests_of_one_moment_go_together() -> None:
    core = make_core()
    assert core.arrive([Arrived(0), Arrived(1), Arrived(2)], now=0.0) == [Dispatch((0, 1, 2), 3)]


def test_one_that_comes_alone_is_an_event_like_any_other() -> None:
    for event in (Arrived(0), Arrived(0, deadline=-1.0), Arrived(0, lane="none")):
        assert make_core().arrive([event], now=0.0) == make_core().handle(event, now=0.0)


@pytest.mark.parametrize(("max_batch", "queue_capacity"), [(2, 256), (8, 2)], ids=["batch", "queue"])
def test_a_batch_or_a_queue_that_is_full_goes_though_more_of_the_moment_follows(
    max_batch: int, queue_capacity: int
) -> None:
    core = make_core(max_batch, queue_capacity=queue_capacity)
    assert core.arrive([Arrived(0), Arrived(1), Arrived(2)], now=0.0)[0] == Dispatch((0, 1), 2)


def test_what_arrives_as_a_batch_ends_goes_with_those_that_wait() -> None:
    core = busy_core()
    assert core.handle(Arrived(1), now=0.0) == []
    assert core.arrive([Arrived(2), Arrived(3)], now=1.0, ended=[Finished(1.0)]) == [Dispatch((1, 2, 3), 3)]


def test_what_ends_frees_its_instance_also_where_nothing_arrives() -> None:
    core = busy_core()
    assert core.arrive([], now=1.0, ended=[Finished(1.0)]) == []
    assert core.free


@pytest.mark.parametrize(("max_batch", "queue_capacity"), [(2, 256), (8, 2)], ids=["batch", "queue"])
def test_what_waited_goes_before_those_that_arrive_as_a_batch_ends_where_it_is_enough(
    max_batch: int, queue_capacity: int
) -> None:
    core = busy_core(max_batch, queue_capacity=queue_capacity)
    for number in (1, 2):
        assert core.handle(Arrived(number), now=0.0) == []
    commands = core.arrive([Arrived(3), Arrived(4)], now=1.0, ended=[Finished(1.0)])
    assert [command for command in commands if not isinstance(command, Wake)] == [Dispatch((1, 2), 2)]


def test_a_request_waits_while_the_engine_is_busy() -> None:
    assert busy_core().handle(Arrived(1), now=0.0) == []


def test_what_waited_goes_together_when_the_engine_is_free() -> None:
    core = busy_core()
    for id_ in (1, 2, 3):
        core.handle(Arrived(id_, rows=2), now=0.0)
    assert core.handle(Finished(0.1), now=0.1) == [Dispatch((1, 2, 3), 6)]


def test_a_batch_never_exceeds_its_bound() -> None:
    core = busy_core(max_batch=2)
    for id_ in (1, 2, 3):
        core.handle(Arrived(id_), now=0.0)
    assert core.handle(Finished(0.1), now=0.1) == [Dispatch((1, 2), 2)]
    assert core.handle(Finished(0.1), now=0.2) == [Dispatch((3,), 1)]


def test_requests_of_other_shapes_go_separately() -> None:
    core = busy_core()
    core.handle(Arrived(1, key="wide"), now=0.0)
    core.handle(Arrived(2, key="tall"), now=0.0)
    assert core.handle(Finished(0.1), now=0.1) == [Dispatch((1,), 1)]
    assert core.handle(Finished(0.1), now=0.2) == [Dispatch((2,), 1)]


def test_a_request_larger_than_a_batch_is_refused_where_the_model_batches() -> None:
    assert codes(make_core(max_batch=4).handle(Arrived(1, rows=5), now=0.0)) == [(1, "invalid")]


def test_a_request_of_many_rows_runs_alone_where_the_model_does_not_batch() -> None:
    assert make_core(max_batch=1).handle(Arrived(1, rows=5), now=0.0) == [Dispatch((1,), 5)]


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    core = busy_core(queue_capacity=2)
    for id_ in (1, 2):
        assert core.handle(Arrived(id_), now=0.0) == []
    (refusal,) = core.handle(Arrived(3), now=0.0)
    assert isinstance(refusal, Refuse)
    assert (refusal.id, refusal.code) == (3, "overloaded")
    assert refusal.retry_after_s == pytest.approx(2 * GUESS_S)


def test_the_time_to_come_back_grows_with_the_rows_that_wait() -> None:
    def wait(rows: int) -> float:
        core = busy_core(queue_capacity=1)
        core.handle(Arrived(1, rows=rows), now=0.0)
        (refusal,) = core.handle(Arrived(2), now=0.0)
        assert isinstance(refusal, Refuse) and refusal.retry_after_s is not None
        return refusal.retry_after_s

    assert wait(rows=8) == pytest.approx(8 * wait(rows=1))


def test_the_core_learns_how_long_a_batch_takes() -> None:
    core = make_core(max_batch=1)
    for id_ in range(100):
        core.handle(Arrived(id_), now=float(id_))
        core.handle(Finished(0.5), now=id_ + 0.5)
    assert core.table.seconds("", 1, None) == pytest.approx(0.5, rel=0.01)


def test_a_request_whose_deadline_passes_in_the_queue_is_refused_not_run() -> None:
    core = busy_core()
    assert core.handle(Arrived(1, deadline=1.0), now=0.0) == [Wake(1.0)]
    assert codes(core.handle(Tick(), now=1.0)) == [(1, "deadline")]
    assert core.handle(Finished(2.0), now=2.0) == []


def test_a_deadline_is_looked_at_before_the_engine_takes_the_request() -> None:
    core = busy_core()
    core.handle(Arrived(1, deadline=1.0), now=0.0)
    core.handle(Arrived(2), now=0.0)
    commands = core.handle(Finished(2.0), now=2.0)
    assert codes(commands) == [(1, "deadline")]
    assert Dispatch((2,), 1) in commands


def test_a_deadline_that_had_passed_on_arrival_is_refused_even_by_an_idle_engine() -> None:
    assert codes(make_core().handle(Arrived(1, deadline=1.0), now=1.0)) == [(1, "deadline")]


def test_a_request_may_wait_for_company_when_the_policy_says_so() -> None:
    core = make_core(max_delay_s=0.5)
    assert core.handle(Arrived(1), now=1.0) == [Wake(1.5)]
    assert core.handle(Arrived(2), now=1.2) == [Wake(1.5)]
    assert core.handle(Tick(), now=1.5) == [Dispatch((1, 2), 2)]


def test_company_that_fills_the_batch_ends_the_wait() -> None:
    core = make_core(max_batch=2, max_delay_s=0.5)
    core.handle(Arrived(1), now=0.0)
    assert core.handle(Arrived(2), now=0.1) == [Dispatch((1, 2), 2)]


def test_a_deadline_before_the_end_of_the_wait_ends_the_wait_while_there_is_time_to_run() -> None:
    core = make_core(max_delay_s=0.5)
    [wake] = core.handle(Arrived(1, deadline=0.2), now=0.0)
    assert isinstance(wake, Wake) and 0.1 < wake.at < 0.2
    assert core.handle(Tick(), now=wake.at) == [Dispatch((1,), 1)]


def test_a_deadline_left_behind_by_a_dispatch_wakes_the_core() -> None:
    core = busy_core(max_batch=2)
    core.handle(Arrived(1, key="a", deadline=0.5), now=0.0)
    core.handle(Arrived(2, key="b", deadline=1.0), now=0.0)
    assert core.handle(Finished(0.1), now=0.1) == [Dispatch((1,), 1), Wake(1.0)]


def test_the_earliest_deadline_goes_first() -> None:
    core = busy_core(max_batch=1)
    for id_, deadline in ((1, None), (2, 9.0), (3, 5.0), (4, 7.0)):
        core.handle(Arrived(id_, deadline=deadline), now=0.0)
    order: list[int] = []
    for at in (0.1, 0.2, 0.3, 0.4):
        order += [id_ for c in core.handle(Finished(0.1), now=at) if isinstance(c, Dispatch) for id_ in c.ids]
    assert order == [3, 4, 2, 1]


def test_a_client_that_leaves_gives_its_place_back() -> None:
    core = busy_core(queue_capacity=1)
    core.handle(Arrived(1), now=0.0)
    core.handle(Cancelled(1), now=0.0)
    assert core.handle(Arrived(2), now=0.0) == []
    assert core.handle(Finished(0.1), now=0.1) == [Dispatch((2,), 1)]


def test_a_client_that_leaves_while_its_batch_runs_changes_nothing() -> None:
    core = busy_core()
    assert core.handle(Cancelled(0), now=0.0) == []
    assert core.is_busy()


def test_what_waits_outlives_the_engine() -> None:
    core = busy_core()
    core.handle(Arrived(1), now=0.0)
    assert core.handle(EngineDown(), now=0.1) == []
    assert core.handle(Arrived(2), now=0.2) == []
    assert core.handle(EngineUp(), now=0.3) == [Dispatch((1, 2), 2)]


def test_deadlines_run_on_while_the_engine_is_down() -> None:
    core = make_core(engine_up=False)
    assert core.handle(Arrived(1, deadline=1.0), now=0.0) == [Wake(1.0)]
    assert codes(core.handle(Tick(), now=1.0)) == [(1, "deadline")]


def test_a_draining_core_refuses_what_comes_and_finishes_what_waits() -> None:
    core = busy_core()
    core.handle(Arrived(1), now=0.0)
    assert core.handle(Drain(), now=0.0) == []
    assert codes(core.handle(Arrived(2), now=0.0)) == [(2, "unavailable")]
    assert core.handle(Finished(0.1), now=0.1) == [Dispatch((1,), 1)]


def test_draining_waits_for_no_company() -> None:
    core = make_core(max_delay_s=10.0)
    core.handle(Arrived(1), now=0.0)
    assert core.handle(Drain(), now=0.0) == [Dispatch((1,), 1)]


def test_two_instances_run_two_batches_side_by_side() -> None:
    core = Core(Policy(instances=2))
    assert core.handle(Arrived(1), now=0.0) == [Dispatch((1,), 1, 0)]
    assert core.handle(Arrived(2), now=0.0) == [Dispatch((2,), 1, 1)]
    assert core.handle(Arrived(3), now=0.0) == []
    assert core.handle(Finished(0.1, 1), now=0.1) == [Dispatch((3,), 1, 1)]


def test_an_instance_that_is_down_leaves_the_work_to_the_other() -> None:
    core = Core(Policy(instances=2))
    core.handle(EngineDown(0), now=0.0)
    assert core.handle(Arrived(1), now=0.0) == [Dispatch((1,), 1, 1)]


def test_one_lost_instance_refuses_nobody_and_the_last_one_refuses_all() -> None:
    core = Core(Policy(instances=2), engine_up=False)
    core.handle(Arrived(1), now=0.0)
    assert core.handle(EngineLost(3.0, 0), now=0.1) == []
    [refusal] = core.handle(EngineLost(1.0, 1), now=0.2)
    assert isinstance(refusal, Refuse)
    assert (refusal.id, refusal.code, refusal.retry_after_s) == (1, "unavailable", 1.0)


def test_work_is_counted_for_all_instances_together_when_told_to_come_back() -> None:
    core = Core(Policy(instances=2, queue_capacity=1))
    for id_ in (1, 2, 3):
        core.handle(Arrived(id_), now=0.0)
    [refusal] = core.handle(Arrived(4), now=0.0)
    assert isinstance(refusal, Refuse)
    assert refusal.retry_after_s == pytest.approx(GUESS_S / 2)


@dataclass
class Play:
    """Carries a sequence of steps to a core as a driver would, keeps count, and checks what must always hold."""

    core: Core
    now: float = 0.0
    arrived: dict[int, Arrived] = field(default_factory=dict[int, Arrived])
    waiting: set[int] = field(default_factory=set[int])
    running: dict[int, set[int]] = field(default_factory=dict[int, set[int]])
    dispatched: list[int] = field(default_factory=list[int])
    refused: list[int] = field(default_factory=list[int])
    cancelled: list[int] = field(default_factory=list[int])

    def step(self, event: Event) -> None:
        if isinstance(event, Arrived):
            self.arrived[event.id] = event
            self.waiting.add(event.id)
        if isinstance(event, Finished | EngineDown):
            self.running.pop(event.instance, None)
        if isinstance(event, Cancelled) and event.id in self.waiting and not self.has_expired(event.id):
            self.waiting.remove(event.id)
            self.cancelled.append(event.id)
        commands = self.core.handle(event, self.now)
        for command in commands:
            self.carry_out(command)
        self.check(commands)

    def has_expired(self, id_: int) -> bool:
        deadline = self.arrived[id_].deadline
        return deadline is not None and deadline <= self.now

    def carry_out(self, command: Command) -> None:
        match command:
            case Dispatch(ids, rows, instance):
                assert instance not in self.running, "one batch at a time on each instance"
                assert ids and set(ids) <= self.waiting, "only what waits is dispatched"
                assert rows == sum(self.arrived[id_].rows for id_ in ids)
                assert rows <= self.core.policy.max_batch or len(ids) == self.core.policy.max_batch == 1
                assert len({self.arrived[id_].key for id_ in ids}) == 1
                assert not any(self.has_expired(id_) for id_ in ids), "no expired request is dispatched"
                self.waiting -= set(ids)
                self.running[instance] = set(ids)
                self.dispatched += ids
            case Refuse(id_, _, _, retry_after_s):
                assert id_ in self.waiting, "only what waits is refused"
                assert retry_after_s is None or retry_after_s > 0
                self.waiting.remove(id_)
                self.refused.append(id_)
            case Wake(at):
                assert at > self.now, "a wake lies ahead"

    def check(self, commands: list[Command]) -> None:
        assert len(self.core.lanes) == len(self.waiting) <= self.core.policy.queue_capacity
        assert self.core.lanes.rows == sum(self.arrived[id_].rows for id_ in self.waiting)
        idle = self.core.free
        if self.core.policy.max_delay_s == 0 or self.core.draining:
            assert not (idle and self.waiting), "an idle engine leaves nothing waiting"
        due = [d for id_ in self.waiting if (d := self.arrived[id_].deadline) is not None]
        wakes = [command.at for command in commands if isinstance(command, Wake)]
        if due or (idle and self.waiting):
            assert wakes, "what must happen later has a wake"
        assert all(min(wakes) <= deadline for deadline in due), "nobody waits past a deadline"


STEPS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.0, 0.1, 0.5, 2.0]),
        st.one_of(
            st.tuples(
                st.just("arrive"),
                st.integers(1, 6),
                st.sampled_from("ab"),
                st.none() | st.sampled_from([-0.5, 0.0, 0.1, 0.3, 1.0, 5.0]),
            ),
            st.tuples(st.just("cancel"), st.integers(0, 60)),
            st.tuples(st.sampled_from(["finish", "finish", "tick", "down", "up"]), st.integers(0, 2)),
            st.tuples(st.sampled_from(["tick"] * 9 + ["drain"])),
        ),
    ),
    max_size=60,
)
POLICIES = st.builds(
    Policy,
    instances=st.integers(1, 3),
    max_batch=st.integers(1, 5),
    max_delay_s=st.sampled_from([0.0, 0.0, 0.2, 1.0]),
    queue_capacity=st.integers(0, 6),
)
Step = tuple[float, tuple[object, ...]]


def event_of(action: tuple[object, ...], play: Play) -> Event:
    match action:
        case ("arrive", int(rows), key, None | float() as in_s):
            return Arrived(len(play.arrived), rows, str(key), None if in_s is None else play.now + in_s)
        case ("cancel", int(id_)):
            return Cancelled(id_)
        case ("finish", int(n)) if n < play.core.policy.instances and play.core.is_busy(n):
            return Finished(0.01, n)
        case ("down", int(n)) if n < play.core.policy.instances:
            return EngineDown(n)
        case ("up", int(n)) if n < play.core.policy.instances and not play.core.is_up(n):
            return EngineUp(n)
        case ("drain",):
            return Drain()
        case _:
            return Tick()


@settings(deadline=None, max_examples=300)
@given(policy=POLICIES, steps=STEPS, engine_up=st.booleans())
def test_each_request_is_dispatched_once_or_refused_or_cancelled_whatever_happens(
    policy: Policy, steps: list[Step], engine_up: bool
) -> None:
    play = Play(Core(policy, engine_up))
    for pause, action in steps:
        play.now += pause
        play.step(event_of(action, play))
    instances = range(policy.instances)
    for number in instances:
        play.step(EngineUp(number) if not play.core.is_up(number) else Tick())
    play.step(Drain())
    while busy := [number for number in instances if play.core.is_busy(number)]:
        play.step(Finished(0.01, busy[0]))
    assert play.waiting == set()
    assert sorted(play.dispatched + play.refused + play.cancelled) == sorted(play.arrived)


@settings(deadline=None)
@given(policy=POLICIES, steps=STEPS)
def test_the_same_events_give_the_same_commands(policy: Policy, steps: list[Step]) -> None:
    plays = [Play(Core(policy)), Play(Core(policy))]
    for pause, action in steps:
        for play in plays:
            play.now += pause
            play.step(event_of(action, play))
    assert plays[0].dispatched == plays[1].dispatched
    assert plays[0].refused == plays[1].refused


def test_what_is_announced_to_a_full_queue_is_refused_before_it_is_there() -> None:
    core = busy_core(queue_capacity=1)
    assert codes(core.handle(Announced(Arrived(1)), now=0.0)) == []
    core.handle(Arrived(1), now=0.0)
    assert codes(core.handle(Announced(Arrived(2)), now=0.0)) == [(2, "overloaded")]
    assert core.outcomes.refusals == {(0, "queue full"): 1}


def test_what_is_announced_and_may_be_taken_changes_nothing() -> None:
    core = busy_core()
    for announced in (Arrived(1), Arrived(1, rows=99), Arrived(1, lane="none"), Arrived(1, deadline=-1.0)):
        assert core.handle(Announced(announced), now=0.0) == []
    assert core.lanes.count == 0


@settings(max_examples=100, deadline=None)
@given(
    waiting=st.lists(st.tuples(st.sampled_from(LANES), st.floats(0.0, 0.4)), max_size=12),
    lane=st.sampled_from(LANES),
    within=st.floats(0.0, 0.4),
)
def test_whatever_is_refused_when_it_is_announced_would_be_refused_when_it_comes(
    waiting: list[tuple[str, float]], lane: str, within: float
) -> None:
    lanes = tuple(Lane(name=name, priority=place) for place, name in enumerate(LANES, 1))
    table = LatencyTable({"": [(1, 0.02), (4, 0.05)]})

    def core() -> Core:
        made = Core(Policy(max_batch=4, queue_capacity=8, lanes=lanes), table=table)
        for number, (name, seconds) in enumerate(waiting):
            made.handle(Arrived(number, lane=name, deadline=seconds), now=0.0)
        return made

    request = Arrived(99, lane=lane, deadline=within)
    announced = codes(core().handle(Announced(request), now=0.0))
    assert announced in ([], [code for code in codes(core().handle(request, now=0.0)) if code[0] == 99])
