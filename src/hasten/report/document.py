"""The page as text: the template filled in with the view model, and written where it is wanted."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import jinja2

from hasten.report.bars import bars_svg
from hasten.report.files import write_whole
from hasten.report.page import page_of
from hasten.report.plots import speed_accuracy_svg
from hasten.report.profile_page import profile_page
from hasten.report.roof import roof_svg
from hasten.spec.evidence import Record
from hasten.spec.profile import Profile

__all__ = ["render", "render_profile", "write_report"]

# Wide for desks and paper, narrow for phones; the style sheet shows one of the two.
_DRAWINGS = {"wide": (940, 460), "narrow": (340, 430)}


def render(record: Record, *, title: str) -> str:
    """Return the whole page: one HTML document that needs nothing else. Equal records give equal pages."""
    page = page_of(record, title)
    chart, bars = page.chart, page.latency
    trade = {
        size: speed_accuracy_svg(chart, name=f"trade-{size}", width=width, height=height)
        for size, (width, height) in _DRAWINGS.items()
        if chart is not None
    }
    latency = {
        size: bars_svg(bars, name=f"latency-{size}", width=width)
        for size, (width, _) in _DRAWINGS.items()
        if bars is not None
    }
    template = _environment().get_template("page.html.j2")
    return template.render(page=page, trade=trade, latency=latency, style=_style("page.css"))


def render_profile(profile: Profile) -> str:
    """Return the page of a profile, as self-contained as that of a record."""
    page = profile_page(profile)
    roof = {
        size: roof_svg(page.roof, name=f"roof-{size}", width=width, height=height)
        for size, (width, height) in _DRAWINGS.items()
        if page.roof is not None
    }
    template = _environment().get_template("profile.html.j2")
    return template.render(page=page, roof=roof, style=_style("page.css") + _style("profile.css"))


def write_report(record: Record, path: Path, *, title: str) -> None:
    """Write the page to `path`, all or nothing. Raises `StorageError`."""
    write_whole(path, render(record, title=title).encode())


def _style(name: str) -> str:
    return resources.files("hasten.report").joinpath(f"templates/{name}").read_text(encoding="utf-8")


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("hasten.report"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
