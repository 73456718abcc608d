"""All observers of one server: put together by whoever starts it, closed when it ends."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hasten.errors import MissingError
from hasten.observe.base import Sink, exporters, tee
from hasten.observe.log import Log, logging_to
from hasten.spec.event import Sink as Hears

if TYPE_CHECKING:
    from hasten.observe.prometheus import Metrics

__all__ = ["Observation", "counting", "observing"]


@dataclass(frozen=True, slots=True)
class Observation:
    """The sink that hears everything, and the metrics whose `page` a server shows."""

    sink: Hears
    metrics: Metrics


@contextmanager
def observing(log_file: str = "", *, log_requests: bool = False, names: Sequence[str] = ()) -> Generator[Observation]:
    """Observe while the block runs. `log_file` "-" is standard error; without one, standard error gets warnings and
    the audit only. `names` are further exporters. Raises `UsageError` for a file that cannot be written or an unknown
    name, `MissingError` without the extra that something needs.
    """
    path = Path(log_file) if log_file not in ("", "-") else None
    log = Log(path, all_levels=bool(log_file), requests=log_requests)
    with logging_to(log), ExitStack() as stack:
        others: dict[str, Sink] = {"log": log}
        for name in names:
            others[name] = exporters.get(name).open()
            stack.callback(others[name].close)
        metrics = counting(others)
        yield Observation(tee([metrics, *others.values()]), metrics)


def counting(others: Mapping[str, Sink] | None = None) -> Metrics:
    """Return metrics, which show also what `others` lost. Raises `MissingError` without the serve extra."""
    try:
        from hasten.observe.prometheus import Metrics
    except ModuleNotFoundError as error:
        raise MissingError(
            f"Metrics need the package {error.name!r}, which is not installed.",
            remedy="Install it with: pip install 'hasten[serve]'",
        ) from error
    return Metrics(others)
