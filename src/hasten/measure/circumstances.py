"""The circumstances under which a measurement was taken: time stolen by the host, load by others, clock frequency.

Read from counters of the Linux kernel before and after, so that reading costs nothing in between. What this machine
does not tell is unmeasured with a reason. `root` is where /proc and /sys are; tests give folders of their own.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import psutil

from hasten.measure.contention import Watch
from hasten.measure.load import Load
from hasten.measure.outcome import LoadResult
from hasten.measure.traffic import Callee, run_load
from hasten.spec.measurement import Figure, unmeasured

__all__ = ["Machine", "Snapshot", "Watched", "circumstances", "disturbed", "run_load_watched"]

# Fields of the first line of /proc/stat, in ticks (proc(5)); guest time is part of user time already.
_USER, _NICE, _SYSTEM, _IDLE, _IOWAIT, _IRQ, _SOFTIRQ, _STEAL = range(8)
_BUSY = (_USER, _NICE, _SYSTEM, _IRQ, _SOFTIRQ)
# Cores that others may keep busy, and the share of time that the host may take, before a short measurement counts as
# disturbed. Ticks are a sample: over two seconds of two cores chance makes a twentieth of a core.
_OTHERS, _STOLEN = 0.15, 0.02
_TICKS = 100  # USER_HZ, the same on every Linux that Python runs on


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Counters at one moment. `ticks` are those of /proc/stat, None where there is none; `own_s` is processor time of
    this process and those that it started; `mhz` is the mean over the cores.
    """

    ticks: tuple[int, ...] | None
    own_s: float
    mhz: float | None


class Machine:
    """Reads the counters below `root`."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def snapshot(self) -> Snapshot:
        """Read all of them now."""
        return Snapshot(ticks=self._stat(), own_s=_own_seconds(), mhz=self._frequency())

    def _stat(self) -> tuple[int, ...] | None:
        try:
            first = (self._root / "proc/stat").read_text().splitlines()[0].split()
            ticks = tuple(int(word) for word in first[1:9])
        except (OSError, ValueError, IndexError):
            return None
        return ticks if first[0] == "cpu" and len(ticks) == 8 else None

    def _frequency(self) -> float | None:
        """Mean of what the frequency driver says. /proc/cpuinfo is not asked: in a virtual machine it is a constant."""
        values: list[float] = []
        for path in (self._root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq"):
            try:
                values.append(int(path.read_text()) / 1e3)
            except (OSError, ValueError):
                continue
        return sum(values) / len(values) if values else None


def circumstances(before: Snapshot, after: Snapshot) -> dict[str, Figure]:
    """Return what happened between two moments: `steal_share` (of the time of all cores), `cores_busy_with_others` and
    `frequency_mhz`.

    "Others" are all processes that this one did not start: a server under test on the same machine is among them.
    """
    figures = _shares(before, after)
    seen = [mhz for mhz in (before.mhz, after.mhz) if mhz is not None]
    figures["frequency_mhz"] = (
        Figure(value=sum(seen) / len(seen), low=None, high=None, n=len(seen), method="cpufreq, mean over cores")
        if seen
        else unmeasured("this machine does not tell its clock frequency (no cpufreq)")
    )
    return figures


def disturbed(before: Snapshot, after: Snapshot) -> bool:
    """Whether others took a part of the machine that shows in what was measured meanwhile. False where the machine does
    not tell. Work for the network is nobody's own and left out.
    """
    if before.ticks is None or after.ticks is None:
        return False
    spent = [max(0, b - a) for a, b in zip(before.ticks, after.ticks, strict=True)]
    whole = sum(spent)
    if whole == 0:
        return False
    busy_s = sum(spent[field] for field in (_USER, _NICE, _SYSTEM)) / _TICKS
    others = (busy_s - (after.own_s - before.own_s)) / (whole / _TICKS / (os.cpu_count() or 1))
    return others > _OTHERS or spent[_STEAL] / whole > _STOLEN


def _shares(before: Snapshot, after: Snapshot) -> dict[str, Figure]:
    names = ("steal_share", "cores_busy_with_others")
    if before.ticks is None or after.ticks is None:
        return dict.fromkeys(names, unmeasured("there is no /proc/stat here"))
    spent = [max(0, b - a) for a, b in zip(before.ticks, after.ticks, strict=True)]
    whole = sum(spent)
    if whole == 0:
        return dict.fromkeys(names, unmeasured("shorter than a tick of the kernel's clock"))
    cores = os.cpu_count() or 1
    busy_s = sum(spent[field] for field in _BUSY) / _TICKS
    elapsed_s = whole / _TICKS / cores
    others = max(0.0, busy_s - (after.own_s - before.own_s)) / elapsed_s
    values = (spent[_STEAL] / whole, others)
    figures = (Figure(value=v, low=None, high=None, n=whole, method="ticks of /proc/stat") for v in values)
    return dict(zip(names, figures, strict=True))


def _own_seconds() -> float:
    """Processor seconds of this process, of children that ended, and of those that live."""
    times = os.times()
    total = times.user + times.system + times.children_user + times.children_system
    for child in psutil.Process().children(recursive=True):
        try:
            spent = child.cpu_times()
        except psutil.Error:
            continue
        total += spent.user + spent.system
    return total


@dataclass(frozen=True, kw_only=True, slots=True)
class Watched:
    """A load run and whether it began and ended on a machine that gave its cores; `repeated` is how often it was made
    again because it did not.
    """

    result: LoadResult
    contended: bool
    repeated: int


def run_load_watched(
    callee: Callee,
    load: Load,
    duration_s: float | None,
    watch: Watch,
    *,
    seed: int,
    warmup_s: float,
    deadline_ms: float | None,
    most: int = 1,
) -> Watched:
    """Run a load on a quiet machine, and up to `most` times more where it did not stay quiet and patience is left.

    The first run on a quiet machine counts, otherwise the last: no look is taken at what it gave.
    """
    for repeated in range(most + 1):
        calm = watch.round_is_quiet()
        result = run_load(callee, load, duration_s, seed=seed, warmup_s=warmup_s, deadline_ms=deadline_ms)
        calm = watch.quiet_now() and calm
        if calm or watch.spent or repeated == most:
            return Watched(result=result, contended=not calm, repeated=repeated)
    raise AssertionError("the last run returns")
