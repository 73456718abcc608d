"""The evidence as one self-contained HTML page, for people who decide whether to deploy.

`render` turns a `Record` into the text of the page, `write_report` puts it on disk; `render_profile` does a `Profile`.
All load jinja2 and matplotlib on first use only, so importing this room is free. The command line and the
facade call it; it looks at frozen values and measures nothing itself.

    words, format               what things are called; numbers with unit and interval
    verdict, tried, facts, page the view model: a record turned into sentences, tiles and rows (pure)
    by_class, told, operators   what changed: accuracy by class, samples, where the time goes (pure)
    room, serving               what a looser objective would buy; how the picked variant is served (pure)
    chart                       the record as points and rows to draw (pure)
    labels, plots, bars         drawing them as SVG that follows the page's colours
    profile_page, roof          the same for a profile: its view model, its plot
    document                    the templates filled in
    files                       one file written, all or nothing
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hasten.report.document import render, render_profile, write_report

__all__ = ["render", "render_profile", "write_report"]


def __getattr__(name: str) -> Any:
    """Load the public functions on first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hasten.report import document

    return getattr(document, name)
