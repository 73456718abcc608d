from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasten.errors import RequestError
from hasten.wire.messages import message_type
from hasten.wire.protobuf import STRUCTURE_BYTES, check_wire, shape_of, varint

REQUEST = message_type("inference.ModelInferRequest")
SHAPE = shape_of(REQUEST.DESCRIPTOR, frozenset({"inference.ModelInferRequest.raw_input_contents"}))
RAW = b"\x3a"


def code(body: bytes) -> str:
    with pytest.raises(RequestError) as caught:
        check_wire(body, SHAPE)
    assert len(caught.value.message) < 300
    return caught.value.code


def a_message() -> bytes:
    return REQUEST(
        model_name="m",
        parameters={"a": {"double_param": 0.5}, "b": {"uint64_param": 2**63}, "c": {"bool_param": True}},
        inputs=[{"name": "x", "shape": [1, 2**40], "contents": {"fp32_contents": [1.0], "int_contents": [-1]}}],
        outputs=[{"name": "y"}],
        raw_input_contents=[b"abc"],
    ).SerializeToString()


def test_a_message_of_every_kind_of_field_passes() -> None:
    check_wire(a_message(), SHAPE)


def test_tensor_data_is_not_counted_as_structure() -> None:
    check_wire(REQUEST(raw_input_contents=[bytes(2 * STRUCTURE_BYTES)]).SerializeToString(), SHAPE)


@pytest.mark.parametrize("cut", range(1, len(a_message())))
def test_no_message_that_is_cut_off_crashes_the_walk(cut: int) -> None:
    body = a_message()[:cut]
    try:
        check_wire(body, SHAPE)
    except RequestError as error:
        assert error.code == "invalid"
    else:
        # What ends between two fields is a whole message.
        REQUEST.FromString(body)


@pytest.mark.parametrize(
    "body",
    [
        b"\x08\x01",  # a number where a name belongs
        b"\x7a\x00",  # field 15, which the protocol does not have
        b"\x82\x01\x00",  # field 16
        b"\x00",  # field 0
        b"\x0f",  # wire type 7
        b"\x2b\x2c",  # a group
        b"\x2a\x02\x7a\x00",  # an unknown field inside an input
        b"\x0a\xff\xff\xff\xff\xff\x01",  # a length of six bytes
        b"\x0a\xff\xff\xff\xff\x0f",  # a length of 4 GiB
        b"\x2a\x0c\x18" + b"\xff" * 11,  # a number without end
        b"\x2a\x03\x0a\x05a",  # an inner field that is longer than its message
        b"\x2a\x03\x0a\x02ab",  # the same, with the bytes there
    ],
)
def test_bytes_that_the_protocol_does_not_know_are_refused(body: bytes) -> None:
    assert code(body) == "invalid"


@pytest.mark.parametrize(
    "body",
    [
        b"\x2b" * 10_000 + b"\x2c" * 10_000,
        b"\x7b" * 10_000,
        b"\xfa\x07\x00" * 10_000,
        b"\x2a\xa0\x9c\x01" + b"\x7a\x00" * 10_000,
    ],
    ids=["nested groups", "unclosed groups", "unknown fields", "unknown fields in an input"],
)
def test_a_flood_is_refused_at_its_first_byte(body: bytes) -> None:
    assert code(body) == "invalid"


@pytest.mark.parametrize("entry", [b"\x2a\x00", b"\x32\x00", b"\x3a\x00", b"\x22\x00", b"\x0a\x00"])
def test_a_flood_of_empty_fields_is_refused_before_objects_are_made_of_them(entry: bytes) -> None:
    assert code(entry * (STRUCTURE_BYTES // 2 + 1)) == "too_large"


def test_a_flood_of_dimensions_is_refused() -> None:
    shape = b"\x1a" + varint(2 * STRUCTURE_BYTES) + b"\1" * (2 * STRUCTURE_BYTES)
    assert code(b"\x2a" + varint(len(shape)) + shape) == "too_large"


@settings(deadline=None)
@given(st.binary(max_size=64))
def test_what_passes_the_walk_can_be_walked_by_the_parser_too(body: bytes) -> None:
    try:
        check_wire(body, SHAPE)
    except RequestError as error:
        assert error.code == "invalid"
    else:
        try:
            REQUEST.FromString(body)
        except Exception as error:
            # Strings that are not UTF-8 are the parser's to find.
            assert type(error).__name__ == "DecodeError"


@given(st.integers(0, 2**35 - 1))
def test_a_length_is_written_as_it_is_read(number: int) -> None:
    message = message_type("inference.StatisticDuration")
    assert message.FromString(b"\x08" + varint(number)).count == number
