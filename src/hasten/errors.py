"""Every error that hasten raises on purpose, drawn as one tree and split by blame.

    HastenError                      message + remedy; `status` is the exit status of the command line
    ├── UserError (2)                what the user gave us is wrong; mending it is up to them
    │   ├── UsageError               an option or a combination of options
    │   ├── ConfigError              slo.toml, serve.toml and other files that people write
    │   ├── ModelError               a model file that cannot be read, or has something we refuse
    │   ├── DataError                representative data: missing, empty, wrong shape, leaking
    │   └── BundleError              a bundle that is incomplete, altered or of an unknown version
    ├── MissingError (3)             something this machine lacks; the remedy says what to type
    ├── EngineError (1)              an inference engine failed
    │   ├── EngineLoadError          it refused the model or the options
    │   ├── EngineRunError           it failed on an input
    │   └── EngineCrashed            its process died
    ├── RequestError (1)             one inference request failed; `code` names how (see hasten.wire)
    └── StorageError (2)             the disk is full or the place is not writable

Whoever catches `HastenError` at a seam (command line, HTTP) can print `message` and `remedy` and needs no traceback.
Anything else that escapes is a bug of ours. Imports nothing, so every room may use it.
"""

from __future__ import annotations

__all__ = [
    "BundleError",
    "ConfigError",
    "DataError",
    "EngineCrashed",
    "EngineError",
    "EngineLoadError",
    "EngineRunError",
    "HastenError",
    "MissingError",
    "ModelError",
    "RequestError",
    "StorageError",
    "UsageError",
    "UserError",
]


class HastenError(Exception):
    """Base of the tree: one sentence on what happened, one on what to do.

    `code` is a stable word for machines (`--json`), derived from the class unless given.
    """

    status = 70

    def __init__(self, message: str, *, remedy: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.code = code or _snake(type(self).__name__)

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class UserError(HastenError):
    """What the user gave is wrong."""

    status = 2


class UsageError(UserError):
    """An option, or a combination of options, makes no sense."""


class ConfigError(UserError):
    """A configuration file is not what its schema says."""


class ModelError(UserError):
    """A model file cannot be read, or holds something that hasten refuses."""


class DataError(UserError):
    """Representative data is missing, empty, misshapen, or leaks between splits."""


class BundleError(UserError):
    """A bundle is incomplete, altered, unproven, or of an unknown version."""


class MissingError(HastenError):
    """This machine lacks something; the remedy says what to type."""

    status = 3


class EngineError(HastenError):
    """An inference engine failed."""

    status = 1


class EngineLoadError(EngineError):
    """The engine refused the model or its options."""


class EngineRunError(EngineError):
    """The engine failed on an input."""


class EngineCrashed(EngineError):
    """The process that held the engine died."""


class RequestError(HastenError):
    """One inference request failed. `code` is one of the words of `hasten.wire.base.STATUS`; a client that got no
    answer says `timeout` or `connection`.

    `retry_after_s` is set for shed load, computed from the queue.
    """

    status = 1

    def __init__(self, message: str, *, code: str, remedy: str = "", retry_after_s: float | None = None) -> None:
        # Not by way of its bases: one is made for each request that is refused.
        self.message = message
        self.remedy = remedy
        self.code = code
        self.retry_after_s = retry_after_s


class StorageError(HastenError):
    """The disk is full, or a place is not writable."""

    status = 2


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))
