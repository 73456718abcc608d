"""The response cache as a driver uses it: who asks what is known, what is kept, and who is told of it.

A key is a digest of all that was asked. Of large tensors it takes milliseconds, in which the event loop would answer
nobody: those are digested on a thread beside it, which hashing lets run (`hashlib` gives the interpreter's lock back).
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from hasten.serve.batch import Tensors
from hasten.serve.cache import Cache, key_of
from hasten.serve.told import Teller
from hasten.spec.request import Request

__all__ = ["Answers"]

# Bytes of inputs whose digest takes 0.15 ms, three times as long as the way to the thread and back; one string takes
# about as long as so many bytes.
_LARGE, _STRING = 128 * 2**10, 512
# Requests that wait for the thread, and are not yet in the bounded queue. What comes beyond them is computed unseen.
_MOST = 64

Found = Callable[[bytes, Tensors | None], None]


class Answers:
    """What one model answered, within `capacity` bytes. `names` are all its outputs. Lives on the event loop."""

    def __init__(self, capacity: int, names: tuple[str, ...], teller: Teller) -> None:
        self._cache = Cache(capacity)
        self._names = names
        self._teller = teller
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="digest")
        self._coming: set[asyncio.Future[bytes]] = set()

    @property
    def bytes(self) -> int:
        """How much is kept."""
        return self._cache.bytes

    def look(self, request: Request, found: Found) -> None:
        """Call `found` with the key of a request and what is known under it: at once, or later where its inputs are
        large. The key is empty for a request that is not looked up.
        """
        if _weight(request) <= _LARGE:
            self._look(key_of(request), found)
        elif len(self._coming) >= _MOST:
            found(b"", None)
        else:
            key = asyncio.get_running_loop().run_in_executor(self._aside, key_of, request)
            self._coming.add(key)
            key.add_done_callback(functools.partial(self._digested, found))

    def keep(self, key: bytes, request: Request, outputs: Tensors) -> None:
        """Keep the outputs that a request wanted, under its key."""
        evicted = self._cache.put(key, {name: outputs[name] for name in request.outputs or self._names})
        if evicted is not None:
            self._teller.cached("kept", evicted)

    async def settle(self) -> None:
        """Return when nobody is being looked up."""
        while self._coming:
            await asyncio.wait(self._coming)

    def close(self) -> None:
        """Look nobody up any more."""
        self._aside.shutdown(wait=False, cancel_futures=True)

    def _look(self, key: bytes, found: Found) -> None:
        outputs = self._cache.get(key)
        self._teller.cached("miss" if outputs is None else "hit")
        found(key, outputs)

    def _digested(self, found: Found, key: asyncio.Future[bytes]) -> None:
        self._coming.discard(key)
        if key.cancelled():
            return
        error = key.exception()
        if error is None:
            self._look(key.result(), found)
            return
        # A bug of ours: the request is computed all the same.
        context = {"message": "A digest failed.", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)
        found(b"", None)


def _weight(request: Request) -> int:
    """How long a digest of the inputs takes, as bytes of numbers."""
    return sum([_STRING * array.size if array.dtype == object else array.nbytes for array in request.inputs.values()])
