"""The view model of a profile: values turned into the strings and bars that the template shows. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hasten.report.format import FigureText, Unit, amount, bytes_text, count, figure_text
from hasten.report.roof import Roof, Spot
from hasten.report.words import clean
from hasten.spec.measurement import Figure
from hasten.spec.profile import Bottleneck, Bound, Ceilings, Operator, Profile

__all__ = ["BOUND_WORDS", "Neck", "OperatorRow", "ProfilePage", "bound_words", "profile_page"]

_MS = Unit(suffix=" ms", least=1, most=3)
_US = Unit(suffix=" µs", most=1)
_TIMES = Unit(suffix="×", least=2, most=2)
_PERCENT = Unit(suffix=" %", scale=100.0, most=1)
_GFLOP = Unit(suffix=" GFLOP/s", most=1)
_GB = Unit(suffix=" GB/s", most=1)
# Most of the time is in a few operators; more can be unfolded, and what helps nobody is summed up.
_ROWS, _MOST_ROWS = 24, 200
_DRAWN = 120
_LONG_PREFIX = 12
BOUND_WORDS: dict[Bound, str] = {
    "compute": "arithmetic keeps it busy",
    "memory": "moving bytes keeps it busy",
    "overhead": "neither arithmetic nor memory explains its time",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Neck:
    """One bottleneck: what, how much, why, and what to do. `remedies` are (technique, why, how many operators)."""

    title: str
    bound: str
    explained: str
    share: str
    percent: float
    time: FigureText
    largest: str
    remedies: tuple[tuple[str, str, str], ...]
    none: str


@dataclass(frozen=True, kw_only=True, slots=True)
class OperatorRow:
    """One operator. `percent` is the length of its bar, in percent of the longest."""

    label: str
    kind: str
    origins: str
    time: FigureText
    share: str
    percent: float
    work: str
    roofline: str
    bound: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ProfilePage:
    """Everything on the page."""

    title: str
    headline: str
    lead: str
    details: tuple[str, ...]
    tiles: tuple[tuple[str, FigureText], ...]
    necks: tuple[Neck, ...]
    roof: Roof | None
    roof_missing: str
    rows: tuple[OperatorRow, ...]
    more: tuple[OperatorRow, ...]
    more_label: str
    rest: str
    prefix: str
    ceilings: tuple[tuple[str, FigureText], ...]
    method: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]


def profile_page(profile: Profile) -> ProfilePage:
    """Return the page of a profile."""
    ordered = sorted(profile.operators, key=lambda item: -item.share)
    roof, prefix = _roof(profile.ceilings, ordered), _prefix(profile)
    rows = tuple(_row(item, ordered[0].share, prefix) for item in ordered[:_MOST_ROWS])
    return ProfilePage(
        title=clean(profile.model),
        headline=_headline(profile),
        lead=_lead(profile),
        details=tuple(profile.notes),
        tiles=tuple(_tiles(profile)),
        necks=tuple(_neck(item, prefix) for item in profile.bottlenecks),
        roof=roof,
        roof_missing="" if roof else "No roofline: neither the work of an operator nor a ceiling is known.",
        rows=rows[:_ROWS],
        more=rows[_ROWS:],
        more_label=_rest(ordered[_ROWS:_MOST_ROWS]),
        rest=_rest(ordered[_MOST_ROWS:]),
        prefix=clean(prefix),
        ceilings=tuple(_ceilings(profile.ceilings)),
        method=tuple(_method(profile)),
        facts=tuple(_facts(profile)),
    )


def _prefix(profile: Profile) -> str:
    """The folders that nearly all names of operators begin with, where leaving them out makes names easier to read."""
    names = [name for item in profile.operators for name in item.nodes or (item.name,) if "/" in name]
    common = posixpath.commonprefix(names)
    prefix = common[: common.rfind("/") + 1]
    return prefix if len(names) > 1 and len(prefix) >= _LONG_PREFIX else ""


def _named(label: str, prefix: str) -> str:
    return clean(f"…/{label.removeprefix(prefix)}" if prefix and label.startswith(prefix) else label)


def bound_words(bound: Bound | None) -> str:
    """What bounds an operator, in a word or two."""
    return bound or "unknown"


def _headline(profile: Profile) -> str:
    if not profile.bottlenecks:
        return "Where the time goes"
    first = profile.bottlenecks[0]
    return f"{_percent(first.share)} of the time is {clean(first.kind)}"


def _lead(profile: Profile) -> str:
    latency = figure_text(profile.latency_ms, _MS).full
    shapes = ", ".join(
        f"{clean(name)} {' × '.join(map(str, shape)) or 'a number'}" for name, shape in profile.shapes.items()
    )
    operators = f"{count(len(profile.operators))} operators"
    return f"One prediction takes {latency} on {profile.target}. {operators} at {shapes}."


def _tiles(profile: Profile) -> Iterable[tuple[str, FigureText]]:
    yield "prediction, profiler off", figure_text(profile.latency_ms, _MS)
    yield "prediction, profiler on", figure_text(profile.profiled_ms, _MS)
    yield "slower under the profiler", figure_text(profile.slowdown, _TIMES)
    yield "sum of the operators", figure_text(profile.operators_ms, _MS)


def _neck(item: Bottleneck, prefix: str) -> Neck:
    bound = bound_words(item.bound)
    explained = BOUND_WORDS[item.bound] if item.bound else "its work is unknown"
    return Neck(
        title=f"{count(item.count)} × {clean(item.kind)}" if item.count > 1 else clean(item.kind),
        bound=bound,
        explained=explained,
        share=_percent(item.share),
        percent=round(100 * item.share, 2),
        time=figure_text(item.time_us, _US),
        largest=", ".join(_named(label, prefix) for label in item.largest),
        remedies=tuple((_technique(r.transform, r.after), clean(r.why), _of(r.operators, item.count))
                       for r in item.remedies),
        none=clean(item.why_none or ""),
    )  # fmt: skip


def _technique(transform: str, after: str | None) -> str:
    return f"{transform}, after {after}" if after else transform


def _of(some: int, every: int) -> str:
    if every == 1:
        return "this operator"
    return f"all {count(every)}" if some == every else f"{count(some)} of {count(every)}"


def _row(item: Operator, longest: float, prefix: str) -> OperatorRow:
    share = item.roofline_share.value
    return OperatorRow(
        label=_named(item.label, prefix),
        kind=clean(item.kind),
        origins=", ".join(_named(name, prefix) for name in item.nodes) if len(item.nodes) > 1 else "",
        time=figure_text(item.time_us, _US),
        share=_percent(item.share),
        percent=round(100 * item.share / longest, 2) if longest else 0.0,
        work=_work(item),
        roofline="" if share is None else _percent(share),
        bound=bound_words(item.bound),
    )


def _work(item: Operator) -> str:
    flops = "" if item.flops is None else _flop_text(item.flops)
    moved = "" if item.bytes_moved is None else bytes_text(item.bytes_moved)
    return ", ".join(part for part in (flops, moved) if part) or "unknown"


def _flop_text(flops: int) -> str:
    for factor, unit in ((1e9, "GFLOP"), (1e6, "MFLOP"), (1e3, "kFLOP")):
        if flops >= factor:
            return f"{amount(flops / factor, Unit(most=1))} {unit}"
    return f"{flops} FLOP"


def _rest(items: Sequence[Operator]) -> str:
    if not items:
        return ""
    what = "1 more operator takes" if len(items) == 1 else f"{count(len(items))} more operators take"
    return f"{what} {_percent(sum(item.share for item in items))}{' together' if len(items) > 1 else ''}."


def _roof(ceilings: Ceilings, operators: Sequence[Operator]) -> Roof | None:
    """The plot, of the largest operators that compute; None where it would be empty."""
    speeds = [item.gb_per_s.value for item in ceilings.memory if item.gb_per_s.value]
    compute = ceilings.compute_gflop_per_s.value
    spots = tuple(spot for item in operators if (spot := _spot(item)) is not None)[:_DRAWN]
    if not compute or not speeds or not spots:
        return None
    best = "; ".join(spot.story for spot in spots[:5])
    return Roof(
        compute=compute,
        memory=speeds[-1],
        cache=max(speeds),
        spots=spots,
        description=f"Roofline: arithmetic {compute:.0f} GFLOP/s, memory {speeds[-1]:.0f} GB/s. {best}.",
    )


def _spot(item: Operator) -> Spot | None:
    if not item.flops or not item.bytes_moved or not item.time_us.value or item.bound is None:
        return None
    return Spot(
        flop_per_byte=item.flops / item.bytes_moved,
        gflop_per_s=item.flops / item.time_us.value / 1e3,
        share=item.share,
        bound=item.bound,
        story=f"{clean(item.label)} ({clean(item.kind)}): {figure_text(item.time_us, _US).value}, {item.bound}",
    )


def _ceilings(ceilings: Ceilings) -> Iterable[tuple[str, FigureText]]:
    yield "arithmetic, f32", figure_text(ceilings.compute_gflop_per_s, _GFLOP)
    for item in ceilings.memory:
        yield f"copying within {_binary(item.working_set_bytes)}", figure_text(item.gb_per_s, _GB)


def _binary(size: int) -> str:
    return f"{size // 2**20} MiB" if size >= 2**20 else f"{size // 2**10} KiB"


def _method(profile: Profile) -> Iterable[str]:
    yield (
        f"{profile.rounds} rounds; in each the model without the profiler, a freshly loaded copy with the profiler of "
        f"{profile.target.engine}, and the ceilings took turns in random order. Times are medians with 95 % intervals."
    )
    for figure in (profile.ceilings.compute_gflop_per_s, *(m.gb_per_s for m in profile.ceilings.memory[-1:])):
        yield _said(figure)
    yield (
        "An operator's least time is that of its arithmetic or of its bytes, whichever is longer, the bandwidth being "
        "that of a working set of its size. Its share of the roofline is the least time over the time it took; under "
        "10 % neither explains it, and it is called overhead. FLOPs count two for each multiply-accumulate and one for "
        "each element and pass of the rest."
    )


def _said(figure: Figure) -> str:
    words = figure.method or figure.reason or ""
    return f"Ceiling: {words}." if words else ""


def _facts(profile: Profile) -> Iterable[tuple[str, str]]:
    env = profile.environment
    yield "model", f"{clean(profile.model)} ({profile.format})"
    yield "SHA-256", profile.sha256
    yield "precision in use", profile.precision
    yield "samples", count(profile.samples)
    yield "processor", f"{env.processor}, {env.cores_physical} cores{', virtual' if env.virtual else ''}"
    yield "instruction sets", " ".join(env.features)
    yield "system", f"{env.system}, Python {env.python}"
    yield "versions", ", ".join(f"{name} {version}" for name, version in env.packages.items())


def _percent(share: float) -> str:
    return figure_text(Figure(value=share, low=None, high=None, n=0), _PERCENT).value
