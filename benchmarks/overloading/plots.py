"""docs/overload/*.svg: goodput over load, and what each lane got of it. Equal figures give equal bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from overloading.subjects import NAMES
from overloading.verdict import Cell, Found, middle

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

# Okabe and Ito's colours, which the colour-blind can tell apart.
COLOURS = {"hasten": "#0072B2", "hasten, ladder": "#009E73", "triton": "#D55E00"}
STYLES = dict(zip(NAMES, ("-", "--", ":"), strict=True))
STYLE: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "hasten", "font.family": "sans-serif", "font.size": 9}
WIDTH, HEIGHT = 2.6, 2.5


def draw(found: Sequence[Found], folder: Path) -> dict[str, list[Path]]:
    """Write the drawings of each model into a folder; returns their paths by model."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn: dict[str, list[Path]] = {}
    for one in found:
        if not one.runs:
            continue
        paths = [folder / f"{one.model}-{what}.svg" for what in ("goodput", "lanes")]
        _write(paths[0], one, "goodput, of the capacity", _goodput)
        _write(paths[1], one, "answered in time", _lanes)
        drawn[one.model] = paths
    return drawn


def _write(path: Path, found: Found, title: str, fill: Callable[[Axes, Found, str], None]) -> None:
    """One panel for each process of arrivals, load to the right."""
    import matplotlib
    from matplotlib.figure import Figure

    kinds = sorted({cell.kind for cell in found.runs})
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH * len(kinds) + 0.6, HEIGHT + 0.5), layout="constrained")
        panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
        for panel, kind in zip(panels, kinds, strict=True):
            fill(panel, found, kind)
            panel.set_title(kind)
            panel.set_xlabel("load, of the capacity")
            panel.set_ylim(bottom=0)
            panel.grid(color="#dddddd", linewidth=0.5)
        panels[0].set_ylabel(title)
        # Not every server is in every panel.
        named: dict[str, Any] = {}
        for panel in panels:
            lines, names = panel.get_legend_handles_labels()
            named |= dict(zip(names, lines, strict=True))
        figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=3, frameon=False)
        figure.savefig(path, metadata={"Date": None, "Creator": None})


def _goodput(axes: Axes, found: Found, kind: str) -> None:
    for server in _servers(found):
        rates = found.goodput(server, kind)
        values = np.array(list(rates.values())) / found.capacity
        axes.plot(list(rates), values, color=COLOURS[server], marker="o", markersize=3, label=server)


def _lanes(axes: Axes, found: Found, kind: str) -> None:
    for server in _servers(found):
        loads = list(found.goodput(server, kind))
        for number, lane in enumerate(NAMES):
            values = [middle(one.attainment(number) for one in found.runs[Cell(server, kind, load)]) for load in loads]
            axes.plot(loads, values, STYLES[lane], color=COLOURS[server], label=f"{server}: {lane}")


def _servers(found: Found) -> Iterable[str]:
    present = {cell.server for cell in found.runs}
    return [server for server in COLOURS if server in present]
