"""The structured log: events of serving and what modules log, through one writer."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from hasten.observe.records import Record, as_line, of_event, of_logging
from hasten.observe.writer import Writer
from hasten.spec.event import Event, Ran, Served

__all__ = ["Log", "logging_to"]

_AUDIT = "hasten.serve.audit"
_SEVERE = ("warning", "error", "critical")


class Log:
    """A sink that writes records. `path` None is standard error; with `all_levels` false only warnings and worse are
    written, and the audit; `requests` adds one record for each request.
    """

    def __init__(self, path: Path | None, *, all_levels: bool = True, requests: bool = False) -> None:
        self._all_levels = all_levels or requests
        self._requests = requests
        # Most events by far, and not one of them has a record.
        self.deaf: frozenset[type[Event]] = frozenset() if requests else frozenset({Served, Ran})
        self._writer = Writer(path)
        self.lost = self._writer.lost

    def __call__(self, event: Event) -> None:
        """Write the event's record, where it has one."""
        record = of_event(event, requests=self._requests)
        if record is not None:
            self.put(record)

    def put(self, record: Record, *, always: bool = False) -> None:
        """Write a record of a level that is wanted; `always` asks for no level."""
        if always or self._all_levels or record["level"] in _SEVERE:
            self._writer.write(as_line(record))

    def close(self) -> None:
        """Write what waits."""
        self._writer.close()


class _Handler(logging.Handler):
    """Python's logging, into the log."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.INFO)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.put(of_logging(record), always=record.name == _AUDIT)


@contextmanager
def logging_to(log: Log) -> Generator[None]:
    """Whatever any module logs while the block runs goes to `log`, warnings of Python too."""
    root, handler, ours = logging.getLogger(), _Handler(log), logging.getLogger("hasten")
    level = ours.level
    root.addHandler(handler)
    ours.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        ours.setLevel(level)
        root.removeHandler(handler)
        log.close()
