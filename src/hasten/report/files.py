"""Writing one file, all or nothing: a reader never sees half of it, whatever happens."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hasten.errors import StorageError

__all__ = ["check_writable", "write_whole"]


def check_writable(path: Path, option: str) -> None:
    """Raise `StorageError` before long work if `path` cannot be written; `option` is what the user would change."""
    try:
        if path.is_dir():
            raise IsADirectoryError(21, "it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise _unwritable(path, error, option) from error


def write_whole(path: Path, content: bytes, option: str = "--out") -> None:
    """Write `content` to `path` in one step. Raises `StorageError`."""
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        Path(temporary).chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise _unwritable(path, error, option) from error


def _unwritable(path: Path, error: OSError, option: str) -> StorageError:
    return StorageError(f"{path} cannot be written: {error.strerror}.", remedy=f"Choose another {option}.")
