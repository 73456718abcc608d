"""Labelled files for the file-type classifier: what a Python installation holds, labelled by extensions that can
be trusted.

Which files there are differs from machine to machine, so the data's digest differs too; evidence records it.
Left out are extensions that stand for several types (.h, .xml) or for anything (.txt: half of those files are lists,
configurations or tables), and the folders of tests, whose files are often broken on purpose. Each type is capped so
that Python files do not drown the rest.
"""

from __future__ import annotations

import os
import re
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hasten.data.dataset import Arrays, Dataset
from hasten.errors import DataError

__all__ = ["LABELS", "features", "file_types"]

# Extension -> position of its type in `target_labels_space` of the model's configuration (standard_v3_3).
LABELS: dict[str, int] = {
    ".bat": 12, ".c": 17, ".cmake": 22, ".cpp": 26, ".css": 31, ".csv": 32, ".so": 46, ".f90": 55, ".gif": 58,
    ".gz": 64, ".html": 71, ".ini": 76, ".ipynb": 78, ".java": 81, ".js": 83, ".jpg": 86, ".json": 87, ".md":
    100, ".npy": 110, ".npz": 111, ".onnx": 120, ".pdf": 127, ".exe": 128, ".pem": 129, ".png": 133, ".proto":
    141, ".py": 143, ".pyc": 144, ".rst": 153, ".rs": 156, ".sh": 161, ".svg": 172, ".toml": 181, ".ttf": 184,
    ".ts": 187, ".wav": 195, ".woff": 200, ".woff2": 201, ".yaml": 209, ".yml": 209, ".zip": 212,
}  # fmt: skip

_ENDS, _BLOCK, _PADDING = 1024, 4096, 256
_SMALLEST = 16
# Bytes of a file that a report shows.
_SHOWN = 160
_TESTS = re.compile(r"tests?|test_.*|.*_tests?", re.IGNORECASE)


def file_types(files: Mapping[str, Path], *, per_type: int = 80, limit: int = 2400) -> Dataset:
    """Return files of this Python installation with their types as labels; nothing need be fetched for that.

    Raises `DataError` where the installation holds too few files.
    """
    found = _collect(per_type)[:limit]
    if len(found) < 100:
        raise DataError("This Python installation holds too few labelled files.", remedy="Give data of your own.")
    kept = _Files(found)

    def describe(index: int) -> str:
        return f"{found[index].name}: {_printable(kept[index]['bytes'])}"

    return Dataset(
        name=f"file types ({len(found)} files of this machine)",
        inputs=kept,
        labels=[LABELS[path.suffix] for path in found],
        metric="top1",
        # Two extensions of one type: the shorter one names it.
        class_names={LABELS[suffix]: suffix[1:] for suffix in sorted(LABELS, key=len, reverse=True)},
        describe=describe,
    )


def features(content: bytes) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Return the model's 2048 inputs: the first and last 1024 bytes of the stripped ends, padded with 256.

    The start is stripped on the left and padded on the right; the end is stripped on the right and padded on the
    left, each within the outermost 4096 bytes. Source: the model's published configuration.
    """
    first = content[:_BLOCK].lstrip()[:_ENDS]
    last = content[-_BLOCK:].rstrip()[-_ENDS:]
    row = np.full(2 * _ENDS, _PADDING, dtype=np.int32)
    row[: len(first)] = np.frombuffer(first, dtype=np.uint8)
    if last:
        row[2 * _ENDS - len(last) :] = np.frombuffer(last, dtype=np.uint8)
    return row


def _printable(row: np.ndarray[Any, Any]) -> str:
    """The first bytes of the model's input as a person could read them."""
    return "".join(chr(value) if 32 <= value < 127 else "·" for value in row[:_SHOWN].tolist() if value != _PADDING)


class _Files(Sequence[Arrays]):
    """Only the ends of each file are kept, so that files may change or vanish while we measure."""

    def __init__(self, paths: list[Path]) -> None:
        self._rows = [features(_ends_of(path)) for path in paths]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return {"bytes": self._rows[index]}


def _ends_of(path: Path) -> bytes:
    with path.open("rb") as stream:
        head = stream.read(_BLOCK)
        size = path.stat().st_size
        if size <= 2 * _BLOCK:
            return head + stream.read()
        stream.seek(size - _BLOCK)
        return head + stream.read()


def _collect(per_type: int) -> list[Path]:
    """Files by type, spread evenly over each type's sorted list, so that one package does not stand for all."""
    found: dict[str, list[Path]] = {}
    for root in sorted({sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")}):
        for path in _readable(Path(root)):
            found.setdefault(path.suffix, []).append(path)
    chosen: list[Path] = []
    for suffix in sorted(found):
        paths = sorted(found[suffix])
        step = max(1, len(paths) // per_type)
        chosen += paths[::step][:per_type]
    return chosen


def _readable(root: Path) -> Iterator[Path]:
    # Names first: an installation holds tens of thousands of files, and looking at each takes long.
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if not _TESTS.fullmatch(name)]
        for name in names:
            if os.path.splitext(name)[1] in LABELS:
                path = Path(folder, name)
                if path.is_file() and not path.is_symlink() and path.stat().st_size >= _SMALLEST:
                    yield path
