"""What earlier runs on this machine taught, so that the next search starts with better forecasts.

One SQLite file in the cache folder, one row a trial: traits, speed, safety, seconds. It only orders the queue: no
figure of a claim comes from it, so a file that is damaged, locked or on a full disk costs nothing but its lessons.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import msgspec

from hasten.engine.host import environment
from hasten.optimize.forecast import Lesson
from hasten.optimize.trials import fingerprint

__all__ = ["History"]

# The newest lessons are enough, and the cost model's work grows with their number squared.
_MOST = 300
# Lessons of another way of measuring are none: turns in which the others rest (docs/decisions/0016).
_METHOD = "turns at rest"


class History:
    """Lessons kept in `file`; None keeps nothing."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        here = environment()
        # Another processor, another version of a runtime, or another way of measuring is another experience.
        self._machine = fingerprint(here.processor, here.features, here.cores_physical, here.packages, _METHOD)

    def lessons(self) -> list[Lesson]:
        """Return the newest lessons that were learned on a machine like this one; the oldest first."""
        with suppress(sqlite3.Error, msgspec.MsgspecError, OSError), self._open() as connection:
            rows = connection.execute(
                "SELECT lesson FROM lessons WHERE machine = ? ORDER BY rowid DESC LIMIT ?", (self._machine, _MOST)
            ).fetchall()
            return [msgspec.json.decode(row[0], type=Lesson) for row in reversed(rows)]
        return []

    def keep(self, model: str, lessons: list[Lesson]) -> None:
        """Add this run's lessons about the model with the digest `model`."""
        named = [msgspec.structs.replace(lesson, model=model) for lesson in lessons if not lesson.model]
        with suppress(sqlite3.Error, OSError), self._open() as connection, connection:
            connection.executemany(
                "INSERT INTO lessons VALUES (?, ?)", [(self._machine, msgspec.json.encode(one)) for one in named]
            )

    @contextmanager
    def _open(self) -> Generator[sqlite3.Connection]:
        if self._file is None:
            raise OSError("no history is kept")
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._file, timeout=1.0)) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS lessons (machine TEXT NOT NULL, lesson BLOB NOT NULL)")
            yield connection
