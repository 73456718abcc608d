"""From a request's target to the operation that it names. Pure: which models exist is another question.

A path is read as it was sent, still percent-encoded, so that an encoded slash never splits a name; a model's name is
decoded afterwards. One slash at the end is fine. Whatever else reads like a path of ours without being one is unknown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from hasten.errors import RequestError
from hasten.serve.access import Operation

__all__ = ["MethodNotAllowed", "Route", "resolve"]

_FIXED = {
    "/v2": Operation.SERVER_METADATA,
    "/v2/health/live": Operation.LIVE,
    "/v2/health/ready": Operation.READY,
    "/v2/models/stats": Operation.STATISTICS,
    "/v2/repository/index": Operation.REPOSITORY_INDEX,
    "/v2/openapi.json": Operation.API,
    "/metrics": Operation.METRICS,
}
_MODEL = re.compile(
    r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?(?:/(?P<verb>ready|infer|config|stats))?"
)
_REPOSITORY = re.compile(r"/v2/repository/models/(?P<model>[^/]+)/(?P<verb>load|unload)")
_VERBS = {
    None: Operation.MODEL_METADATA,
    "ready": Operation.MODEL_READY,
    "infer": Operation.INFER,
    "config": Operation.MODEL_CONFIG,
    "stats": Operation.STATISTICS,
}
_CHANGES = {"load": Operation.LOAD, "unload": Operation.UNLOAD}
_POST = frozenset({Operation.INFER, Operation.REPOSITORY_INDEX, Operation.LOAD, Operation.UNLOAD})
# What a name may hold at all; which names exist is another question. Anything else is refused before it is looked up.
_NAME = re.compile(r"[A-Za-z0-9._~:@+-]{1,255}")


@dataclass(frozen=True, slots=True)
class Route:
    """What a request wants: an operation, and where it concerns a model, the model's decoded name and the version."""

    operation: Operation
    model: str = ""
    version: str = ""
    # The one method that the operation takes.
    method: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", "POST" if self.operation in _POST else "GET")


class MethodNotAllowed(RequestError):
    """The path takes another method; `allow` names it."""

    def __init__(self, method: str, allow: str) -> None:
        super().__init__(f"This path takes {allow}, not {method[:20]}.", code="method_not_allowed")
        self.allow = allow


def resolve(target: bytes) -> Route:
    """Return the route of a request target. Raises `RequestError`: not_found, or invalid for an impossible name."""
    path = target.partition(b"?")[0].decode("latin-1").removesuffix("/")
    operation = _FIXED.get(path)
    if operation is not None:
        return Route(operation)
    match = _MODEL.fullmatch(path)
    change = _REPOSITORY.fullmatch(path)
    if change is not None:
        return Route(_CHANGES[change["verb"]], _decoded(change["model"]))
    if match is None:
        raise RequestError("There is nothing at this path.", code="not_found")
    return Route(_VERBS[match["verb"]], _decoded(match["model"]), match["version"] or "")


def _decoded(name: str) -> str:
    decoded = unquote_to_bytes(name).decode("latin-1")
    if not _NAME.fullmatch(decoded) or decoded in (".", ".."):
        raise RequestError("The model name holds characters that no name has.", code="invalid")
    return decoded
