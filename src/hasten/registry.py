"""Names to lazy factories: how an extension is found without importing it.

A built-in is one row in a table: name, `module:attribute`, the distribution that it needs and the extra that brings it.
A third party adds one by an entry point in the group `hasten.<room>`. Nothing heavy is imported before `get`, and where
an import fails the error says what to type. Sources: the lazy registry of mini-sglang, the entry points of PyPA.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from hasten.errors import MissingError, UsageError

__all__ = ["Entry", "Registry"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One name in a registry. `requires` is an importable module, `extra` the pip extra that brings it."""

    name: str
    target: str
    requires: str | None = None
    extra: str | None = None
    hidden: bool = False
    third_party: bool = False

    @property
    def install_hint(self) -> str:
        """What to type to get what is missing."""
        return f"Install it with: pip install 'hasten[{self.extra}]'" if self.extra else ""

    @property
    def installed(self) -> bool:
        """Whether the required module can be found, without importing it."""
        return self.requires is None or importlib.util.find_spec(self.requires) is not None


class Registry(Generic[T]):
    """The names of one extension point, such as `engine`.

    `get(name)` imports and constructs, once; `entries()` lists without importing. Whatever a third party's code throws
    then is a `MissingError`, so that its breakage costs that name only.
    """

    def __init__(self, room: str, builtin: Iterable[Entry]) -> None:
        self._room = room
        self._entries = {entry.name: entry for entry in builtin}
        self._made: dict[str, T] = {}
        self._scanned = False

    def entries(self, *, hidden: bool = False) -> list[Entry]:
        """All known names: built-ins in their order, then third parties' by name."""
        self._scan()
        return [entry for entry in self._entries.values() if hidden or not entry.hidden]

    def names(self) -> list[str]:
        """The names a user may choose from."""
        return [entry.name for entry in self.entries()]

    def entry(self, name: str) -> Entry:
        """Return the entry called `name`. Raises `UsageError` with the known names."""
        self._scan()
        found = self._entries.get(name)
        if found is None:
            raise UsageError(
                f"There is no {self._room} called {name!r}.",
                remedy=f"Choose one of: {', '.join(self.names())}.",
            )
        return found

    def get(self, name: str) -> T:
        """Return the one instance called `name`.

        Raises `UsageError` for an unknown name and `MissingError`, with what to type, when its package is absent.
        """
        if name not in self._made:
            self._made[name] = self._make(self.entry(name))
        return self._made[name]

    def _make(self, entry: Entry) -> T:
        if not entry.installed:
            raise MissingError(
                f"The {self._room} {entry.name!r} needs the package {entry.requires!r}, which is not installed.",
                remedy=entry.install_hint,
            )
        try:
            module, _, attribute = entry.target.partition(":")
            factory: Any = getattr(importlib.import_module(module), attribute)
            return cast(T, factory())
        except Exception as error:
            if not entry.third_party:
                raise
            raise MissingError(
                f"The {self._room} {entry.name!r} cannot be loaded: {type(error).__name__}: {error}.",
                remedy=f"Mend or remove the package whose entry point is {entry.target!r}.",
            ) from error

    def _scan(self) -> None:
        if self._scanned:
            return
        self._scanned = True
        points = importlib.metadata.entry_points(group=f"hasten.{self._room}")
        for point in sorted(points, key=lambda p: p.name):
            # A built-in name cannot be taken over from outside: evidence names engines and transforms by it.
            self._entries.setdefault(point.name, Entry(name=point.name, target=point.value, third_party=True))
