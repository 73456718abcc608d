"""The models of one server, and who hears that others are served."""

from __future__ import annotations

import asyncio

from hasten.bundle.read import Bundle
from hasten.serve.repository import Repository
from hasten.serve.service import ModelService


def test_whoever_wants_to_know_hears_when_all_are_up_and_when_others_are(bundle: Bundle) -> None:
    heard: list[list[str]] = []

    async def scene() -> None:
        def changed() -> None:
            heard.append(sorted(repository.services))

        repository = Repository([bundle], lambda one: ModelService(one, isolation="none"), changed)
        await repository.start()
        await repository.load("tiny")
        await repository.unload("tiny")
        await repository.close()

    asyncio.run(scene())
    assert heard == [["tiny"], ["tiny"], []]
