"""What serving tells whoever observes it. Plain values; the listener decides what becomes of them.

Every request ends in exactly one `Served` or `Refused`, whichever transport it came by; every batch in one `Ran`.
Gauges are not told, they are asked for. Seconds are of the monotonic clock, bytes of bodies as they were sent. What
holds nothing but texts and numbers is spared the garbage collector.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from hasten.spec.values import Value

__all__ = [
    "DEFAULT_LANE",
    "NO_MODEL",
    "UNKNOWN_MODEL",
    "Cached",
    "Changed",
    "Event",
    "Gauges",
    "Lane",
    "LevelChanged",
    "Ran",
    "Refused",
    "Served",
    "Sink",
    "WorkerChanged",
]

DEFAULT_LANE = "default"
# What stands for the name of a model that is not served here, and for a request that named none.
UNKNOWN_MODEL = "_unknown"
NO_MODEL = "_none"


class Served(Value, frozen=True, gc=False):
    """One answered request: which variant gave the answer, and where its time went.

    `batch` is the number of requests that ran together, `closed` why no more joined them; an answer of the cache
    has a batch of 0, closed by "cache". Stages: `wire_s` decoding, encoding and handing over to the socket, of which
    `decode_s` came before the queue; `queue_s` waiting while every instance was busy; `batch_s` waiting for company
    while one was free; `engine_s` running. `total_s` is from the complete request to the written answer; what the
    stages leave of it went by between them. `trace` is the client's traceparent.
    """

    model: str
    variant: str
    batch: int
    queue_s: float
    engine_s: float
    version: str = "1"
    lane: str = DEFAULT_LANE
    rows: int = 1
    closed: str = ""
    wire_s: float = 0.0
    decode_s: float = 0.0
    batch_s: float = 0.0
    total_s: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    transport: str = ""
    request_id: str = ""
    trace: str = ""


class Refused(Value, frozen=True, gc=False):
    """One request that got an error, or nothing because its client left (`code` cancelled). Without a `lane` it was
    refused before it had one.

    `code` is one of `hasten.wire.base.STATUS`. `model` is `UNKNOWN_MODEL` where the request named one that is not
    served, whatever it was called, and `NO_MODEL` where it came to naming none. `trace` is the client's traceparent.
    """

    model: str
    code: str
    lane: str = ""
    message: str = ""
    total_s: float = 0.0
    bytes_in: int = 0
    transport: str = ""
    request_id: str = ""
    trace: str = ""


class Ran(Value, frozen=True, gc=False):
    """One batch that an engine instance ran in `seconds`, and why it `closed`; `failed` where nothing came of it. It
    may hold requests of several lanes.
    """

    model: str
    variant: str
    requests: int
    rows: int
    seconds: float
    version: str = "1"
    closed: str = ""
    instance: int = 0
    failed: bool = False


class WorkerChanged(Value, frozen=True):
    """An engine instance came up, died, came back, or did not come back at once."""

    model: str
    variant: str
    instance: int
    state: Literal["started", "died", "restarted", "lost"]


class LevelChanged(Value, frozen=True):
    """A model is served from another level of its ladder on: 0 is its first variant, one past the last, background work
    is shed. `variant` is that of lanes without a floor.
    """

    model: str
    variant: str
    before: int
    after: int


class Cached(Value, frozen=True, gc=False):
    """A request found its answer in the model's cache, or did not; or an answer was kept there, for which `evicted`
    others had to go.
    """

    model: str
    what: Literal["hit", "miss", "kept"]
    evicted: int = 0


class Changed(Value, frozen=True):
    """An operator changed what is served: the audit record. `what` is load or unload, `status` as HTTP counts."""

    model: str
    what: str
    status: int
    request_id: str = ""


class Lane(Value, frozen=True):
    """What waits in one lane: requests, and how many seconds of one engine's work those are, as predicted."""

    lane: str = DEFAULT_LANE
    requests: int = 0
    work_s: float = 0.0


class Gauges(Value, frozen=True):
    """How one model stands at this moment. `capacity` bounds the requests that may wait; `level` is the step of the
    ladder, as `LevelChanged` counts; `variant` is that of level 0; `cache_bytes` is what answers take that are kept.
    """

    model: str
    variant: str
    version: str = "1"
    ready: bool = True
    instances: int = 1
    instances_up: int = 1
    capacity: int = 0
    level: int = 0
    cache_bytes: int = 0
    lanes: tuple[Lane, ...] = ()


Event = Served | Refused | Ran | WorkerChanged | LevelChanged | Cached | Changed
Sink = Callable[[Event], None]
