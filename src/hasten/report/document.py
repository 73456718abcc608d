"""The page as text: the template filled in with the view model, and written where it is wanted."""

from __future__ import annotations

import os
import tempfile
from importlib import resources
from pathlib import Path

import jinja2

from hasten.errors import StorageError
from hasten.report.bars import bars_svg
from hasten.report.page import page_of
from hasten.report.plots import speed_accuracy_svg
from hasten.spec.evidence import Record

__all__ = ["render", "write_report"]

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
    style = resources.files("hasten.report").joinpath("templates/page.css").read_text(encoding="utf-8")
    template = _environment().get_template("page.html.j2")
    return template.render(page=page, trade=trade, latency=latency, style=style)


def write_report(record: Record, path: Path, *, title: str) -> None:
    """Write the page to `path`, all or nothing. Raises `StorageError`."""
    content, temporary = render(record, title=title).encode(), ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        Path(temporary).chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise StorageError(f"{path} cannot be written: {error.strerror}.", remedy="Choose another --out.") from error


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("hasten.report"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
