"""Where the time goes before and after: operator types of two engines, joined by what they do.

Engines name their operators as they like (Conv, Convolution, aten.convolution.default), so types are joined by kind of
work, and each engine's own names stand beside. Pure; `hasten.report.page` calls it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hasten.report.format import FigureText, Unit, figure_text
from hasten.report.verdict import all_variants
from hasten.report.words import clean, variant_names
from hasten.spec.evidence import KindTime, OperatorTimes, Record
from hasten.spec.measurement import Figure
from hasten.spec.variant import REFERENCE

__all__ = ["Bar", "KindRow", "Operators", "Side", "WorkRow", "operators_of", "work_of"]

_MS, _US = Unit(suffix=" ms", scale=1e-3, least=1, most=2), Unit(suffix=" µs", most=1)
# Microseconds from which on a time is told in milliseconds.
_LONG = 100.0
_PERCENT = Unit(suffix=" %", scale=100.0, most=1)
_LAYOUT = "laying out data"
# What a type does, by parts of its name; the first that fits. A quantized product is a product.
_WORK: tuple[tuple[str, tuple[str, ...]], ...] = (
    (_LAYOUT, ("convert",)),
    ("attention", ("attention", "mha", "sdpa")),
    ("convolution", ("conv",)),
    (
        "matrix products",
        ("matmul", "gemm", "fullyconnected", "innerproduct", "linear.", "addmm", ".mm", "bmm", "einsum"),
    ),
    ("recurrence", ("lstm", "gru", "rnn")),
    ("normalization", ("norm", "mvn")),
    ("quantizing", ("quantize",)),
    ("pooling and reductions", ("pool", "reduce", "argm", "topk", "mean", ".sum")),
    ("lookups", ("gather", "embedding", "index")),
    (
        _LAYOUT,
        (
            "reorder", "transpose", "permute", "reshape", "view", "concat", ".cat", "slice", "split", "squeeze",
            "expand", "pad", "cast", "copy", "clone", "tile", "resize", "interpolate", "upsample", "shape",
            "identity", "broadcast", "flatten",
        ),
    ),
    (
        "elementwise",
        (
            "relu", "sigmoid", "gelu", "erf", "tanh", "softmax", "clip", "clamp", "swish", "silu", "elu", "eltwise",
            "subgraph", "add", "mul", "sub", "div", "pow", "sqrt", "exp", "reciprocal", "neg", "abs", "where", "equal",
            "greater", "less", "min", "max", "sum",
        ),
    ),
)  # fmt: skip
_OTHER = "other"
_MOST_KINDS = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """Time of one kind of work on one side; `percent` of the longest bar. `kinds` are the engine's own names."""

    text: str
    percent: float
    kinds: str


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkRow:
    """One kind of work, a bar for each side in their order."""

    work: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class KindRow:
    """One operator type in its engine's words."""

    kind: str
    count: str
    time: FigureText
    share: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """The reference or the picked variant: its operators, or why there are none."""

    title: str
    role: str
    total: FigureText
    missing: str
    rows: tuple[KindRow, ...]
    rest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Operators:
    """Both sides, and the work of those that were profiled as bars on one scale."""

    sides: tuple[Side, ...]
    drawn: tuple[Side, ...]
    rows: tuple[WorkRow, ...]
    description: str


def operators_of(record: Record) -> Operators | None:
    """Return both sides, the reference first; None where no one asked for the times of operators."""
    if not record.operators:
        return None
    names = variant_names(all_variants(record))
    found = [(item, _side(item, names.get(item.variant, clean(item.variant)))) for item in record.operators]
    timed = [(item, side) for item, side in found if item.kinds]
    rows = tuple(_work_rows([item for item, _ in timed]))
    told = (f"{row.work}: {' against '.join(bar.text for bar in row.bars)}" for row in rows)
    return Operators(
        sides=tuple(side for _, side in found),
        drawn=tuple(side for _, side in timed),
        rows=rows,
        description=f"Time by kind of work, {' against '.join(side.role for _, side in timed)}. {'; '.join(told)}.",
    )


def work_of(kind: str) -> str:
    """Return what operators of a type do, in a word or two."""
    name = kind.lower()
    return next((work for work, parts in _WORK if any(part in name for part in parts)), _OTHER)


def _side(item: OperatorTimes, name: str) -> Side:
    total, reference = item.total_us.value or 0.0, item.variant == REFERENCE
    return Side(
        title=name if reference else f"picked, {name}",
        role="reference" if reference else "picked",
        total=_time(item.total_us),
        missing=clean(item.reason or ""),
        rows=tuple(_kind_row(kind, total) for kind in item.kinds[:_MOST_KINDS]),
        rest=_rest(item.kinds[_MOST_KINDS:], total),
    )


def _kind_row(item: KindTime, total: float) -> KindRow:
    return KindRow(
        kind=clean(item.kind),
        count=str(item.count),
        time=_time(item.time_us),
        share=_share((item.time_us.value or 0.0) / total if total else 0.0),
    )


def _rest(kinds: Sequence[KindTime], total: float) -> str:
    if not kinds:
        return ""
    return f"{len(kinds)} more types take {_share(sum(item.time_us.value or 0.0 for item in kinds) / total)} together."


def _time(us: Figure) -> FigureText:
    return figure_text(us, _MS if (us.value or 0.0) >= _LONG else _US)


def _share(share: float) -> str:
    return figure_text(Figure(value=share, low=None, high=None, n=0), _PERCENT).value


def _work_rows(sides: Sequence[OperatorTimes]) -> Iterator[WorkRow]:
    """The work that takes most on either side first."""
    sums = [_by_work(item.kinds) for item in sides]
    longest = max((us for one in sums for us, _ in one.values()), default=0.0)
    every = dict.fromkeys(work for one in sums for work in one)
    for work in sorted(every, key=lambda work: -max(one.get(work, (0.0, ""))[0] for one in sums)):
        yield WorkRow(work=work, bars=tuple(_bar(*one.get(work, (0.0, "")), longest) for one in sums))


def _by_work(kinds: Sequence[KindTime]) -> dict[str, tuple[float, str]]:
    """Microseconds and the engine's names of each kind of work."""
    found: dict[str, tuple[float, str]] = {}
    for item in kinds:
        us, names = found.get(work_of(item.kind), (0.0, ""))
        said = f"{clean(item.kind)} × {item.count}"
        found[work_of(item.kind)] = us + (item.time_us.value or 0.0), f"{names}, {said}" if names else said
    return found


def _bar(us: float, kinds: str, longest: float) -> Bar:
    text = _time(Figure(value=us, low=None, high=None, n=0)).value if kinds else "none"
    return Bar(text=text, percent=round(100 * us / longest, 2) if longest else 0.0, kinds=kinds)
