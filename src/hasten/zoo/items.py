"""The words of the zoo: packages, the parts that are taken out of them, what is built from parts, and specimens.

Items are files: a `Part` comes out of a published package and is pinned by hash, a `Build` is made here from other
items and is stamped. Specimens name the items that they need.
"""

from __future__ import annotations

from typing import Literal

from hasten.spec.values import Value

__all__ = ["Base", "Build", "Package", "Part", "Specimen", "View"]


class Package(Value, frozen=True):
    """A published package. `platform` is the pip platform to ask for where the package has no pure-Python wheel: the
    wanted file is the same in each, and one of them is pinned.
    """

    source: Literal["PyPI", "npm", "Debian"]
    name: str
    version: str
    platform: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.source})"


class Part(Value, frozen=True):
    """One file of a package. `size` in bytes. Where a file stands at `installed` already, it is used instead."""

    name: str
    package: Package
    member: str
    sha256: str
    size: int
    licence: str
    installed: str = ""


class Build(Value, frozen=True):
    """A file made here by `maker` (module:function) from the items that it `needs`. `recipe` counts up whenever the
    maker changes what it makes. `note` says how long it takes.
    """

    name: str
    suffix: str
    maker: str
    needs: tuple[str, ...]
    recipe: int
    note: str


class Base(Value, frozen=True):
    """What the trained model reaches on the data, measured by benchmarks/zoo_base.py, with a 95 % interval.

    `wanted` is what was published or found before for this pairing, where there is such a figure.
    """

    metric: str
    value: float
    low: float
    high: float
    n: int
    wanted: float | None = None


class View(Value, frozen=True):
    """One set of labelled data: `maker` (module:function) gets the paths of the items that it `needs`, by name."""

    maker: str
    needs: tuple[str, ...]
    samples: str
    note: str
    base: Base | None = None


class Specimen(Value, frozen=True):
    """A sample model with its data. `model` is an item; empty where there is data only. `views` are the sets of data
    by name; the one called "" is meant by `zoo:NAME`, the others by `zoo:NAME/VIEW`.
    """

    name: str
    task: str
    licence: str
    model: str
    views: dict[str, View]
