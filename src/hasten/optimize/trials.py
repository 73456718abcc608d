"""The trial log: every finished trial is on disk before the next begins, so that Ctrl-C or kill -9 loses at most one.

One SQLite file in a hidden work folder beside the bundle, keyed by a fingerprint of everything that a trial depends on:
model, data, objectives, seed, machine. `--resume` finds finished trials there; another fingerprint is refused.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from pathlib import Path
from typing import TypeVar

import msgspec

from hasten.errors import StorageError, UsageError
from hasten.spec.evidence import ClassChanges, Evidence, Rejection, Story
from hasten.spec.values import Value
from hasten.spec.variant import Variant

__all__ = ["Trial", "TrialLog", "fingerprint", "tuning_key"]

T = TypeVar("T")


class Trial(Value, frozen=True):
    """The outcome of trying one variant: evidence on tuning data, or a rejection before it got that far. `seconds` is
    what building and measuring it took; `stories` are told on tuning data, `classes` of a claim on holdout data.
    """

    variant: Variant
    evidence: Evidence | None = None
    rejection: Rejection | None = None
    stories: tuple[Story, ...] = ()
    classes: ClassChanges | None = None
    seconds: float = 0.0


def tuning_key(variant: Variant) -> str:
    """Where the log keeps a trial on tuning data. Mixes of one name differ in what they leave as it was."""
    mix = f"/{fingerprint(variant.recipe)[:12]}" if variant.id.endswith("-mixed") else ""
    return f"tuning/{variant.id}{mix}"


def fingerprint(*parts: object) -> str:
    """SHA-256 over values that are encoded as JSON."""
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()


class TrialLog:
    """Finished trials of one optimization. Use it in a `with`; `discard` removes it when the bundle is written."""

    def __init__(self, out: Path, run: str, *, resume: bool) -> None:
        self.folder = out.parent / f".{out.name}.work"
        self._run = run
        self._file = self.folder / "trials.sqlite"
        if self.folder.exists() and not resume:
            shutil.rmtree(self.folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self._file)
            self._execute("CREATE TABLE IF NOT EXISTS trials (key TEXT PRIMARY KEY, value BLOB NOT NULL)")
        except OSError as error:
            raise StorageError(
                f"{self.folder} cannot be written: {error.strerror}.", remedy="Choose another --out."
            ) from error
        self._claim_run()

    def get(self, key: str, type_: type[T]) -> T | None:
        """Return what was kept under `key`, if anything was. Raises `UsageError` where that cannot be read."""
        row = self._execute("SELECT value FROM trials WHERE key = ?", key).fetchone()
        try:
            return None if row is None else msgspec.json.decode(row[0], type=type_)
        except msgspec.MsgspecError as error:
            raise UsageError(
                f"What the interrupted run left under {key!r} in {self._file} cannot be read: it is damaged, or of "
                f"another state of hasten ({error}).",
                remedy="Leave out --resume to start anew.",
            ) from error

    def put(self, key: str, value: object) -> None:
        """Keep `value` under `key`, durably."""
        self._execute("INSERT OR REPLACE INTO trials VALUES (?, ?)", key, msgspec.json.encode(value))

    def close(self) -> None:
        """Close the file; finished trials stay."""
        self._connection.close()

    def discard(self) -> None:
        """Remove the work folder: the bundle holds everything that matters."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _claim_run(self) -> None:
        earlier = self.get("run", str)
        if earlier not in (None, self._run):
            self.close()
            raise UsageError(
                "The interrupted run was of another model, other data, objectives, options or versions.",
                remedy="Leave out --resume to start anew.",
            )
        self.put("run", self._run)

    def _execute(self, statement: str, *values: object) -> sqlite3.Cursor:
        try:
            with self._connection:
                return self._connection.execute(statement, values)
        except sqlite3.Error as error:
            raise StorageError(
                f"The trial log {self._file} cannot be used: {error}.",
                remedy="Free some space, or remove its folder and start anew without --resume.",
            ) from error
