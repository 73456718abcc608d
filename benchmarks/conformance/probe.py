"""What is asked and what comes of it, in words that can be compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["GrpcProbe", "HttpProbe", "Outcome", "Probe"]


@dataclass(frozen=True, slots=True)
class HttpProbe:
    """An HTTP request as it is sent: nothing is added to `headers` but Host and the length."""

    name: str
    path: str
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    method: str = ""
    chunked: bool = False

    @property
    def verb(self) -> str:
        return self.method or ("GET" if self.body is None else "POST")


@dataclass(frozen=True, slots=True)
class GrpcProbe:
    """A call of the protocol's service with a message of bytes; `answer` is the type of what comes back."""

    name: str
    method: str
    body: bytes
    answer: Any
    streams: bool = False


Probe = HttpProbe | GrpcProbe


@dataclass(frozen=True, slots=True)
class Outcome:
    """A status ("200", "NOT_FOUND") and, in one line, what the answer says that clients rely on.

    Wording of errors, order of keys and names of servers are no part of it.
    """

    status: str
    says: str = ""

    def __str__(self) -> str:
        return f"{self.status} {self.says}".strip()
