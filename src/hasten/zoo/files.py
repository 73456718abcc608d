"""Where the zoo keeps its files, how they are checked, and how they get there whole."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from hasten.errors import StorageError

__all__ = ["arriving", "cache_folder", "sha256_of", "shelf"]


def cache_folder() -> Path:
    """Where sample models and data are kept: HASTEN_CACHE_DIR, or the platform's own place for caches."""
    return Path(os.environ.get("HASTEN_CACHE_DIR") or platformdirs.user_cache_dir("hasten"))


def shelf() -> Path:
    """The folder of the zoo inside the cache."""
    return cache_folder() / "zoo"


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, which is never held in memory whole."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def arriving(place: Path) -> Generator[Path]:
    """Yield a path to write to; it is moved to `place` when the block ends well, and vanishes otherwise.

    Raises `StorageError` where the folder cannot be written.
    """
    with _writable(place.parent):
        place.parent.mkdir(parents=True, exist_ok=True)
        # In the same folder, so that the move is a rename: nobody ever sees half a file.
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=".arriving-") as folder:
            path = Path(folder) / place.name
            yield path
            os.replace(path, place)


@contextmanager
def _writable(folder: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{folder} cannot be written: {error.strerror or error}.",
            remedy="Free some space, or set HASTEN_CACHE_DIR to another folder.",
        ) from error
