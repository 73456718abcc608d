"""Files of other kinds: told by what they are, under whatever name, and never unpickled."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save
from tests.engine.tflite import fully_connected

from hasten.errors import ModelError
from hasten.model.foreign import holds_program
from hasten.model.onnx_file import open_onnx
from hasten.model.open import open_model


class Canary:
    """Unpickling it makes a folder."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> object:
        return Path.mkdir, (self.place,)


def zipped(**entries: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return out.getvalue()


def tarred(content: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        entry = tarfile.TarInfo("data.pkl")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


@pytest.mark.parametrize("name", ["model.onnx", "model.pt", "model.pt2", "model.tflite", "model.xml", "model"])
def test_a_pickle_is_refused_under_every_name_and_not_run(tmp_path: Path, name: str) -> None:
    touched = tmp_path / "touched"
    raw = pickle.dumps(Canary(touched))
    kinds = {
        raw: "Python pickle",
        zipped(archive__data_dot_pkl=raw, archive__version=b"3"): "pickle|code",
        zlib.compress(raw): "zlib",
        zlib.compress(raw, 9): "zlib",
        gzip.compress(raw): "gzip",
        tarred(raw): "tar archive",
        pickle.dumps(Canary(touched), protocol=0): "not a complete ONNX file",
    }
    for content, words in kinds.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=words) as caught:
            open_model(tmp_path / name)
        assert caught.value.remedy
    assert not touched.exists()


@pytest.mark.parametrize(
    ("content", "words", "remedy"),
    [
        (b"\x89HDF\r\n\x1a\n", "HDF5 file .Keras", "tf2onnx"),
        (zipped(config_dot_json=b"{}", model_dot_weights_dot_h5=b"\x89HDF"), "Keras file", "tf2onnx"),
        (b"\x93NUMPY\x01\x00", "numpy array", "ONNX"),
        (zipped(x_dot_npy=b"\x93NUMPY"), "numpy arrays", "ONNX"),
        (zipped(some__code_dot_py=b""), "zip archive", "ONNX"),
        (b"PK\x03\x04broken", "zip archive", "ONNX"),
        (b"7z\xbc\xaf\x27\x1c\x00\x04", "7z archive", "Unpack"),
        (b"Rar!\x1a\x07", "RAR", "Unpack"),
        (b"\xfd7zXZ\x00", "xz", "Unpack"),
        (b"BZh9", "bzip2", "Unpack"),
        (b"GGUF\x03\x00\x00\x00", "GGUF", "ONNX"),
        (b"\x1c\x00\x00\x00ORTM", "ONNX Runtime's own format", "ONNX file"),
        (b"\x7fELF\x02", "program of this computer", "ONNX"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS", "git lfs pull"),
        (save({"w": np.ones(3, np.float32)}), "weights and no graph", "torch.export.save"),
        (b"\x00\x00", "not a complete ONNX file", "Export"),
        (b"<html>not found</html>", "ONNX", "Export"),
        (b"", "is empty", "again"),
    ],
)
def test_each_kind_of_file_is_named_with_what_to_give_instead(
    tmp_path: Path, content: bytes, words: str, remedy: str
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=words) as caught:
        open_model(path)
    assert remedy in caught.value.remedy


def test_a_tflite_file_is_no_onnx_file(tmp_path: Path) -> None:
    path = fully_connected(tmp_path / "m.onnx", np.ones((3, 4), np.float32), np.ones(3, np.float32))
    with pytest.raises(ModelError, match="TFLite"):
        open_onnx(path)


def test_a_program_is_told_from_other_archives_by_its_entries(tmp_path: Path) -> None:
    for name, content, expected in (
        ("program", zipped(m__models__model_dot_json=b"{}"), True),
        ("weights", zipped(m__data_dot_pkl=b""), False),
        ("broken", b"PK\x03\x04", False),
    ):
        (tmp_path / name).write_bytes(content)
        assert holds_program(tmp_path / name) is expected
