from __future__ import annotations

import gzip
import itertools
import zlib
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.errors import RequestError
from hasten.wire import grpc_framing
from hasten.wire.base import STATUS
from hasten.wire.grpc_framing import GRPC_STATUS, MessageReader, error_trailers, frame, timeout_us

LIMIT = 1000


def framed(message: bytes) -> bytes:
    return b"".join(frame([message]))


@given(st.lists(st.binary(max_size=50), max_size=5), st.lists(st.integers(0, 300), max_size=8))
def test_messages_come_out_as_they_went_in_however_they_were_cut(messages: list[bytes], cuts: list[int]) -> None:
    data = b"".join(map(framed, messages))
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    reader, found = MessageReader(LIMIT), list[bytes]()
    for begin, end in itertools.pairwise(edges):
        reader.feed(data[begin:end])
        while (message := reader.next()) is not None:
            found.append(message)
    assert found == messages
    assert reader.buffered == 0


@given(st.lists(st.binary(max_size=200), max_size=5), st.lists(st.integers(0, 1000), max_size=12), st.booleans())
def test_a_long_message_is_put_together_while_it_arrives(messages: list[bytes], cuts: list[int], looked: bool) -> None:
    data = b"".join(map(framed, messages))
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    with mock.patch.object(grpc_framing, "_LONG", 20):
        reader, found = MessageReader(LIMIT), list[bytes | memoryview]()
        for begin, end in itertools.pairwise(edges):
            if reader.feed(data[begin:end]) or looked:
                while (message := reader.next()) is not None:
                    found.append(message)
            assert reader.buffered == end - sum(5 + len(message) for message in found)
    assert found == messages
    assert all(isinstance(message, bytes) or message.readonly for message in found)


def test_a_length_alone_reserves_no_memory() -> None:
    reader = MessageReader(2**40)
    reader.feed(framed(b"")[:1] + (2**31).to_bytes(4, "big") + bytes(100))
    assert not reader.look()
    assert reader._body is None


@given(st.binary(max_size=40))
def test_noise_is_messages_or_the_client_s_fault(data: bytes) -> None:
    reader = MessageReader(LIMIT)
    reader.feed(data)
    try:
        while reader.next() is not None:
            pass
    except RequestError as error:
        assert error.code in ("invalid", "too_large")


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_compressed_message_is_inflated_within_the_limit(encoding: str, compress: object) -> None:
    assert callable(compress)
    for size, good in ((LIMIT, True), (LIMIT + 1, False)):
        body = compress(bytes(size))
        reader = MessageReader(LIMIT, encoding)
        reader.feed(b"\1" + len(body).to_bytes(4, "big") + body)
        if good:
            assert reader.next() == bytes(size)
        else:
            with pytest.raises(RequestError) as caught:
                reader.next()
            assert caught.value.code == "too_large"


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        (b"1H", 3_600_000_000),
        (b"2M", 120_000_000),
        (b"3S", 3_000_000),
        (b"4m", 4000),
        (b"5u", 5),
        (b"99999999n", 99_999),
    ],
)
def test_a_timeout_is_read_in_its_unit(text: bytes, microseconds: int) -> None:
    assert timeout_us(text) == microseconds


@pytest.mark.parametrize("text", [b"0S", b"1n"])
def test_a_timeout_of_nothing_is_not_no_timeout(text: bytes) -> None:
    assert timeout_us(text) == 1


def test_every_error_code_has_a_status_of_its_own_in_grpc() -> None:
    assert set(STATUS) <= set(GRPC_STATUS)
    assert {code for code, status in GRPC_STATUS.items() if status == 14} == {"unavailable"}


def test_words_that_a_header_cannot_carry_are_percent_encoded() -> None:
    trailers = dict(error_trailers(RequestError("100 % äh\n", code="invalid")))
    assert trailers[b"grpc-message"] == b"100 %25 %C3%A4h%0A"
    assert b"grpc-retry-pushback-ms" not in trailers
