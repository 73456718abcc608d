"""What the gRPC front end refuses, and how long it waits."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GrpcLimits"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GrpcLimits:
    """Counts, bytes and seconds. The size of one message is the codec's limit, `hasten.wire.base.Limits.body`.

    `metadata` are the bytes of names and values of one call's headers. `buffered` bounds the bytes of unfinished
    messages of all clients together. `stream_ahead` requests of one streaming call may be under way; more of them wait
    at the client, by flow control, and so do those whose answers would leave more than `stream_hold` bytes for it to
    read; a stream with more than `stream_end` unread is ended, and so is one that leaves an answer unread for
    `delivery_s`. `resets` are how many calls a connection may cancel at once, and each second after that: cancelling is
    cheap for a client and not for a server (CVE-2023-44487).
    """

    connections: int = 1000
    streams: int = 100
    metadata: int = 16 * 1024
    buffered: int = 256 * 2**20
    stream_ahead: int = 64
    stream_hold: int = 8 * 2**20
    stream_end: int = 64 * 2**20
    window: int = 2**20
    frame: int = 128 * 1024
    resets: tuple[int, int] = (10_000, 1_000)
    handshake_s: float = 10.0
    receipt_s: float = 30.0
    delivery_s: float = 60.0
    idle_s: float = 600.0
