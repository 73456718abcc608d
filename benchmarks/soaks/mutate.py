"""Bytes changed at random: flip, cut, repeat, insert. The soak and the short test of fuzz share it."""

from __future__ import annotations

import random

__all__ = ["mutated"]

_WORDS = (b"-1", b"0", b"null", b"1e999", b"[", b'"', b"\r\n", b"18446744073709551616")


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return the bytes with one to four changes."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(5):
            case 0 if changed:
                changed[at % len(changed)] ^= 1 << rng.randrange(8)
            case 1:
                del changed[at : at + rng.randint(1, 16)]
            case 2:
                changed[at:at] = changed[at : at + rng.randint(1, 64)] * rng.randint(1, 8)
            case 3:
                changed[at:at] = rng.randbytes(rng.randint(1, 16))
            case _:
                changed[at:at] = rng.choice(_WORDS)
    return bytes(changed)
