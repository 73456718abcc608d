"""What is logged, as records: one JSON object on one line for each event, whatever a client put into its names.

Everything outside printable ASCII is escaped, so that no name ends a line, forges a record or moves a terminal's
cursor; long texts are cut. Tracebacks are for logs, never for clients.
"""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from hasten.spec.event import Cached, Changed, Event, LevelChanged, Ran, Refused, Served, WorkerChanged

__all__ = ["Record", "as_line", "of_event", "of_logging"]

Record = dict[str, Any]
_LONGEST = 1000
_LONGEST_TRACEBACK = 20_000
# DEL is the one control character that JSON lets pass and is ASCII.
_DEL = "\x7f"


def of_event(event: Event, *, requests: bool = False) -> Record | None:
    """Return the record of an event, without its time, or None where it has none.

    Single requests are recorded where `requests` says so, and always where a bug of ours failed them. What operators
    change stands in the audit, and batches only in the metrics.
    """
    match event:
        case Served():
            return _answered(event) if requests else None
        case Refused():
            return _refused(event) if requests or event.code == "internal" else None
        case WorkerChanged(model=model, variant=variant, instance=instance, state=state):
            level = "warning" if state in ("died", "lost") else "info"
            return {
                "level": level,
                "event": f"worker {state}",
                "model": model,
                "variant": variant,
                "instance": instance,
            }
        case LevelChanged(model=model, variant=variant, before=before, after=after):
            level = "warning" if after > before else "info"
            return {
                "level": level,
                "event": "stepped down" if after > before else "stepped up",
                "model": model,
                "variant": variant,
                "before": before,
                "after": after,
            }
        case Ran() | Cached() | Changed():
            return None


def of_logging(record: logging.LogRecord) -> Record:
    """Return the record of what a module logged: its `fields`, where it gave some, instead of the message."""
    fields: Mapping[str, Any] = getattr(record, "fields", None) or {"event": "log", "message": record.getMessage()}
    found: Record = {"level": record.levelname.lower(), **fields, "logger": record.name}
    if record.exc_info and record.exc_info[0] is not None:
        found["traceback"] = "".join(traceback.format_exception(*record.exc_info))[-_LONGEST_TRACEBACK:]
    return found


def as_line(record: Mapping[str, Any], now: float | None = None) -> bytes:
    """Return the record with its time (seconds since 1970, by default now) as one line of printable ASCII."""
    moment = datetime.fromtimestamp(time.time() if now is None else now, UTC)
    stamped = {"time": moment.isoformat(timespec="microseconds").replace("+00:00", "Z"), **record}
    cut = {key: _cut(key, value) for key, value in stamped.items()}
    return (
        json.dumps(cut, ensure_ascii=True, separators=(",", ":"), default=str).replace(_DEL, "\\u007f").encode() + b"\n"
    )


def _cut(key: str, value: Any) -> Any:
    if isinstance(value, str) and len(value) > _LONGEST and key != "traceback":
        return value[:_LONGEST] + "…"
    return value


def _answered(event: Served) -> Record:
    return {
        "level": "info",
        "event": "answered",
        "request_id": event.request_id,
        "model": event.model,
        "version": event.version,
        "variant": event.variant,
        "lane": event.lane,
        "rows": event.rows,
        "batch": event.batch,
        "closed": event.closed,
        "total_ms": _ms(event.total_s),
        "wire_ms": _ms(event.wire_s),
        "queue_ms": _ms(event.queue_s),
        "batch_ms": _ms(event.batch_s),
        "engine_ms": _ms(event.engine_s),
        "bytes_in": event.bytes_in,
        "bytes_out": event.bytes_out,
        "transport": event.transport,
    }


def _refused(event: Refused) -> Record:
    return {
        "level": "error" if event.code == "internal" else "info",
        "event": "refused",
        "request_id": event.request_id,
        "model": event.model,
        "lane": event.lane,
        "code": event.code,
        "message": event.message,
        "total_ms": _ms(event.total_s),
        "bytes_in": event.bytes_in,
        "transport": event.transport,
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)
