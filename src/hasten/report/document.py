"""The page as text: the template filled in with the view model, and written where it is wanted."""

from __future__ import annotations

import os
import tempfile
from importlib import resources
from pathlib import Path

import jinja2

from hasten.errors import StorageError
from hasten.report.page import page_of
from hasten.report.plots import speed_accuracy_svg
from hasten.spec.evidence import Record

__all__ = ["render", "write_report"]

# Wide for desks and paper, narrow for phones; the style sheet shows one of the two.
_DRAWINGS = {"wide": (760, 420), "narrow": (360, 400)}


def render(record: Record, *, title: str) -> str:
    """Return the whole page: one HTML document that needs nothing else. Equal records give equal pages."""
    page = page_of(record, title)
    drawings = {
        name: speed_accuracy_svg(page.chart, name=f"plot-{name}", width=width, height=height)
        for name, (width, height) in _DRAWINGS.items()
        if page.chart is not None
    }
    style = resources.files("hasten.report").joinpath("templates/page.css").read_text()
    return _environment().get_template("page.html.j2").render(page=page, drawings=drawings, style=style)


def write_report(record: Record, path: Path, *, title: str) -> None:
    """Write the page to `path`, all or nothing. Raises `StorageError`."""
    text = render(record, title=title)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as stream:
            stream.write(text)
        Path(stream.name).chmod(0o644)
        os.replace(stream.name, path)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}.", remedy="Choose another --out.") from error


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("hasten.report"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
