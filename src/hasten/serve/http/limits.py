"""What the HTTP front end allows a client: sizes, counts and times. The bound on bodies is the codec's."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["HttpLimits"]


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpLimits:
    """Bytes, counts and seconds. Defaults are those of the project's list of faults and attacks.

    `header_s` and `body_s` bound how long a request may take to arrive, `stalled_s` how long a client may leave an
    answer unread, `idle_s` how long a connection may rest between requests, and `linger_s` how long a refused client
    may go on sending before its connection is closed. `framing_bytes` bounds what is neither header nor body: chunk
    sizes, extensions and trailers. `buffered_bytes` bounds the bodies of all connections together. `pipelined` requests
    may wait on one connection behind the one that is being answered.
    """

    header_bytes: int = 32 * 2**10
    chunks: int = 65_536
    framing_bytes: int = 2 * 2**20
    buffered_bytes: int = 2**30
    connections: int = 1000
    pipelined: int = 8
    header_s: float = 10.0
    body_s: float = 30.0
    stalled_s: float = 30.0
    idle_s: float = 75.0
    linger_s: float = 2.0
