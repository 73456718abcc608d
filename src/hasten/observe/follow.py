"""Reads the records of a log while its server writes it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec

__all__ = ["Follower"]

_LOOK_S = 0.02


class Follower:
    """The records of a log file from where it was left, one JSON object a line. A line that is not complete waits."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0

    def new(self) -> list[dict[str, Any]]:
        """Return the records since the last call; none where there is no file yet."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._at)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._at += len(whole)
        return [msgspec.json.decode(line) for line in whole.splitlines() if line]

    def answered(self, count: int, patience_s: float) -> list[dict[str, Any]]:
        """Wait until so many answered requests are written, but no longer than `patience_s`; return what there is."""
        found: list[dict[str, Any]] = []
        give_up = time.monotonic() + patience_s
        while True:
            found += [record for record in self.new() if record.get("event") == "answered"]
            if len(found) >= count or time.monotonic() >= give_up:
                return found
            time.sleep(_LOOK_S)
