"""Drawing: the speed-accuracy plot, and any axes, as inline SVG that takes its colours from the page.

matplotlib draws with marker colours that are replaced by CSS custom properties, so that one drawing serves light,
dark and print. It never sees a name: texts from the record stand in as numbered placeholders and are escaped into
the SVG afterwards, so neither markup nor mathematics nor a missing glyph in a model's name can do anything. No
global state of matplotlib is touched, and equal points give equal bytes. `hasten.report.page` and
`hasten.report.bars` call it.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Literal

from hasten.report.format import Unit, amount
from hasten.report.labels import Box, Label, place, text_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "INK",
    "MUTED",
    "PAPER",
    "PICKED",
    "REFUSED",
    "RULE",
    "UNPROVEN",
    "Chart",
    "Kind",
    "Point",
    "Span",
    "speed_accuracy_svg",
    "svg_of",
]

Kind = Literal["picked", "ladder", "reference", "accepted", "unproven", "refused"]
Span = tuple[float, float, float]

# Drawn colours, unlike any other in the output, and the custom properties that replace them.
COLOURS = {
    "#010203": "--ink",
    "#010204": "--muted",
    "#010205": "--rule",
    "#010206": "--picked",
    "#010207": "--refused",
    "#010208": "--paper",
    "#010209": "--unproven",
}
INK, MUTED, RULE, PICKED, REFUSED, PAPER, UNPROVEN = COLOURS
# For each kind: marker, size in pixels, edge, face.
MARKS: dict[Kind, tuple[str, float, str, str]] = {
    "picked": ("o", 13, PICKED, PICKED),
    "ladder": ("o", 9, PICKED, PAPER),
    "reference": ("s", 9, INK, INK),
    "accepted": ("o", 7, MUTED, MUTED),
    "unproven": ("^", 9, UNPROVEN, PAPER),
    "refused": ("X", 10, REFUSED, PAPER),
}
IMPORTANCE: tuple[Kind, ...] = ("picked", "reference", "refused", "ladder", "unproven", "accepted")
# What a narrow drawing has room to name.
FEW: tuple[Kind, ...] = ("picked", "reference", "refused", "ladder")
FONT, LINE = 12.0, 15.0
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": FONT,
    "axes.linewidth": 1.0,
    "xtick.labelsize": FONT,
    "ytick.labelsize": FONT,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One candidate: value, low and high of speedup and of the accuracy change in shown units, and its whole
    story.
    """

    name: str
    story: str
    kind: Kind
    speed: Span
    change: Span
    front: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """All that the plot shows. `bound` is the largest allowed loss, unsigned; `unit` is the unit of the change."""

    points: tuple[Point, ...]
    bound: float
    higher_is_better: bool
    unit: Unit
    y_title: str
    x_title: str
    bound_text: str
    description: str

    @property
    def threshold(self) -> float | None:
        """Where the vertical scale turns logarithmic, or None while a straight scale shows everything."""
        reach = max(abs(end) for point in self.points for end in point.change)
        near = 4 * self.bound or reach / 50
        return near if reach > 5 * near > 0 else None


def speed_accuracy_svg(chart: Chart, *, name: str, width: int, height: int) -> str:
    """Draw `chart`; `name` makes the ids unique among the drawings of one page."""
    box = (52 / width, 46 / height, 1 - 64 / width, 1 - 80 / height)
    stories = [point.story for point in chart.points]

    def draw(axes: Axes) -> list[str]:
        return _draw(axes, chart, narrow=width < 500)

    return svg_of(draw, name=name, size=(width, height), box=box, description=chart.description, stories=stories)


def svg_of(
    draw: Callable[[Axes], list[str]],
    *,
    name: str,
    size: tuple[int, int],
    box: tuple[float, float, float, float],
    description: str,
    stories: Sequence[str] = (),
) -> str:
    """Let `draw` fill axes at `box` (shares of the figure) and return the SVG element.

    `draw` returns the texts that its placeholders stand for; `stories` are the tooltips of the marks that it
    numbered.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(size[0] / 72, size[1] / 72), dpi=72)
        axes = figure.add_axes(box)
        figure.patch.set_alpha(0)
        axes.patch.set_alpha(0)
        texts = draw(axes)
        out = io.StringIO()
        FigureCanvasSVG(figure).print_svg(out, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _inline(out.getvalue(), name, texts, stories, description)


def _draw(axes: Axes, chart: Chart, *, narrow: bool) -> list[str]:
    """Draw everything and return the texts that the placeholders stand for."""
    _scales(axes, chart, narrow=narrow)
    _furniture(axes, chart)
    _front(axes, chart)
    for index, point in enumerate(chart.points):
        _mark(axes, index, point)
    texts = [chart.y_title, chart.x_title, chart.bound_text]
    top, right, bound = _ends(axes)
    axes.text(*top, _stand_in(0), transform=None, color=INK, ha="left", va="bottom")
    axes.text(*right, _stand_in(1), transform=None, color=INK, ha="right", va="top")
    bound_box = _bound_label(axes, chart, bound)
    named = [point for point in chart.points if not narrow or point.kind in FEW]
    return texts + _names(axes, chart, named, bound_box)


def _ends(axes: Axes) -> tuple[tuple[float, float], tuple[float, float], float]:
    """Pixels of the titles' anchors and of the left edge for the bound's label."""
    frame = axes.bbox
    return (frame.x0 - 44, frame.y1 + 14), (frame.x1, frame.y0 - 28), frame.x0 + 8


def _scales(axes: Axes, chart: Chart, *, narrow: bool) -> None:
    speeds = [1.0, *(end for point in chart.points for end in point.speed)]
    pad = (max(speeds) - min(speeds)) * (0.16 if narrow else 0.09) or 0.1
    axes.set_xlim(min(speeds) - pad, max(speeds) + pad)
    if chart.threshold:
        axes.set_yscale("symlog", linthresh=chart.threshold, linscale=1.2)
    low, high = _reach(chart)
    axes.set_ylim((low, high) if chart.higher_is_better else (high, low))
    _ticks(axes, chart, (low, high))


def _reach(chart: Chart) -> tuple[float, float]:
    """Lower and upper end of the vertical axis, with room past the bound and past the farthest interval."""
    lost = -chart.bound if chart.higher_is_better else chart.bound
    ends = [0.0, 2 * lost, -lost, *(end for point in chart.points for end in point.change)]
    low, high, threshold = min(ends), max(ends), chart.threshold
    pad = (high - low) * 0.08 or 1.0
    if threshold is None:
        return low - pad, high + pad
    return _stretched(low, threshold), _stretched(high, threshold)


def _stretched(end: float, threshold: float) -> float:
    """Room past an end of the broken scale, in proportion where it is logarithmic."""
    return end * 2.2 if abs(end) > threshold else end + math.copysign(threshold / 3, end)


def _ticks(axes: Axes, chart: Chart, ends: tuple[float, float]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(_times_tick))
    axes.yaxis.set_major_formatter(FuncFormatter(_change_tick))
    axes.yaxis.set_minor_locator(NullLocator())
    if chart.threshold is None:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    else:
        axes.yaxis.set_major_locator(FixedLocator(_log_ticks(chart.threshold, ends)))


def _times_tick(x: float, position: int | None) -> str:
    return amount(float(x), Unit(suffix="×", most=2))


def _change_tick(y: float, position: int | None) -> str:
    return amount(round(float(y), 6), Unit(signed=True, most=6))


def _log_ticks(threshold: float, ends: tuple[float, float]) -> list[float]:
    """Ticks of the broken scale: the straight part in halves, then whole decades."""
    first = math.floor(math.log10(threshold)) + 1
    decades = [10.0**power for power in range(first, first + 6) if 10.0**power > 1.7 * threshold]
    sizes = [threshold / 2, threshold, *decades]
    every = [0.0, *sizes, *(-size for size in sizes)]
    return sorted(tick for tick in every if ends[0] <= tick <= ends[1])


def _furniture(axes: Axes, chart: Chart) -> None:
    axes.tick_params(length=0, colors=MUTED, pad=8)
    axes.grid(color=RULE, linewidth=1)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.axvline(1.0, color=MUTED, linewidth=1)
    axes.axhline(0.0, color=MUTED, linewidth=1)
    lost = -chart.bound if chart.higher_is_better else chart.bound
    axes.axhspan(lost, axes.get_ylim()[0], facecolor=REFUSED, alpha=0.09, linewidth=0)
    axes.axhline(lost, color=REFUSED, linewidth=1.5, dashes=(6, 4))


def _bound_label(axes: Axes, chart: Chart, left: float) -> Box:
    """Write what the dashed line is, under it, and return where the words stand."""
    lost = -chart.bound if chart.higher_is_better else chart.bound
    y = float(axes.transData.transform((1.0, lost))[1]) - 5
    axes.text(left, y, _stand_in(2), transform=None, color=REFUSED, ha="left", va="top")
    return Box(left=left, right=left + text_width(chart.bound_text, FONT), bottom=y - LINE, top=y + 3)


def _front(axes: Axes, chart: Chart) -> None:
    """Connect the candidates that none beats in both directions."""
    front = sorted((point.speed[0], point.change[0]) for point in chart.points if point.front)
    axes.plot([x for x, _ in front], [y for _, y in front], color=PICKED, linewidth=1.5, alpha=0.5, zorder=2)


def _mark(axes: Axes, index: int, point: Point) -> None:
    marker, size, edge, face = MARKS[point.kind]
    (x, left, right), (y, low, high) = point.speed, point.change
    line: dict[str, Any] = {"color": edge, "linewidth": 1.5, "alpha": 0.75, "zorder": 3}
    axes.plot([left, right], [y, y], solid_capstyle="butt", **line)
    axes.plot([x, x], [low, high], solid_capstyle="butt", **line)
    (drawn,) = axes.plot(
        [x],
        [y],
        marker,
        markersize=size,
        markeredgecolor=edge,
        markerfacecolor=face,
        markeredgewidth=1.6,
        zorder=4,
    )
    drawn.set_gid(f"point-{index}")


def _names(axes: Axes, chart: Chart, named: Sequence[Point], bound_box: Box) -> list[str]:
    """Write the names that fit, the important ones first, and return them."""
    order = sorted(named, key=lambda p: (IMPORTANCE.index(p.kind), -p.speed[0]))
    spots = [_pixel(axes, point.speed[0], point.change[0]) for point in order]
    marks = [(_pixel(axes, p.speed[0], p.change[0]), MARKS[p.kind][1] / 2 + 2) for p in chart.points]
    taken = [bound_box, *(_around(spot, radius) for spot, radius in marks)]
    area = axes.get_window_extent()
    frame = Box(left=area.x0 - 6, right=area.x1 + 10, bottom=area.y0, top=area.y1 + 8)
    labels = place(
        spots,
        [text_width(point.name, FONT) for point in order],
        height=LINE,
        frame=frame,
        taken=taken,
        avoid=[*_bars(axes, chart.points), *_lines(axes, chart, frame)],
    )
    texts: list[str] = []
    for point, spot, label in zip(order, spots, labels, strict=True):
        if label is not None:
            _name(axes, point, spot, label, 3 + len(texts))
            texts.append(point.name)
    return texts


def _name(axes: Axes, point: Point, spot: tuple[float, float], label: Label, index: int) -> None:
    from matplotlib.lines import Line2D

    colour = {"picked": PICKED, "refused": REFUSED, "reference": INK}.get(point.kind, MUTED)
    weight = "bold" if point.kind == "picked" else "normal"
    place_at: dict[str, Any] = {"transform": None, "ha": label.align, "va": "center", "parse_math": False}
    axes.text(label.x, label.y, _stand_in(index), color=colour, fontweight=weight, zorder=5, **place_at)
    if label.far:
        ends = ([spot[0], label.x], [spot[1], label.y])
        axes.add_artist(Line2D(*ends, transform=None, color=RULE, linewidth=1, zorder=1))


def _bars(axes: Axes, points: Sequence[Point]) -> list[Box]:
    """The error bars as thin boxes that names should keep off."""
    boxes: list[Box] = []
    for (x, left, right), (y, low, high) in ((p.speed, p.change) for p in points):
        for start, end in (((left, y), (right, y)), ((x, low), (x, high))):
            (x0, y0), (x1, y1) = _pixel(axes, *start), _pixel(axes, *end)
            boxes.append(Box(left=x0 - 2, right=x1 + 2, bottom=min(y0, y1) - 1, top=max(y0, y1) + 1))
    return boxes


def _lines(axes: Axes, chart: Chart, frame: Box) -> list[Box]:
    """The reference's lines and the bound as thin boxes that names should keep off."""
    lost = -chart.bound if chart.higher_is_better else chart.bound
    x, zero = _pixel(axes, 1.0, 0.0)
    upright = Box(left=x - 2, right=x + 2, bottom=frame.bottom, top=frame.top)
    levels = (zero, _pixel(axes, 1.0, lost)[1])
    return [upright, *(Box(left=frame.left, right=frame.right, bottom=y - 2, top=y + 2) for y in levels)]


def _pixel(axes: Axes, x: float, y: float) -> tuple[float, float]:
    spot = axes.transData.transform((x, y))
    return float(spot[0]), float(spot[1])


def _around(spot: tuple[float, float], radius: float) -> Box:
    x, y = spot
    return Box(left=x - radius, right=x + radius, bottom=y - radius, top=y + radius)


def _stand_in(index: int) -> str:
    return f"hasten-text-{index}."


def _inline(svg: str, name: str, texts: list[str], stories: Sequence[str], description: str) -> str:
    """Turn a file of matplotlib's into an element of the page: own ids, own colours, no addresses, texts filled
    in.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<svg[^>]*?viewBox=\"([^\"]*)\"[^>]*>", r'<svg viewBox="\1" role="img">', svg, count=1)
    svg = re.sub(r"\bid=\"", f'id="{name}-', svg)
    svg = re.sub(r"(?:xlink:)?href=\"#", f'href="#{name}-', svg).replace("url(#", f"url(#{name}-")
    svg = re.sub(r"font: (?:(bold|700) )?[^;\"]*", lambda m: f"font-weight: {m[1]}" if m[1] else "", svg)
    for colour, property_ in COLOURS.items():
        svg = svg.replace(colour, f"var({property_})")
    svg = re.sub(r"hasten-text-(\d+)\.", lambda found: escape(texts[int(found[1])]), svg)
    for index, story in enumerate(stories):
        mark = f'<g id="{name}-point-{index}">'
        svg = svg.replace(mark, f"{mark}<title>{escape(story)}</title>", 1)
    return svg.replace('role="img">', f'role="img" aria-label="{escape(description)}">', 1)
