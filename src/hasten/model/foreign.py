"""Files that hasten does not open, told by their first bytes whatever they are called, and what to give instead.

Pickles and everything that can carry one are never loaded: opening such a file runs the code in it. Nothing here reads
more than the first bytes and, of a zip archive, the table of its entries.
"""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

from hasten.errors import ModelError

__all__ = ["HEAD", "holds_program", "refuse_foreign"]

# How many first bytes `refuse_foreign` looks at.
HEAD = 4096
_PICKLE = "which hasten never loads because opening it can run any code"
_TO_ONNX = "Export it as ONNX and give that file."
_TO_PROGRAM = (
    "In Python, save a program: torch.export.save(torch.export.export(model.eval(), inputs), 'model.pt2'); "
    "or export it as ONNX."
)
_PLAIN = "Unpack it and give the model file in it."
_WEIGHTS = (
    "Give the model itself: an ONNX file, or the PyTorch module that these weights belong to, as a program "
    "(torch.export.save)."
)
# What a file begins with, what it is, and what to do.
_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (b"\x80", f"a Python pickle, {_PICKLE}", _TO_PROGRAM),
    (b"\x89HDF", "an HDF5 file (Keras), which can carry code in its layers", "Export it as ONNX (tf2onnx) or TFLite."),
    (b"\x93NUMPY", "a numpy array and no model", _TO_ONNX),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive, which can carry pickles", _PLAIN),
    (b"\x1f\x8b", "compressed with gzip; archives can carry pickles", _PLAIN),
    (b"\x78\x9c", f"compressed with zlib (a joblib pickle, perhaps, {_PICKLE})", _TO_ONNX),
    (b"\x78\x01", f"compressed with zlib (a joblib pickle, perhaps, {_PICKLE})", _TO_ONNX),
    (b"\x78\xda", f"compressed with zlib (a joblib pickle, perhaps, {_PICKLE})", _TO_ONNX),
    (b"BZh", "compressed with bzip2; archives can carry pickles", _PLAIN),
    (b"\xfd7zXZ\x00", "compressed with xz; archives can carry pickles", _PLAIN),
    (b"Rar!", "a RAR archive, which can carry pickles", _PLAIN),
    (b"GGUF", "a GGUF file: weights of a language model and no graph", _TO_ONNX),
    (b"\x7fELF", "a program of this computer and no model", _TO_ONNX),
    (b"version https://git-lfs", "a pointer to a file in Git LFS, not the file itself", "Fetch it with: git lfs pull"),
)
_LARGEST_HEADER = 100_000_000


def refuse_foreign(path: Path, head: bytes) -> None:
    """Raise `ModelError` if `head`, the first bytes of `path`, shows a kind of file that hasten does not open."""
    if not head:
        raise ModelError(f"{path} is empty.", remedy="Export or download it again.")
    found = _zip(path) if head.startswith(b"PK\x03\x04") else _plain(head)
    if found is not None:
        raise ModelError(f"{path} is {found[0]}.", remedy=found[1])


def holds_program(path: Path) -> bool:
    """Whether a zip archive is what `torch.export.save` writes; its contents are not looked at."""
    names = _names(path)
    return any(name.endswith("/models/model.json") for name in names)


def _plain(head: bytes) -> tuple[str, str] | None:
    if head[4:8] == b"TFL3":
        return "a TFLite model", "Give it as it is to hasten, not as ONNX."
    if head[4:8] == b"ORTM":
        return "a model in ONNX Runtime's own format, fixed to one version of it", "Give the ONNX file it was made of."
    if head[257:262] == b"ustar":
        return "a tar archive, which can carry pickles", _PLAIN
    if _is_safetensors(head):
        return "a safetensors file: it holds weights and no graph", _WEIGHTS
    return next(((what, remedy) for magic, what, remedy in _MAGIC if head.startswith(magic)), None)


def _is_safetensors(head: bytes) -> bool:
    """The length of the header in 8 bytes, then the header, which is JSON."""
    return len(head) > 8 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] <= _LARGEST_HEADER


def _zip(path: Path) -> tuple[str, str]:
    names = _names(path)
    if "model.weights.h5" in names:
        return "a Keras file, which can carry code in its layers", "Export it as ONNX (tf2onnx) or TFLite."
    if any(name.endswith((".pkl", ".pickle")) for name in names):
        return f"a zip archive of Python pickles (a PyTorch .pt file, perhaps), {_PICKLE}", _TO_PROGRAM
    if names and all(name.endswith(".npy") for name in names):
        return "a zip archive of numpy arrays and no model", _TO_ONNX
    return "a zip archive (a PyTorch .pt file, perhaps), which can carry pickles", _TO_ONNX


def _names(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        # A damaged archive has no table of entries; what it began with is enough to refuse it.
        return []
