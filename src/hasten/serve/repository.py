"""The models of one server: which bundles there are, and which of them are served at the moment.

Loading opens the bundle's folder anew, so that a bundle that was replaced there comes into service: the new engine is
warm before it takes over, and the old one answers what it has taken. Changes happen one after another. Lives on the
event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from hasten.bundle.read import Bundle, open_bundle
from hasten.errors import HastenError, RequestError, UsageError
from hasten.serve.service import ModelService

__all__ = ["Repository"]

_DRAIN_S = 30.0


class Repository:
    """`services` are those that are served, by model name: the same dictionary for ever. `make` builds a service,
    `changed` is called when all are up, and whenever others are.

    Raises `UsageError` for two bundles of one name, `BundleError` for one that may not be served.
    """

    def __init__(
        self,
        bundles: Sequence[Bundle],
        make: Callable[[Bundle], ModelService],
        changed: Callable[[], None] | None = None,
    ) -> None:
        self._make = make
        self._changed = changed or _nothing
        self._folders: dict[str, Path] = {}
        self._reasons: dict[str, str] = {}
        self._changing = asyncio.Lock()
        self.services: dict[str, ModelService] = {}
        for bundle in bundles:
            bundle.require_servable()
            name = bundle.manifest.name
            if name in self._folders:
                raise UsageError(
                    f"Two bundles are called {name!r}.", remedy="Serve one of them, or rebuild with --name."
                )
            self._folders[name] = Path(bundle.path)
            self.services[name] = make(bundle)

    async def start(self) -> None:
        """Load every model. Raises `EngineError` where one does not load here."""
        for service in self.services.values():
            await service.start()
        self._changed()

    async def load(self, name: str) -> None:
        """Bring the bundle that lies in the model's folder now into service. Raises `RequestError`: not_found for an
        unknown name, unavailable where it cannot be served; what was served before is served on.
        """
        folder = self._known(name)
        async with self._changing:
            try:
                bundle = await asyncio.to_thread(_opened, folder, name)
                service = self._make(bundle)
                try:
                    await service.start()
                except BaseException:
                    await service.close()
                    raise
            except HastenError as error:
                self._reasons[name] = error.message
                raise RequestError(f"The model {name!r} does not load: {_short(error)}", code="unavailable") from error
            self._reasons.pop(name, None)
            old, self.services[name] = self.services.get(name), service
            await _end(old)
            del old
            self._changed()

    async def unload(self, name: str) -> None:
        """Take a model out of service, after what it has taken. Raises `RequestError` for an unknown name."""
        self._known(name)
        async with self._changing:
            self._reasons[name] = "unloaded"
            await _end(self.services.pop(name, None))
            self._changed()

    def index(self) -> list[dict[str, str]]:
        """Every model with version, state and reason, in the words of the repository extension."""
        return [self._row(name) for name in self._folders]

    async def close(self) -> None:
        """End every engine at once."""
        for service in tuple(self.services.values()):
            await service.close()

    def _row(self, name: str) -> dict[str, str]:
        service = self.services.get(name)
        ready = service is not None and service.ready
        reason = "" if ready else self._reasons.get(name, "the engine is not up" if service else "unloaded")
        return {"name": name, "version": "1", "state": "READY" if ready else "UNAVAILABLE", "reason": reason}

    def _known(self, name: str) -> Path:
        folder = self._folders.get(name)
        if folder is None:
            raise RequestError(f"There is no bundle of the model {name[:100]!r} here.", code="not_found")
        return folder


def _nothing() -> None:
    pass


def _opened(folder: Path, name: str) -> Bundle:
    bundle = open_bundle(folder)
    bundle.require_servable()
    if bundle.manifest.name != name:
        raise UsageError(f"The bundle there is called {bundle.manifest.name!r} now.")
    return bundle


def _short(error: HastenError) -> str:
    """The class of the error: messages name files of this machine, which the log and the operator may see."""
    return f"{error.code}."


async def _end(service: ModelService | None) -> None:
    if service is None:
        return
    try:
        # One that hangs must not keep its successor from being the last change.
        async with asyncio.timeout(_DRAIN_S):
            await service.drain()
    except TimeoutError:
        pass
    await service.close()
