"""gzip and deflate, both ways, with a bound on what comes out: a few bytes must never become gigabytes of memory."""

from __future__ import annotations

import gzip
import zlib

from hasten.errors import RequestError
from hasten.wire.base import invalid

__all__ = ["accepted", "compress", "decompress"]

# zlib's window bits: 16 + 15 expects a gzip header, 15 a zlib header (what HTTP calls deflate, RFC 9110).
_WINDOW = {"gzip": 31, "deflate": 15}
# zlib joins its output blocks at the end, so that one big step would hold everything twice.
_STEP = 2**20


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """Return the decompressed body; what exceeds `limit` bytes is not inflated further.

    Raises `RequestError`: 415 for an unknown encoding, 413 beyond `limit`, 400 for damaged data.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in _WINDOW:
        raise RequestError(
            f"The content encoding {encoding[:40]!r} is not supported; use gzip or deflate.",
            code="unsupported_encoding",
        )
    try:
        return _inflate(body, name, limit)
    except zlib.error as error:
        raise invalid(f"The body is not valid {name} data.") from error


def _inflate(body: bytes, name: str, limit: int) -> bytes:
    inflater = zlib.decompressobj(_WINDOW[name])
    content, rest = bytearray(), body
    while not inflater.eof:
        part = inflater.decompress(rest, _STEP)
        rest = inflater.unconsumed_tail
        content += part
        if len(content) > limit:
            raise RequestError(f"The decompressed body exceeds {limit} bytes.", code="too_large")
        if not part and not rest:
            break
    if not inflater.eof or inflater.unused_data:
        raise invalid(f"The {name} body is cut off or followed by other data.")
    return bytes(content)


def compress(body: bytes, encoding: str) -> bytes:
    """Return the compressed body, fast rather than small."""
    return gzip.compress(body, compresslevel=1, mtime=0) if encoding == "gzip" else zlib.compress(body, 1)


def accepted(header: str) -> str | None:
    """Return the encoding to answer in: the first of gzip and deflate that the client names without q=0."""
    for item in header.lower().split(","):
        name, _, quality = item.replace(" ", "").partition(";")
        if name in _WINDOW and quality not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
            return name
    return None
