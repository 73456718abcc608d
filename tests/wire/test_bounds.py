from __future__ import annotations

import gzip
import json
import tracemalloc

import pytest

from hasten.errors import RequestError
from hasten.spec.signature import Signature
from hasten.spec.tensor import TensorSpec
from hasten.wire.compression import decompress
from hasten.wire.oip_http import OipHttp

MB = 2**20
SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", dtype="FP32", shape=("batch",)),),
    outputs=(TensorSpec(name="y", dtype="FP32", shape=("batch",)),),
)


def test_a_bomb_is_refused_without_inflating_past_the_limit() -> None:
    bomb = gzip.compress(b"\0" * (32 * MB))
    tracemalloc.start()
    with pytest.raises(RequestError) as caught:
        decompress(bomb, "gzip", 16 * MB)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.code == "too_large"
    # Twice the limit was needed when zlib joined its blocks itself.
    assert peak < 24 * MB


def test_a_body_of_exactly_the_limit_passes() -> None:
    assert len(decompress(gzip.compress(b"\0" * MB), "gzip", MB)) == MB


def test_an_endless_input_name_is_not_sent_back() -> None:
    head = {"name": "n" * MB, "shape": [1], "datatype": "FP32", "data": [1]}
    with pytest.raises(RequestError) as caught:
        OipHttp().decode("m", "", {}, json.dumps({"inputs": [head]}).encode(), SIGNATURE)
    assert caught.value.code == "invalid"
    assert len(caught.value.message) < 300
