"""The latency plot: one row for each variant, its percentiles with their intervals on one scale, drawn as inline SVG.

The words above each row carry the numbers, so the drawing only has to show how far apart they are.
`hasten.report.document` calls it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hasten.report.format import Unit, amount
from hasten.report.labels import text_width
from hasten.report.plots import INK, MUTED, PAPER, PICKED, REFUSED, RULE, Span, svg_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Bar", "BarRow", "Bars", "bars_svg"]

ROW, HEAD, FOOT, FONT = 62, 30, 34, 12.0
EDGES = {"picked": PICKED, "ladder": PICKED, "reference": INK}
MARKS = {"p50": ("o", 10), "p95": ("D", 7), "p99": ("|", 15)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """One percentile in milliseconds: value, low, high."""

    short: str
    span: Span


@dataclass(frozen=True, kw_only=True, slots=True)
class BarRow:
    """One variant."""

    name: str
    kind: str
    figures: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bars:
    """All rows from top to bottom, and the bounds asked for as (words, milliseconds)."""

    rows: tuple[BarRow, ...]
    bounds: tuple[tuple[str, float], ...]
    description: str

    @property
    def reach_ms(self) -> float:
        """The right end of the scale: past every interval, and past a bound unless it lies far away."""
        longest = max(bar.span[2] for row in self.rows for bar in row.bars)
        near = [ms for _, ms in self.bounds if ms < 2 * longest]
        return max([longest, *near]) * 1.06


def bars_svg(bars: Bars, *, name: str, width: int) -> str:
    """Draw `bars`; `name` makes the ids unique among the drawings of one page."""
    height = HEAD + ROW * len(bars.rows) + FOOT

    def draw(axes: Axes) -> list[str]:
        _scale(axes, bars)
        texts = _bounds(axes, bars)
        for index, row in enumerate(bars.rows):
            texts += _row(axes, index, row, width, len(texts))
        return texts

    box = (16 / width, FOOT / height, 1 - 36 / width, 1 - (HEAD + FOOT) / height)
    return svg_of(draw, name=name, size=(width, height), box=box, description=bars.description)


def _scale(axes: Axes, bars: Bars) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_xlim(0, bars.reach_ms)
    axes.set_ylim(len(bars.rows), 0)
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(_tick))
    axes.tick_params(length=0, colors=MUTED, pad=8)
    axes.grid(axis="x", color=RULE, linewidth=1)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)


def _tick(value: float, _position: int) -> str:
    return amount(float(value), Unit(suffix=" ms", most=3))


def _bounds(axes: Axes, bars: Bars) -> list[str]:
    """Dashed lines at the bounds that lie on the scale, each with its words above it unless they would collide."""
    texts: list[str] = []
    free_from = float("inf")
    for words, ms in sorted(bars.bounds, key=lambda bound: -bound[1]):
        if ms > bars.reach_ms:
            continue
        axes.axvline(ms, color=REFUSED, linewidth=1.5, dashes=(6, 4), zorder=2)
        x, top = (float(end) for end in axes.transData.transform((ms, 0)))
        needed = text_width(words, FONT)
        right = max(x + 4, needed + 4)
        if right < free_from:
            axes.text(right, top + 8, f"hasten-text-{len(texts)}.", transform=None, color=REFUSED, ha="right")
            texts.append(words)
            free_from = right - needed
    return texts


def _row(axes: Axes, index: int, row: BarRow, width: int, number: int) -> list[str]:
    """One variant: its words, then a thin line through its percentiles and a thick one for each interval."""
    x, y = (float(end) for end in axes.transData.transform((0, index + 0.30)))
    edge, line = EDGES.get(row.kind, REFUSED), index + 0.68
    weight = "bold" if row.kind == "picked" else "normal"
    _words(axes, x, y, number, edge, weight)
    texts = [_fitting(row.name, width - 20)]
    if text_width(f"{row.name} {row.figures}", FONT) < width - 40:
        texts[0] = f"{row.name}: {row.figures}"
    values = [bar.span[0] for bar in row.bars]
    axes.plot(values, [line] * len(values), color=edge, linewidth=1, alpha=0.6, zorder=3)
    for bar in row.bars:
        marker, size = MARKS[bar.short]
        axes.plot(bar.span[1:], [line, line], color=edge, linewidth=5, alpha=0.35, solid_capstyle="butt", zorder=3)
        face = edge if bar.short == "p50" else PAPER
        axes.plot([bar.span[0]], [line], marker, markersize=size, markeredgecolor=edge, markerfacecolor=face, zorder=4)
    return texts


def _words(axes: Axes, x: float, y: float, number: int, colour: str, weight: str) -> None:
    axes.text(x, y, f"hasten-text-{number}.", transform=None, color=colour, ha="left", va="center", fontweight=weight)


def _fitting(text: str, width: float) -> str:
    if text_width(text, FONT) <= width:
        return text
    return text[: int(width / (FONT * 0.56)) - 1] + "…"
