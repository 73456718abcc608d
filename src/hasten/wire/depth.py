"""How deep a JSON text nests, found before a parser recurses into it: linear in time, block by block in memory.

Brackets are counted with numpy over blocks; inside strings they do not count. Used by the codecs.
"""

from __future__ import annotations

import numpy as np

from hasten.wire.base import invalid

__all__ = ["check_depth"]

_BLOCK = 2**18


def check_depth(text: bytes, limit: int) -> None:
    """Raise `RequestError` (invalid) where JSON `text` nests arrays and objects deeper than `limit`."""
    if text.count(b"[") + text.count(b"{") > limit and _depth(_without_escapes(text)) > limit:
        raise invalid(f"The JSON is nested deeper than {limit} levels.")


def _without_escapes(text: bytes) -> bytes:
    """Leave only those quotes that open or close a string; runs of backslashes pair up from the left, as in JSON."""
    return text.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in text else text


def _depth(text: bytes) -> int:
    """Return the deepest nesting. A bracket after an odd number of quotes stands in a string."""
    codes = np.frombuffer(text, np.uint8)
    deepest = level = quotes = 0
    for start in range(0, len(codes), _BLOCK):
        block = codes[start : start + _BLOCK]
        quoted = np.cumsum(block == ord('"'), dtype=np.int64) + quotes
        # "[" 0x5B and "{" 0x7B, "]" 0x5D and "}" 0x7D differ in the bit 0x20 only.
        folded = block & 0xDF
        steps = (folded == 0x5B).astype(np.int64) - (folded == 0x5D).astype(np.int64)
        levels = np.cumsum(steps * (quoted % 2 == 0)) + level
        deepest = max(deepest, int(levels.max()))
        level, quotes = int(levels[-1]), int(quoted[-1]) % 2
    return deepest
