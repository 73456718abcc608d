"""Files that are made here from fetched ones: a stamp beside each says from what, by which recipe, and its hash.

The name carries a digest of the recipe and of the hashes of everything that went in, so that a new recipe or another
ingredient never meets an old file. The file itself may differ from machine to machine, because exporters and linear
algebra do; its own hash therefore stands in the stamp and not in the catalog.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from hasten.spec.progress import Listener, Progress
from hasten.spec.values import Value
from hasten.zoo.files import arriving, sha256_of, shelf
from hasten.zoo.items import Build

__all__ = ["Maker", "Stamp", "build", "built", "stamp_of"]

# A maker gets the files that it needs by name, the path to write to, and a listener.
Maker = Callable[[Mapping[str, Path], Path, Listener], None]


class Stamp(Value, frozen=True):
    """What a built file is: the recipe's number, the SHA-256 of each ingredient by name, and its own."""

    recipe: int
    sources: dict[str, str]
    sha256: str


def built(entry: Build, sources: Mapping[str, str]) -> Path | None:
    """Return the built file if it is here, made from `sources` (SHA-256 by name), and unaltered."""
    place = _place(entry, sources)
    stamp = stamp_of(place)
    whole = stamp is not None and place.is_file() and sha256_of(place) == stamp.sha256
    return place if whole else None


def build(entry: Build, files: Mapping[str, Path], sources: Mapping[str, str], listener: Listener) -> Path:
    """Make the file, stamp it, and return where it is. Raises what the maker raises, and leaves nothing then."""
    listener(Progress(stage=f"building {entry.name} ({entry.note})"))
    module, _, function = entry.maker.partition(":")
    maker: Maker = getattr(importlib.import_module(module), function)
    place = _place(entry, sources)
    with arriving(place) as path:
        maker(files, path, listener)
        stamp = Stamp(recipe=entry.recipe, sources=dict(sources), sha256=sha256_of(path))
        # The stamp first: without its file it says nothing, while a file without stamp would look altered.
        with arriving(_beside(place)) as beside:
            beside.write_bytes(msgspec.json.encode(stamp))
    return place


def stamp_of(place: Path) -> Stamp | None:
    """Return the stamp beside a built file; None where there is none that can be read."""
    try:
        return msgspec.json.decode(_beside(place).read_bytes(), type=Stamp)
    except (OSError, msgspec.MsgspecError):
        return None


def _place(entry: Build, sources: Mapping[str, str]) -> Path:
    text = f"{entry.recipe}\n" + "".join(f"{name} {sources[name]}\n" for name in sorted(sources))
    return shelf() / f"{entry.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}{entry.suffix}"


def _beside(place: Path) -> Path:
    return place.with_suffix(".json")
