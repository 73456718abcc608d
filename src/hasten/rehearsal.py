"""Looks at a served bundle, predicts what a load will give, and then puts the load on; turn by turn.

The speed of a shared machine moves by some percent from second to second, and near saturation a percent more load is
several more of tail latency. So a rehearsal is made of short turns. Each begins with a look at the server under other
loads (`hasten.fleet.beside`): a medium one, then more than it carries. From that the prediction for the arrivals of
this turn is made, with an interval by how much the machine changed within looks, and only then they are sent. Arrivals
are the same in simulation and reality, or their own chance would stand between the two; they are drawn before either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from hasten.errors import EngineError
from hasten.fleet.beside import Beside, Moved, Seen, beside_of, moved_between
from hasten.fleet.capacity import Question, play, pooled
from hasten.fleet.simulate import Played
from hasten.measure.arrivals import arrivals
from hasten.measure.circumstances import Machine, disturbed
from hasten.measure.load import Load
from hasten.measure.outcome import FOREVER_MS, LATE_S, Call, of_answered
from hasten.observe.follow import Follower
from hasten.spec.measurement import Figure, unmeasured
from hasten.spec.serving import Deployment, Prediction, Rehearsal, Serving
from hasten.stats.percentiles import mean, percentile_of_blocks

if TYPE_CHECKING:
    from hasten.sender import Sender

__all__ = ["Rehearsing", "Stretch", "capacity_of", "conclude", "shuffled"]

# A look: seconds, requests that are wanted within these, and the share of what the server carries that is sent.
_MEDIUM_S, _MEDIUM_REQUESTS, _MEDIUM = (1.0, 2.5), 150, 0.45
_FULL_S, _FULL_REQUESTS, _FULL = (1.2, 2.5), 300, 1.1
# What a server carries is first asked by a closed loop, which makes less work for front end and client than requests
# that come at random; the rest of the time is spent on those. They find this many requests a slot waiting already.
_FIRST_S, _WAITING = 1.0, 8
# Further overloads of one look, each by more, where the server carried what was sent.
_MORE = 2
_MOST_WAITING = 64
# What comes first meets queues and caches that are not yet as they will be.
_RAMP = 0.15
# Simulated runs of each turn: what is expected is that the machine stays as the look saw it, in the first of them; the
# others have it move, and widen the interval. Near saturation one slow second makes the p99 of a whole rehearsal, and a
# median over runs of which some have one and some do not is a coin's throw.
_RUNS, _STILL = 9, 5
# For the log to be written.
_PATIENCE_S = 2.0
# Latencies within so many seconds belong together.
_BLOCK_S = 1.0
_ORDERS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """One turn of load: what was simulated before it, first with the machine as it was looked at, and what came of it.
    Calls count from its start, in seconds. `disturbed`: other processes took a part of the machine, in the look before
    it or under the load.
    """

    load_rps: float
    seconds: float
    played: Sequence[Played]
    calls: Sequence[Call]
    disturbed: bool = False


@dataclass(kw_only=True)
class Rehearsing:
    """A server under rehearsal: what is asked about its variant, how it is deployed, who sends, and its log of
    requests. `looks` are all so far, `disturbed` whether others took a part of the machine in the last one.
    """

    question: Question
    deployment: Deployment
    sender: Sender
    log: Follower
    looks: list[Beside] = field(default_factory=list[Beside])
    disturbed: bool = False
    machine: Machine = field(default_factory=Machine)
    _moved: list[Moved] = field(default_factory=list[Moved])
    _medium: list[Seen] = field(default_factory=list[Seen])

    @property
    def serving(self) -> Serving:
        """How it is served."""
        return self.deployment.serving

    def look(self) -> Beside:
        """Send requests at random, first fewer, then more than are carried. Raises `EngineError` where nothing is
        answered.
        """
        # What a disturbed look says of the server would be too little for a sender that is to overload it.
        usual = self.looks[-1].capacity_rps if self.looks and not self.disturbed else self._first()
        before = self.machine.snapshot()
        due = self._due(_MEDIUM * usual, _within(_MEDIUM_REQUESTS / (_MEDIUM * usual), _MEDIUM_S))
        medium = self._seen(self.sender.open_loop(due))
        capacity, full = self._overload(usual)
        for _ in range(_MORE):
            if capacity < (1 + _FULL) / 2 * usual:
                break
            # It carried about all that was sent; it may carry more.
            usual = capacity
            capacity, full = self._overload(usual)
        self.disturbed = disturbed(before, self.machine.snapshot())
        # A disturbed look serves its own turn only, which is left out with it.
        pool = [*self._medium, *medium]
        if not self.disturbed:
            self._medium = pool
            self._moved += moved_between(full)
        beside = beside_of(self.deployment.times, self.serving, pool, full, capacity)
        self.looks.append(beside)
        return beside

    def _overload(self, usual_rps: float) -> tuple[float, list[Seen]]:
        """Send more than is carried; how much is, and what was seen. Raises `EngineError` where hardly anything is
        answered.
        """
        seconds = _within(_FULL_REQUESTS / usual_rps, _FULL_S)
        due = [0.0] * self._waiting() + self._due(_FULL * usual_rps, seconds)
        calls = self.sender.open_loop(due)
        done = [call.done_s for call in calls if call.done_s is not None and call.failure is None]
        # Until the last request was due there was always one waiting.
        answered = sum(_RAMP * seconds <= at <= seconds for at in done)
        if not answered:
            raise EngineError(f"Within {seconds:.1f} s the server answered hardly any request.")
        return answered / ((1 - _RAMP) * seconds), self._seen(calls)

    def _first(self) -> float:
        """Requests a second in a closed loop. Raises `EngineError`."""
        calls = self.sender.closed_loop(self._waiting(), _FIRST_S)
        done = sum(call.done_s is not None and call.failure is None and call.done_s <= _FIRST_S for call in calls)
        self.log.answered(len(calls), _PATIENCE_S)
        if not done:
            raise EngineError(f"Within {_FIRST_S:g} s the server answered no request.")
        return done / _FIRST_S

    def _waiting(self) -> int:
        """Requests that keep every slot busy with some behind it."""
        slots = self.serving.instances * self.serving.max_batch
        return max(2 * slots, min(_WAITING * slots, _MOST_WAITING))

    def _due(self, rate_rps: float, seconds: float) -> list[float]:
        return arrivals(Load(kind="poisson", value=rate_rps), seconds, len(self.looks))

    def load(self, load_rps: float, seconds: float, seed: int) -> Stretch:
        """Predict from the last look, then put Poisson arrivals on for so long."""
        due = arrivals(Load(kind="poisson", value=load_rps), seconds, seed)
        question = self.asked()
        played: list[Played] = []
        for run in range(_RUNS):
            rng = np.random.default_rng((self.question.seed, seed, run))
            moves = run >= _STILL and self._moved
            speed = self._moved[rng.integers(len(self._moved))].over(seconds) if moves else 1.0
            played.append(play(question, self.serving, due, rng, speed=speed))
        before = self.machine.snapshot()
        calls = self.sender.open_loop(due)
        spoilt = self.disturbed or disturbed(before, self.machine.snapshot())
        # Of the load itself the log tells nothing that a later prediction may know.
        self.log.answered(len(calls), _PATIENCE_S)
        return Stretch(load_rps=load_rps, seconds=seconds, played=played, calls=calls, disturbed=spoilt)

    def asked(self) -> Question:
        """The question with times as they were last seen in the server."""
        beside = self.looks[-1]
        return replace(self.question, times=beside.times, outside=beside.outside)

    def _seen(self, calls: Sequence[Call]) -> list[Seen]:
        """What the log tells of these calls, the last that were sent, in the order in which their engines began."""
        records = {record["request_id"]: record for record in self.log.answered(len(calls), _PATIENCE_S)}
        first = self.sender.sent - sum(call.sent_s is not None for call in calls)
        found = [
            _one(call, records[str(first + at)], self.serving)
            for at, call in enumerate(calls)
            if call.done_s is not None and call.failure is None and str(first + at) in records
        ]
        return sorted(found, key=lambda seen: seen.began_s)


def shuffled(bodies: Sequence[Any], seed: int) -> list[Any]:
    """Bodies in random order, each as often as any other: real requests have no order that a queue could lean on."""
    rng = np.random.default_rng(seed)
    return [bodies[int(at)] for _ in range(_ORDERS) for at in rng.permutation(len(bodies))]


def conclude(stretches: Sequence[Stretch], serving: Serving) -> tuple[Prediction, Rehearsal]:
    """Join turns: what was predicted before each, and what the real server gave."""
    seconds = sum(one.seconds for one in stretches)
    load = sum(one.load_rps * one.seconds for one in stretches) / seconds
    predicted = pooled([[one.played[run] for one in stretches] for run in range(_RUNS)], serving, load, expected=_STILL)
    calls = [call for one in stretches for call in one.calls]
    found = Rehearsal(
        load_rps=load,
        offered_rps=len(calls) / seconds,
        latency_p50_ms=_percentile(stretches, 50),
        latency_p95_ms=_percentile(stretches, 95),
        latency_p99_ms=_percentile(stretches, 99),
        throughput_rps=_rate(stretches),
        failed=sum(call.failure is not None or call.done_s is None for call in calls),
        late=sum(call.sent_s is None or call.sent_s - call.due_s > LATE_S for call in calls),
    )
    return predicted, found


def capacity_of(looks: Sequence[Beside], serving: Serving) -> Figure:
    """Requests per second with every instance busy, over all looks."""
    rates = [look.capacity_rps for look in looks]
    method = f"{serving.instances} busy instances over loopback, {len(rates)} looks"
    return Figure(value=float(np.median(rates)), low=min(rates), high=max(rates), n=len(rates), method=method)


def _one(call: Call, record: Mapping[str, Any], serving: Serving) -> Seen:
    assert call.done_s is not None
    assert call.sent_s is not None
    engine, queue = record["engine_ms"], record["queue_ms"]
    # Waiting for company is the scheduler's doing, and simulated; without batches it is the way to the engine.
    inside = engine + queue + (record["batch_ms"] if serving.max_batch > 1 else 0.0)
    ended = datetime.fromisoformat(record["time"]).timestamp()
    # A request that found no free connection waited for those before it, which is part of a queue, not of its way. Late
    # by less, its sender had no core.
    late = call.sent_s - call.due_s
    since = call.sent_s if late > LATE_S else call.due_s
    return Seen(
        began_s=ended - engine / 1e3,
        engine_ms=engine,
        queue_ms=queue,
        outside_ms=max(0.0, (call.done_s - since) * 1e3 - inside),
        batch=record["batch"],
    )


def _percentile(stretches: Sequence[Stretch], p: float) -> Figure:
    blocks = [block for one in stretches for block in _blocks(one)]
    return of_answered(percentile_of_blocks(blocks, p), p, sum(block.count(FOREVER_MS) for block in blocks))


def _blocks(stretch: Stretch) -> list[list[float]]:
    """Latencies in ms, together with those that were due within the same second. Failed requests have none."""
    blocks: list[list[float]] = [[] for _ in range(int(np.ceil(stretch.seconds / _BLOCK_S)))]
    for call in stretch.calls:
        if call.failure is None:
            ms = FOREVER_MS if call.done_s is None else (call.done_s - call.due_s) * 1e3
            blocks[int(call.due_s / _BLOCK_S)].append(ms)
    return blocks


def _rate(stretches: Sequence[Stretch]) -> Figure:
    """Answers over the time until the last of each turn."""
    done = [[call.done_s for call in one.calls if call.done_s and call.failure is None] for one in stretches]
    parts = [(len(times), max(times)) for times in done if times]
    answered, seconds = sum(count for count, _ in parts), sum(end for _, end in parts)
    if not seconds:
        return unmeasured("no request was answered")
    spread = mean([count / end for count, end in parts])
    rate, method = answered / seconds, f"answered over elapsed time of {len(parts)} turns"
    if spread.value is None or spread.low is None or spread.high is None:
        return Figure(value=rate, low=None, high=None, n=answered, method=method)
    return Figure(
        value=rate,
        low=max(0.0, rate - spread.value + spread.low),
        high=rate - spread.value + spread.high,
        n=answered,
        method=method,
    )


def _within(value: float, limits: tuple[float, float]) -> float:
    return float(np.clip(value, *limits))
