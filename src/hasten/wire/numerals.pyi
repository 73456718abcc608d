"""Flat lists of JSON numbers, read without an object for each. Compiled (numerals.cpp), and only there beside the
compiled request path: whoever imports it must do without, too.
"""

import msgspec

def read(text: bytes | memoryview | msgspec.Raw, letter: str, count: int, /) -> bytes | None:
    """Return `count` numbers, packed little-endian, of the type that the struct module writes with this letter (one of
    fdbBhHiIqQ). None where `text` is anything but a flat JSON list of so many that fit the type; also for some that
    are, such as integers of twenty digits.
    """
