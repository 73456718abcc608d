"""Progress on standard error: a bar with time left on a terminal, one line for each finished thing elsewhere."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from hasten.spec.progress import Listener, Progress, ignore

__all__ = ["progress"]


@contextmanager
def progress(*, quiet: bool = False) -> Generator[Listener]:
    """Yield a listener that draws until the block ends. `quiet` draws nothing."""
    if quiet:
        yield ignore
        return
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    bar = Bar(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task("starting", total=None)
        last = ""

        def listen(event: Progress) -> None:
            nonlocal last
            if event.note:
                console.print(f"  {event.note}", markup=False, highlight=False, soft_wrap=True)
                return
            if event.stage != last:
                last = event.stage
                bar.reset(task, description=event.stage, total=event.total or None)
                if not console.is_terminal and not event.total:
                    console.print(event.stage, markup=False, highlight=False, soft_wrap=True)
            bar.update(task, completed=event.done)

        yield listen
