from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from hasten.serve.core import (
    Arrived,
    Cancelled,
    Core,
    Dispatch,
    EngineDown,
    EngineLost,
    EngineUp,
    Event,
    Finished,
    Policy,
    Refuse,
    Tick,
    Wake,
)

MAX_BATCH, CAPACITY = 4, 6


def make_core(**options: float) -> Core:
    return Core(Policy(max_batch=MAX_BATCH, queue_capacity=CAPACITY, **options))  # type: ignore[arg-type]


def test_nothing_waits_for_an_engine_that_did_not_come_back() -> None:
    core = make_core()
    core.handle(Arrived(1), now=0.0)
    core.handle(Arrived(2), now=0.0)
    assert core.handle(EngineDown(), now=1.0) == []
    [waiting] = core.handle(EngineLost(0.5), now=1.1)
    [arriving] = core.handle(Arrived(3), now=1.2)
    assert isinstance(waiting, Refuse)
    assert isinstance(arriving, Refuse)
    assert [waiting.id, arriving.id] == [2, 3]
    assert {waiting.code, arriving.code} == {"unavailable"}
    assert waiting.retry_after_s == 0.5
    core.handle(EngineUp(), now=2.0)
    assert core.handle(Arrived(4), now=2.0) == [Dispatch((4,), 1)]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["arrive", "arrive", "finish", "cancel", "down", "lost", "up", "tick"]),
        st.integers(1, MAX_BATCH + 1),
        st.sampled_from("ab"),
        st.none() | st.floats(0.0, 3.0),
        st.floats(0.0, 1.0),
    ),
    max_size=60,
)


class World:
    """The outside of a core: carries commands out, and knows what must hold after each event."""

    def __init__(self) -> None:
        self.core = make_core()
        self.asked: dict[int, tuple[int, str, float | None]] = {}
        self.waiting: set[int] = set()
        self.running: set[int] = set()
        self.ended: set[int] = set()
        self.busy, self.up, self.now = False, True, 0.0

    def step(self, kind: str, rows: int, key: str, patience: float | None, pause: float) -> None:
        self.now += pause
        event = self.event(kind, rows, key, patience)
        for command in self.core.handle(event, self.now):
            match command:
                case Dispatch(ids, total):
                    self.dispatch(ids, total)
                case Refuse(id_):
                    self.end(id_)
                case Wake(at):
                    assert at >= self.now
        if isinstance(event, Cancelled) and event.id not in self.ended:
            # At the very moment of its deadline a request is refused rather than cancelled.
            self.end(event.id)
        assert len(self.waiting) <= CAPACITY
        assert self.busy or not self.up or not self.waiting, "an idle engine leaves nothing waiting"

    def event(self, kind: str, rows: int, key: str, patience: float | None) -> Event:
        match kind:
            case "arrive":
                id_ = len(self.asked)
                self.asked[id_] = (rows, key, None if patience is None else self.now + patience)
                self.waiting.add(id_)
                return Arrived(id_, rows, key, self.asked[id_][2])
            case "finish" if self.busy:
                self.stop()
                return Finished(0.1)
            case "cancel" if self.waiting:
                return Cancelled(min(self.waiting))
            case "down" if self.up:
                self.up = False
                self.stop()
                return EngineDown()
            case "lost" if not self.up:
                return EngineLost(1.0)
            case "up" if not self.up:
                self.up = True
                return EngineUp()
        return Tick()

    def stop(self) -> None:
        for id_ in list(self.running):
            self.end(id_)
        self.busy = False

    def end(self, id_: int) -> None:
        assert id_ not in self.ended, "a request ends once"
        self.waiting.discard(id_)
        self.running.discard(id_)
        self.ended.add(id_)

    def dispatch(self, ids: tuple[int, ...], total: int) -> None:
        assert self.up
        assert not self.busy, "one batch at a time"
        assert set(ids) <= self.waiting, "a request runs once, and not after it ended"
        assert total == sum(self.asked[id_][0] for id_ in ids) <= MAX_BATCH
        assert len({self.asked[id_][1] for id_ in ids}) == 1
        assert all(deadline is None or deadline > self.now for deadline in (self.asked[id_][2] for id_ in ids))
        self.waiting -= set(ids)
        self.running |= set(ids)
        self.busy = True


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_every_request_ends_once_and_every_batch_is_lawful(
    steps: list[tuple[str, int, str, float | None, float]],
) -> None:
    world = World()
    for step in steps:
        world.step(*step)
    world.step("up", 1, "a", None, 0.0)
    while world.busy or world.waiting:
        world.step("finish", 1, "a", None, 0.0)
    assert world.ended == set(world.asked)
