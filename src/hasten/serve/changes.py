"""Changes of the repository that clients ask for, over HTTP or gRPC: done to the end, and put on record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Literal

from hasten.errors import RequestError
from hasten.serve.audit import audit
from hasten.serve.bugs import internal
from hasten.serve.repository import Repository
from hasten.serve.told import emit
from hasten.spec.event import UNKNOWN_MODEL, Changed, Sink
from hasten.wire.base import STATUS

__all__ = ["Change", "Changes", "check_parameters"]

Change = Literal["load", "unload"]
Done = Callable[[RequestError | None], None]


class Changes:
    """Loads and unloads models of a repository."""

    def __init__(self, repository: Repository, sink: Sink | None = None) -> None:
        self._repository = repository
        self._sink = sink
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, what: Change, model: str, request_id: str, done: Done) -> Callable[[], None]:
        """Do it, whether or not the client stays to hear of it: `done` is called once with the error or None, unless
        the function that is returned was called before.
        """
        listening = [done]
        task = asyncio.get_running_loop().create_task(self._carry_out(what, model, request_id, listening))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return listening.clear

    async def _carry_out(self, what: Change, model: str, request_id: str, listening: list[Done]) -> None:
        error = await _outcome(self._repository.load(model) if what == "load" else self._repository.unload(model))
        status = 200 if error is None else STATUS[error.code]
        audit(what, model=model, status=status, request_id=request_id)
        if self._sink is not None:
            known = model if status != 404 else UNKNOWN_MODEL
            emit(self._sink, Changed(model=known, what=what, status=status, request_id=request_id))
        for done in listening:
            done(error)


def check_parameters(names: set[str]) -> None:
    """What would change the model on its way (a config, files) is refused: a bundle is served as it was proven.

    Triton's client sends no parameters, or `unload_dependents`, of which there are none. Raises `RequestError`.
    """
    if names - {"unload_dependents"}:
        raise RequestError("No parameters are taken here: a bundle is served as it was proven.", code="invalid")


async def _outcome(work: Coroutine[Any, Any, None]) -> RequestError | None:
    try:
        await work
    except RequestError as error:
        return error
    except Exception as error:
        return internal(error)
    return None
