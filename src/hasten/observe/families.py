"""Every metric that a server shows: name, kind, labels, and what it says. The page in the docs is checked against it.

Times are seconds, sizes bytes. Labels come from bounded sets: models that are served and two words for the rest,
variants of their bundles, lanes of serve.toml, the protocol's error codes, and words of our own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["FAMILIES", "Family", "table"]

_WHO = ("model", "version", "variant", "lane")
_MODEL = ("model", "version", "variant")


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. A counter's `name` is without the ending _total, which its samples have."""

    name: str
    kind: Literal["counter", "gauge", "histogram", "info"]
    labels: tuple[str, ...]
    help: str

    @property
    def shown(self) -> str:
        """The name under which one asks for it."""
        return self.name + {"counter": "_total", "info": "_info"}.get(self.kind, "")


_ALL = (
    Family(
        "hasten_request_duration_seconds",
        "histogram",
        _WHO,
        "From the complete request to the written answer, of answered requests.",
    ),
    Family(
        "hasten_request_stage_duration_seconds",
        "histogram",
        (*_WHO, "stage"),
        "The same by stage: wire (decode, encode, hand over), queue (every instance was busy), batch (waiting for "
        "company while one was free), engine.",
    ),
    Family("hasten_request_rows", "counter", _WHO, "Samples in answered requests."),
    Family("hasten_request_bytes", "counter", _WHO, "Bodies of answered requests, in bytes."),
    Family("hasten_response_bytes", "counter", _WHO, "Bodies of answers, in bytes."),
    Family(
        "hasten_refusals",
        "counter",
        ("model", "lane", "reason"),
        "Requests that got an error, by its code, or whose client left (cancelled); those without a lane ended before "
        "they had one.",
    ),
    Family("hasten_batch_requests", "histogram", _MODEL, "Requests that ran together in a batch."),
    Family("hasten_batch_rows", "histogram", _MODEL, "Samples that ran together in a batch."),
    Family(
        "hasten_batches",
        "counter",
        (*_MODEL, "closed"),
        "Batches by what closed them: full, deadline (no time for more), delay (waited long enough), free (an engine "
        "was free), drain.",
    ),
    Family("hasten_batch_failures", "counter", _MODEL, "Batches of which nothing came."),
    Family(
        "hasten_engine_busy_seconds", "counter", _MODEL, "Time that engine instances ran batches, all of them together."
    ),
    Family("hasten_worker_starts", "counter", ("model", "variant"), "Engine instances that started the first time."),
    Family("hasten_worker_deaths", "counter", ("model", "variant"), "Engine instances that died."),
    Family("hasten_worker_restarts", "counter", ("model", "variant"), "Engine instances that came back."),
    Family("hasten_level_changes", "counter", ("model", "direction"), "Steps on the ladder, down or up."),
    Family(
        "hasten_cache_lookups",
        "counter",
        ("model", "result"),
        "Requests that looked for their answer in the model's cache, where it has one: hit, miss.",
    ),
    Family("hasten_cache_evictions", "counter", ("model",), "Answers that left the cache to make room."),
    Family(
        "hasten_model_changes", "counter", ("model", "change", "result"), "Models that operators loaded and unloaded."
    ),
    Family("hasten_queue_requests", "gauge", _WHO, "Requests that wait."),
    Family(
        "hasten_queue_work_seconds",
        "gauge",
        _WHO,
        "Work that waits, in seconds of one engine instance, as predicted from past batches.",
    ),
    Family("hasten_queue_capacity_requests", "gauge", _MODEL, "Requests that may wait at most."),
    Family("hasten_workers", "gauge", _MODEL, "Engine instances that the model should have."),
    Family("hasten_workers_up", "gauge", _MODEL, "Engine instances that take work."),
    Family(
        "hasten_model_level",
        "gauge",
        _MODEL,
        "How far down its ladder the model is served: 0 is the first variant; one past the last, background work is "
        "shed.",
    ),
    Family("hasten_cache_bytes", "gauge", _MODEL, "Answers that are kept to be given again, in bytes."),
    Family("hasten_model_ready", "gauge", _MODEL, "1 where the model takes requests, else 0."),
    Family(
        "hasten_unread_bytes",
        "gauge",
        (),
        "Answers that wait because their clients do not read them, in bytes, over HTTP and gRPC together.",
    ),
    Family(
        "hasten_observations_lost",
        "counter",
        ("observer", "reason"),
        "Log records and spans that are gone: slow (too many waited), error (writing failed, as on a full disk).",
    ),
    Family(
        "hasten_build", "info", (), "Versions of hasten and Python, and whether the request path is compiled (yes, no)."
    ),
)
FAMILIES = {family.name: family for family in _ALL}


def table() -> str:
    """All metrics as a table in Markdown."""
    rows = ["| metric | kind | labels | says |", "|---|---|---|---|"]
    for family in _ALL:
        labels = ", ".join(f"`{label}`" for label in family.labels)
        rows.append(f"| `{family.shown}` | {family.kind} | {labels} | {family.help} |")
    return "\n".join(rows) + "\n"
