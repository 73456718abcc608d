from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasten.errors import RequestError
from hasten.wire.compression import accepted, compress, decompress

MB = 2**20
ENCODINGS = ("gzip", "deflate")


@pytest.mark.parametrize("encoding", ENCODINGS)
@settings(deadline=None)
@given(body=st.binary(max_size=2000))
def test_what_was_compressed_comes_back(encoding: str, body: bytes) -> None:
    assert decompress(compress(body, encoding), encoding, limit=2000) == body


@pytest.mark.parametrize("encoding", ENCODINGS)
@settings(deadline=None)
@given(body=st.binary(max_size=300))
def test_any_bytes_are_decompressed_or_refused(encoding: str, body: bytes) -> None:
    code = None
    try:
        decompress(body, encoding, limit=1000)
    except RequestError as error:
        code = error.code
    assert code in (None, "invalid", "too_large")


@pytest.mark.parametrize("encoding", ["", "identity", " Identity "])
def test_a_plain_body_passes_untouched(encoding: str) -> None:
    assert decompress(b"plain", encoding, limit=10) == b"plain"


@pytest.mark.parametrize("encoding", ["GZIP", " gzip "])
def test_the_encoding_is_known_in_any_case(encoding: str) -> None:
    assert decompress(gzip.compress(b"plain"), encoding, limit=10) == b"plain"


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "deflate, gzip", "x" * 5000])
def test_an_unknown_encoding_is_unsupported(encoding: str) -> None:
    with pytest.raises(RequestError) as caught:
        decompress(b"body", encoding, limit=10)
    assert caught.value.code == "unsupported_encoding"
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_body_of_exactly_the_limit_is_taken(encoding: str) -> None:
    assert len(decompress(compress(bytes(1000), encoding), encoding, limit=1000)) == 1000


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_one_byte_beyond_the_limit_is_too_large(encoding: str) -> None:
    with pytest.raises(RequestError) as caught:
        decompress(compress(bytes(1001), encoding), encoding, limit=1000)
    assert caught.value.code == "too_large"


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_bomb_is_refused_at_the_limit_and_never_unfolds(encoding: str) -> None:
    bomb = compress(bytes(256 * MB), encoding)
    tracemalloc.start()
    try:
        with pytest.raises(RequestError) as caught:
            decompress(bomb, encoding, limit=MB)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.code == "too_large"
    assert peak < 8 * MB


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        pytest.param(b"", "gzip", id="nothing"),
        pytest.param(b"plain text", "gzip", id="not compressed at all"),
        pytest.param(gzip.compress(b"a" * 100)[:-1], "gzip", id="cut off in the checksum"),
        pytest.param(gzip.compress(b"a" * 100)[:15], "gzip", id="cut off in the data"),
        pytest.param(gzip.compress(b"a") + b"b", "gzip", id="followed by other data"),
        pytest.param(gzip.compress(b"a") + gzip.compress(b"b"), "gzip", id="two members"),
        pytest.param(gzip.compress(b"a")[:-8] + bytes(8), "gzip", id="wrong checksum"),
        pytest.param(zlib.compress(b"a"), "gzip", id="deflate called gzip"),
        pytest.param(gzip.compress(b"a"), "deflate", id="gzip called deflate"),
        pytest.param(zlib.compress(b"a" * 100)[:-2], "deflate", id="deflate cut off"),
        pytest.param(zlib.compress(b"a") + b"b", "deflate", id="deflate followed by other data"),
    ],
)
def test_a_damaged_body_is_invalid(body: bytes, encoding: str) -> None:
    with pytest.raises(RequestError) as caught:
        decompress(body, encoding, limit=1000)
    assert caught.value.code == "invalid"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", None),
        ("identity", None),
        ("br, zstd", None),
        ("*", None),
        ("gzip", "gzip"),
        ("GZip", "gzip"),
        ("br, deflate, gzip", "deflate"),
        ("gzip;q=0.5", "gzip"),
        ("gzip ; q=0.5", "gzip"),
        ("gzip;q=0, deflate", "deflate"),
        ("gzip; q=0.000", None),
        ("gzip ; q=0", None),
        ("gzip;q=0.001", "gzip"),
    ],
)
def test_the_answer_uses_the_first_known_encoding_that_the_client_accepts(header: str, expected: str | None) -> None:
    assert accepted(header) == expected


@settings(deadline=None)
@given(header=st.text(max_size=100))
def test_any_accept_encoding_header_is_understood_or_ignored(header: str) -> None:
    assert accepted(header) in (None, *ENCODINGS)
