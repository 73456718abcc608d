"""The roofline plot: operators by arithmetic intensity and speed under the ceilings of the machine, as inline SVG.

Both scales are logarithmic. Main memory and the fastest cache each have a slope; arithmetic has the flat roof. The disc
of an operator grows with its share of the time. `hasten.report.document` calls it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hasten.report.format import Unit, amount
from hasten.report.plots import INK, MUTED, PICKED, REFUSED, RULE, UNPROVEN, svg_of
from hasten.spec.profile import Bound

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Roof", "Spot", "roof_svg"]

EDGES: dict[Bound, str] = {"compute": PICKED, "memory": UNPROVEN, "overhead": REFUSED}


@dataclass(frozen=True, kw_only=True, slots=True)
class Spot:
    """One operator: FLOPs for each byte moved, GFLOP in a second, share of the time, and its whole story."""

    flop_per_byte: float
    gflop_per_s: float
    share: float
    bound: Bound
    story: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Roof:
    """The ceilings, in GFLOP/s and GB/s, the operators that compute, the largest first, and all of it in words."""

    compute: float
    memory: float
    cache: float
    spots: tuple[Spot, ...]
    description: str


def roof_svg(roof: Roof, *, name: str, width: int, height: int) -> str:
    """Draw `roof`; `name` makes the ids unique among the drawings of one page."""
    box = (58 / width, 50 / height, 1 - 74 / width, 1 - 100 / height)
    stories = [spot.story for spot in roof.spots]

    def draw(axes: Axes) -> list[str]:
        _scales(axes, roof)
        _ceilings(axes, roof)
        for index, spot in enumerate(roof.spots):
            _mark(axes, index, spot)
        return _words(axes, roof)

    return svg_of(draw, name=name, size=(width, height), box=box, description=roof.description, stories=stories)


def _reach(values: Sequence[float]) -> tuple[float, float]:
    return min(values) / 2.5, max(values) * 2.5


def _scales(axes: Axes, roof: Roof) -> None:
    from matplotlib.ticker import FuncFormatter, NullLocator

    ridge = roof.compute / roof.memory
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(*_reach([ridge, *(spot.flop_per_byte for spot in roof.spots)]))
    axes.set_ylim(*_reach([roof.compute, *(spot.gflop_per_s for spot in roof.spots)]))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(_tick))
        axis.set_minor_locator(NullLocator())
    axes.tick_params(length=0, colors=MUTED, pad=8)
    axes.grid(color=RULE, linewidth=1)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)


def _tick(value: float, _position: int | None) -> str:
    return amount(float(value), Unit(most=4))


def _ceilings(axes: Axes, roof: Roof) -> None:
    left, right = axes.get_xlim()
    axes.plot([roof.compute / roof.cache, right], [roof.compute] * 2, color=INK, linewidth=1.6, zorder=2)
    for bandwidth, dashes in ((roof.memory, (None, None)), (roof.cache, (5, 4))):
        ends = [left, roof.compute / bandwidth]
        (line,) = axes.plot(ends, [end * bandwidth for end in ends], color=INK, linewidth=1.6, zorder=2)
        if dashes[0] is not None:
            line.set_dashes(dashes)


def _mark(axes: Axes, index: int, spot: Spot) -> None:
    colour = EDGES[spot.bound]
    size = 5 + 28 * spot.share**0.5
    (drawn,) = axes.plot(
        [spot.flop_per_byte], [spot.gflop_per_s], "o", markersize=size, markeredgecolor=colour,
        markerfacecolor=colour, alpha=0.55, markeredgewidth=1, zorder=3,
    )  # fmt: skip
    drawn.set_gid(f"point-{index}")


def _words(axes: Axes, roof: Roof) -> list[str]:
    frame = axes.bbox
    cache = amount(roof.cache, Unit(most=0))
    texts = [
        "GFLOP/s",
        "FLOP for each byte moved",
        f"arithmetic {amount(roof.compute, Unit(most=0))} GFLOP/s",
        f"memory {amount(roof.memory, Unit(most=0))} GB/s, caches up to {cache} GB/s (dashed)",
    ]
    places = [
        (frame.x0 - 50, frame.y1 + 26, INK, "left", "bottom"),
        (frame.x1, frame.y0 - 32, INK, "right", "top"),
        (frame.x1, frame.y1 + 26, INK, "right", "bottom"),
        (frame.x1, frame.y1 + 8, MUTED, "right", "bottom"),
    ]
    for index, (x, y, colour, ha, va) in enumerate(places):
        axes.text(x, y, f"hasten-text-{index}.", transform=None, color=colour, ha=ha, va=va)
    return texts
