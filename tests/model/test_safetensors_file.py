"""Weights without a graph: read exactly, or refused with the reason."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from hasten.errors import ModelError
from hasten.model.safetensors_file import read_safetensors


def raw_file(path: Path, header: dict[str, Any] | bytes, data: bytes = bytes(16)) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_weights_come_back_as_they_were_saved(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = {
        "a.weight": rng.normal(size=(3, 4)).astype(np.float32),
        "half": rng.normal(size=5).astype(np.float16),
        "scalar": np.array(7, np.int64),
        "none": np.zeros((0, 3), np.uint8),
    }
    save_file(weights, tmp_path / "w.safetensors", metadata={"format": "np"})
    found = read_safetensors(tmp_path / "w.safetensors")
    assert sorted(found) == sorted(weights)
    for name, array in weights.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_bf16_weights_keep_their_values(tmp_path: Path) -> None:
    path = raw_file(tmp_path / "w", {"a": entry([2], 0, 4, "BF16")}, struct.pack("<HH", 0x3F80, 0xC000))
    np.testing.assert_array_equal(read_safetensors(path)["a"].astype(np.float32), [1.0, -2.0])


@pytest.mark.parametrize(
    "header",
    [
        {"a": entry([2], 8, 16)},
        {"a": entry([4], 0, 16), "b": entry([2], 8, 16)},
        {"a": entry([2], 0, 8)},
        {"a": entry([2], -8, 0)},
        {"a": entry([8], 0, 32)},
        {"a": entry([5], 0, 16)},
        {"a": entry([2**62, 2**62], 0, 16)},
        {"a": entry([4], 0, 16, "F33")},
        b'{"a":',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
    ids=["gap", "overlap", "trailing", "negative", "short", "shape", "overflow", "type", "cut", "deep", "not-utf8"],
)
def test_an_unsound_header_is_refused(tmp_path: Path, header: dict[str, Any] | bytes) -> None:
    with pytest.raises(ModelError, match="not a sound safetensors file"):
        read_safetensors(raw_file(tmp_path / "w", header))


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 100_000_001, 17])
def test_a_header_longer_than_the_file_or_the_limit_is_refused(tmp_path: Path, length: int) -> None:
    (tmp_path / "w").write_bytes(struct.pack("<Q", length) + b"{}")
    with pytest.raises(ModelError, match="not a sound"):
        read_safetensors(tmp_path / "w")


def test_a_name_given_twice_is_refused(tmp_path: Path) -> None:
    one, two = json.dumps(entry([2], 0, 8)), json.dumps(entry([4], 0, 16))
    path = raw_file(tmp_path / "w", f'{{"a":{one},"a":{two}}}'.encode())
    with pytest.raises(ModelError, match="names 'a' twice"):
        read_safetensors(path)


def test_a_type_that_numpy_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="element type that numpy does not have"):
        read_safetensors(raw_file(tmp_path / "w", {"a": entry([16], 0, 16, "F8_E4M3")}))


def test_a_missing_or_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        read_safetensors(tmp_path / "none")
    (tmp_path / "empty").touch()
    with pytest.raises(ModelError):
        read_safetensors(tmp_path / "empty")
