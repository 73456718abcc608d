"""What is read straight is what is read by way of a list, to the bit; anything else is left to that."""

from __future__ import annotations

import json
import os
import struct
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hasten.errors import RequestError
from hasten.spec.tensor import DType
from hasten.wire.tensors import from_flat_list

LETTERS: dict[str, DType] = {
    "f": "FP32", "d": "FP64", "b": "INT8", "h": "INT16", "i": "INT32", "q": "INT64",
    "B": "UINT8", "H": "UINT16", "I": "UINT32", "Q": "UINT64",
}  # fmt: skip
FLOATS = "fd"
EXAMPLES = settings(deadline=None, max_examples=300)


@pytest.fixture(scope="module")
def numerals() -> Any:
    if os.environ.get("HASTEN_NATIVE") != "1":
        pytest.skip("compiled only, see make native-test")
    from hasten.wire import numerals

    return numerals


def near_half_way(value: float, aside: int) -> str:
    """A decimal of nineteen digits between a float32 and the next, where a rounding too many would be seen."""
    half = (Decimal(value) + Decimal(float(np.nextafter(np.float32(value), np.float32(np.inf))))) / 2
    places = 19 - len(str(int(half)))
    return f"{half + aside * Decimal(10) ** -places:.{places}f}"


# Near every edge of the grammar and of the types: long, short, with exponents, not quite numbers.
DIGITS = st.text("0123456789", min_size=1, max_size=24)
GRAMMAR = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "-", "-", "+"]),
        st.one_of(st.sampled_from(["0", "00", "1", ""]), DIGITS),
        st.one_of(st.just(""), st.builds(".{}".format, DIGITS), st.just(".")),
        st.one_of(st.just(""), st.builds("{}{}".format, st.sampled_from(["e", "E+", "e-", "e"]), DIGITS)),
    ),
)
FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
NUMBERS = st.one_of(
    GRAMMAR,
    st.integers(-(2**65), 2**65).map(str),
    st.sampled_from([2**k + d for k in (7, 8, 15, 16, 31, 32, 53, 63, 64) for d in (-1, 0, 1)]).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    FLOAT32.map(repr),
    st.builds(near_half_way, st.floats(2.0**-10, 2.0**22, width=32), st.integers(-2, 2)),
    st.tuples(st.integers(0, 10**19), st.integers(0, 25)).map(lambda pair: f"{pair[0] / 10 ** pair[1]:.{pair[1]}f}"),
    st.sampled_from(["-0", "-0.0", "-0e0", "1e400", "1e-400", "3.4028235677973366e38", "3.4028235e38", "5e-324"]),
    st.sampled_from(["NaN", "Infinity", "true", "null", '"1"', "[1]", "0x1", "1_0", "1,", ""]),
)
BLANKS = st.text(" \t\r\n", max_size=2)


@st.composite
def lists(draw: st.DrawFn) -> str:
    numbers = draw(st.lists(st.builds("{}{}{}".format, BLANKS, NUMBERS, BLANKS), max_size=4))
    return draw(BLANKS) + "[" + ",".join(numbers) + "]" + draw(BLANKS)


def by_list(dtype: DType, count: int, text: bytes) -> bytes | None:
    """The bytes as they come by way of a list, or None where that refuses or knows no flat list."""
    try:
        array = from_flat_list("x", dtype, (count,), text)
    except (RequestError, msgspec.DecodeError):
        return None
    return None if array is None else array.tobytes()


@EXAMPLES
@given(letter=st.sampled_from(sorted(LETTERS)), text=lists())
@example(letter="f", text="[16777217.0]")
@example(letter="f", text="[51867.83007812499999, 976738.2812500000001]")
@example(letter="f", text="[1.00000017881393432617187499]")
@example(letter="d", text="[9007199254740993]")
@example(letter="b", text="[-128]")
def test_what_is_read_is_what_a_list_gives(numerals: Any, letter: str, text: str) -> None:
    count = text.count(",") + 1 if text.strip(" \t\r\n[]") else 0
    read = numerals.read(text.encode(), letter, count)
    assert read is None or read == by_list(LETTERS[letter], count, text.encode())


@EXAMPLES
@given(letter=st.sampled_from(sorted(LETTERS)), text=st.text('[]-+.eE0123456789 ,"{}\x00', max_size=12))
def test_what_is_no_list_of_numbers_is_never_read(numerals: Any, letter: str, text: str) -> None:
    for count in range(4):
        read = numerals.read(text.encode(), letter, count)
        assert read is None or read == by_list(LETTERS[letter], count, text.encode())


@EXAMPLES
@given(values=st.lists(FLOAT32, max_size=50), indent=st.sampled_from([None, 1]))
def test_floats_as_clients_write_them_are_read_straight(numerals: Any, values: list[float], indent: int | None) -> None:
    """Also those with sixteen and seventeen digits, as a float has that was a float32 before."""
    text = json.dumps(values, indent=indent).encode()
    assert numerals.read(text, "f", len(values)) == struct.pack(f"<{len(values)}f", *values)
    assert numerals.read(text, "d", len(values)) == struct.pack(f"<{len(values)}d", *values)


@pytest.mark.parametrize("letter", [letter for letter in LETTERS if letter not in FLOATS])
def test_integers_are_read_straight_up_to_their_limits(numerals: Any, letter: str) -> None:
    most = 2 ** (8 * struct.calcsize(letter) - (letter in "bhiq")) - 1
    values = [0, 1, min(most, 10**19 - 1)] + ([-1, -most] if letter in "bhiq" else [])
    text = json.dumps(values).encode()
    assert numerals.read(text, letter, len(values)) == struct.pack(f"<{len(values)}{letter}", *values)
    assert numerals.read(b"[%d]" % (most + 1), letter, 1) is None


def test_a_shape_cannot_ask_for_more_memory_than_its_data_brought(numerals: Any) -> None:
    for count in (2, 2**60, 2**70, -1, -(2**70)):
        assert numerals.read(b"[1]", "d", count) is None


def test_views_and_parts_of_messages_are_read_as_bytes_are(numerals: Any) -> None:
    text = b"[1.5,-2]"
    expected = struct.pack("<2f", 1.5, -2)
    assert numerals.read(memoryview(b"x" + text)[1:], "f", 2) == expected
    assert numerals.read(msgspec.Raw(text), "f", 2) == expected


@pytest.mark.parametrize(
    "given", [(), (b"[]", "f"), (b"[]", "ff", 0), (b"[]", 1, 0), (b"[]", "f", 0.5), (None, "f", 0), (b"[]", "e", 0)]
)
def test_wrong_arguments_are_errors_and_no_crash(numerals: Any, given: tuple[Any, ...]) -> None:
    with pytest.raises((TypeError, ValueError)):
        numerals.read(*given)
