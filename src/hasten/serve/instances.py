"""All engine instances of one model, of which some may be off: those that the scheduler asked for run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from hasten.serve.batch import Tensors
from hasten.serve.instance import Instance
from hasten.serve.pool import Done

__all__ = ["Instances"]


class Instances:
    """Instances by number. `make` makes one that is off; `most` is how many there may be."""

    def __init__(self, make: Callable[[int], Instance], most: int) -> None:
        self.all = [make(number) for number in range(most)]
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def up(self) -> int:
        """How many take work."""
        return sum(instance.up for instance in self.all)

    def descriptors(self) -> list[int]:
        """Those that become readable when an engine in a process of its own has something to say."""
        found = [instance.descriptor for instance in self.all]
        return [one for one in found if one is not None]

    async def start(self, count: int) -> None:
        """Start the first so many, one after another. Raises `EngineError`."""
        for instance in self.all[:count]:
            await instance.start()

    def begin(self, number: int) -> None:
        """Start one more in the background."""
        self.all[number].summon()

    def end(self, number: int) -> None:
        """Stop one that runs nothing, in the background."""
        task = asyncio.get_running_loop().create_task(self.all[number].close())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def run(self, number: int, variant: str, batch: Sequence[Tensors], done: Done) -> None:
        """Run a batch on one of them."""
        self.all[number].run(variant, batch, done)

    async def close(self) -> None:
        """End all at once."""
        await asyncio.gather(*self._ending, *(instance.close() for instance in self.all))
