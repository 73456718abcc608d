"""What the rounds say: paired ratios with intervals, and whether a bar is met."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass, field

from hasten.spec.measurement import Figure
from hasten.stats.ratio import speedup
from serving.cases import COMPILED, OURS, Case
from serving.load import Burst

__all__ = ["REAL_BAR", "Race", "RealRace", "enough", "interval"]

REAL_BAR = 0.93


@dataclass(slots=True)
class Race:
    """All servers in one case: bursts by server, one for each round."""

    case: Case
    found: dict[str, list[Burst]] = field(default_factory=lambda: defaultdict(list))

    def middle(self, server: str, what: str) -> float:
        """The median over rounds of a field of the bursts."""
        return statistics.median(getattr(one, what) for one in self.found[server])

    @property
    def best(self) -> str:
        """The peer with the most requests per second."""
        return max((name for name in self.found if name not in OURS), key=lambda name: self.middle(name, "rate"))

    def ratio(self, peer: str, what: str = "rate", ours: str = "hasten") -> Figure:
        """How many times better hasten is than a peer, paired by round: more for a rate, less for a time."""
        mine, other = ([getattr(one, what) for one in self.found[name]] for name in (ours, peer))
        return speedup(mine, other) if what == "rate" else speedup(other, mine)

    @property
    def judged(self) -> str:
        """Whom the verdict is about: of a release pip takes the wheel with the compiled path where it fits, so that is
        what users run here, and plain Python where it was not compiled.
        """
        return COMPILED if COMPILED in self.found else "hasten"

    @property
    def met(self) -> bool:
        """Whether the judged server does all that is asked."""
        return self.reaches(self.judged)

    def reaches(self, ours: str) -> bool:
        """Whether the typical round reaches the bar over the best peer, and no percentile of the latency is behind it:
        no interval lies below 1 as a whole.
        """
        value = self.ratio(self.best, ours=ours).value
        times = [self.ratio(self.best, what, ours) for what in ("p50_ms", "p99_ms")]
        return (
            value is not None and value >= self.case.bar and all(time.high is None or time.high >= 1 for time in times)
        )

    def __str__(self) -> str:
        verdict = "met" if self.met else "missed"
        found = interval(self.ratio(self.best, ours=self.judged))
        return f"{self.case.name}: {self.judged} {found} x {self.best}, bar {self.case.bar:g}, {verdict}"


@dataclass(slots=True)
class RealRace:
    """A real model through the server and in process: rows per second, processor time for a row, rows a batch at the
    server; one of each for a round. `compiled` are rows per second with the request path compiled.
    """

    name: str
    shapes: dict[str, tuple[int, ...]]
    server: list[float] = field(default_factory=list)
    engine: list[float] = field(default_factory=list)
    server_cpu_us: list[float] = field(default_factory=list)
    engine_cpu_us: list[float] = field(default_factory=list)
    batch: list[float] = field(default_factory=list)
    compiled: list[float] = field(default_factory=list)

    @property
    def share(self) -> Figure:
        """Rows per second through the server over those in process, paired by round."""
        return speedup(self.server, self.engine)

    @property
    def share_compiled(self) -> Figure:
        """The same with the request path compiled."""
        return speedup(self.compiled, self.engine[: len(self.compiled)])

    @property
    def share_by_cpu(self) -> Figure:
        """The engine's processor time for a row over the server's with its worker, paired by round."""
        return speedup(self.engine_cpu_us, self.server_cpu_us)

    @property
    def judged(self) -> Figure:
        """The share that the verdict is about, as `Race.judged` chooses."""
        return self.share_compiled if self.compiled else self.share

    @property
    def met(self) -> bool:
        """Whether the typical round of the judged server reaches the bar."""
        return enough(self.judged)

    def __str__(self) -> str:
        verdict = "met" if self.met else "missed"
        shares = f"{interval(self.judged)} of the engine in process, plain Python {interval(self.share)}"
        return f"{self.name}: {shares}, bar {REAL_BAR:g}, {verdict}"


def enough(share: Figure) -> bool:
    """Whether a share of what the engine reaches alone is what is asked."""
    return share.value is not None and share.value >= REAL_BAR


def interval(figure: Figure) -> str:
    """A figure with its interval, or why there is none."""
    if figure.value is None or figure.low is None or figure.high is None:
        return str(figure.reason)
    return f"{figure.value:.2f} [{figure.low:.2f}, {figure.high:.2f}]"
