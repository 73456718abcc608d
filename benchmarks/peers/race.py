"""Measures all contestants of one model: accuracy on holdout data, then latency and throughput in shared rounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from hasten.data.dataset import Subset
from hasten.data.feed import feed, sample_for
from hasten.engine.isolate import COMMAND, IsolatedSession, load_isolated
from hasten.errors import EngineError
from hasten.measure.accuracy import AccuracyMeter
from hasten.measure.base import AnswerBook, Pair, Plan
from hasten.measure.contention import Watch
from hasten.measure.latency import race_times
from hasten.spec.measurement import Figure, Measurement, MetricInfo
from hasten.spec.target import Target
from hasten.spec.values import Value
from hasten.stats.percentiles import percentile
from hasten.stats.ratio import speedup
from hasten.verify.judge import accuracy_check
from peers import worker
from peers.contestants import HASTEN, THREADS, shared
from peers.outcome import Row
from peers.subjects import Subject

__all__ = ["BOUND", "PLAN", "Entrant", "Race"]

BOUND = 0.005
PLAN = Plan(rounds=40, runs=4, samples=64, seed=11)
WINDOWS, PILOTS = 12, 4
WINDOW_S = 1.0
PATIENCE_S = 60.0
_SAMPLES = 8
# A quarter of the data with fewer samples than this says too little.
_ENOUGH = 200


class Entrant(Value, frozen=True):
    """A contestant that has a model: where it is, and what it runs on."""

    id: str
    model: str
    target: Target
    own: bool = False


class _Named:
    """A session whose outputs bear the reference's names, by position: a PyTorch program has names of its own."""

    def __init__(self, session: IsolatedSession, names: list[str]) -> None:
        self._session, self._names = session, names

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, inputs: Any) -> dict[str, Any]:
        return dict(zip(self._names, self._session.run(inputs).values(), strict=True))


class Race:
    """The sessions of all entrants, and what is found of each. Use it in a `with`."""

    def __init__(self, subject: Subject, rows: Mapping[str, Row], reference: str, say: Callable[[str], None]) -> None:
        self.rows = dict(rows)
        self.watch = Watch(PATIENCE_S)
        self._subject, self._reference, self._say = subject, reference, say
        self._stack = ExitStack()
        self._entrants: dict[str, Entrant] = {}
        self._sessions: dict[str, IsolatedSession] = {}

    def __enter__(self) -> Race:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def enter(self, entrants: list[Entrant]) -> None:
        """Load each and hold its accuracy to the bound; whoever fails is out, with the reason in its row.

        Raises `EngineError` where the reference fails: there is no race without it.
        """
        book = AnswerBook()
        for entrant in sorted(entrants, key=lambda item: item.id != self._reference):
            self._say(f"accuracy of {entrant.id}")
            try:
                session = self._load(entrant, entrant.target)
                self._sessions[entrant.id] = session
                self._judge(entrant.id, session, book)
            except EngineError as error:
                self._sessions.pop(entrant.id, None)
                if entrant.id == self._reference:
                    raise
                self._set(entrant.id, reason=f"failed: {error.message[:240]}", bound="absent")
                continue
            self._entrants[entrant.id] = entrant

    def latency(self) -> None:
        """All entrants in the same rounds."""
        self._say(f"latency of {len(self._sessions)} contestants")
        times = race_times(self._sessions, self._subject.holdout, PLAN, self.watch)
        for id_, own in times.items():
            self._set(
                id_,
                p50_ms=percentile(own, 50),
                ratio=speedup(times[self._reference], own, seed=PLAN.seed),
                against=speedup(own, times[HASTEN], seed=PLAN.seed),
            )

    def throughput(self) -> None:
        """Each entrant that may still meet the bound, at the better of two ways to share two cores.

        Which way is better is decided on windows that do not count.
        """
        able = [id_ for id_ in self._sessions if id_ in (HASTEN, self._reference) or self._may(id_)]
        ways = {(id_, self._entrants[id_].target.runtime.instances): self._sessions[id_] for id_ in able}
        for id_ in able:
            entrant = self._entrants[id_]
            if entrant.target.runtime.instances == 1:
                ways[id_, THREADS] = self._load(entrant, shared(entrant.target))
        for session in ways.values():
            self._put(session)
        runs = {way: self._runs(session, way[1]) for way, session in ways.items()}
        pilot = self._windows(ways, runs, PILOTS)
        best = {id_: max((way for way in ways if way[0] == id_), key=lambda way: sum(pilot[way])) for id_ in able}
        self._say(f"throughput of {len(able)} contestants")
        rates = self._windows({way: ways[way] for way in best.values()}, runs, WINDOWS)
        hasten = [1.0 / rate for rate in rates[best[HASTEN]]]
        for id_, way in best.items():
            own = rates[way]
            self._set(
                id_,
                instances=_said(self._entrants[id_].target, way[1]),
                rps=percentile(own, 50),
                rps_against=speedup([1.0 / rate for rate in own], hasten, seed=PLAN.seed),
            )

    def _load(self, entrant: Entrant, target: Target) -> IsolatedSession:
        command = worker.COMMAND if entrant.own else COMMAND
        return self._stack.enter_context(load_isolated(Path(entrant.model), target, command=command))

    def _judge(self, id_: str, session: IsolatedSession, book: AnswerBook) -> None:
        """Hold the change of accuracy to the bound; a quarter of the data is enough for a model that is ruined."""
        whole, itself = self._subject.holdout, id_ == self._reference
        quarter = whole.dataset.subset(whole.indices[: len(whole) // 4])
        change = self._change(id_, session, book, whole if itself or len(quarter) < _ENOUGH else quarter)
        if change.n < len(whole) and not _ruined(change, self._subject.data.metric.info):
            change = self._change(id_, session, book, whole)
        info = self._subject.data.metric.info
        check = accuracy_check(Measurement(split="holdout", metric=info, accuracy_change=change), BOUND)
        # Whoever is the reference has no change, however few samples there are to prove it on.
        self._set(id_, change=change, bound="accepted" if itself else check.outcome)

    def _change(self, id_: str, session: IsolatedSession, book: AnswerBook, data: Subset) -> Figure:
        first = self._sessions[self._reference]
        pair = Pair(
            reference=first,
            candidate=_Named(session, [spec.name for spec in first.signature.outputs]),
            fresh=lambda: session,
            data=data,
            book=book,
            plan=PLAN,
            label=id_,
            itself=session is first,
        )
        return AccuracyMeter().measure(pair)["accuracy_change"]

    def _may(self, id_: str) -> bool:
        return self.rows[id_].bound in ("accepted", "unproven")

    def _put(self, session: IsolatedSession) -> None:
        data = self._subject.holdout
        for slot, position in enumerate(np.linspace(0, len(data) - 1, _SAMPLES).astype(int)):
            session.put(slot, feed(session.signature, [sample_for(session.signature, data, int(position))]))

    def _runs(self, session: IsolatedSession, callers: int) -> int:
        """Runs that fill a window, from a few that warm up and a few that are timed."""
        session.throughput_rps(range(_SAMPLES), callers=callers, runs=2 * _SAMPLES)
        rate = session.throughput_rps(range(_SAMPLES), callers=callers, runs=2 * _SAMPLES)
        session.rest()
        return max(_SAMPLES, math.ceil(rate * WINDOW_S / _SAMPLES) * _SAMPLES)

    def _windows(
        self, ways: Mapping[tuple[str, int], IsolatedSession], runs: Mapping[tuple[str, int], int], rounds: int
    ) -> dict[tuple[str, int], list[float]]:
        """Predictions per second by round; in each, every way has its window, in random order."""
        rng, order = np.random.default_rng(PLAN.seed), list(ways)
        rates: dict[tuple[str, int], list[float]] = {way: [] for way in ways}
        for _ in range(rounds):
            self.watch.round_is_quiet()
            for at in rng.permutation(len(order)):
                way = order[int(at)]
                rates[way].append(ways[way].throughput_rps(range(_SAMPLES), callers=way[1], runs=runs[way]))
                ways[way].rest()
        return rates

    def _set(self, id_: str, **found: Figure | str) -> None:
        self.rows[id_] = msgspec.structs.replace(self.rows[id_], **found)


def _ruined(change: Figure, info: MetricInfo) -> bool:
    """Whether even the good end of the interval is ten times beyond the bound: more samples cannot mend that."""
    if change.low is None or change.high is None:
        return False
    return (change.high if info.higher_is_better else -change.low) < -10 * BOUND


def _said(target: Target, callers: int) -> str:
    """How the cores are shared, such as "2 × 1": instances by threads of each."""
    if callers == 1:
        return f"1 × {target.threads or THREADS}"
    return f"{callers} × {target.threads if target.runtime.instances > 1 else 1}"
