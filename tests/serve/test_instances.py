"""Instances that come and go while the server runs."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from tests.serve.engines import ask, until, with_variants, within

from hasten.bundle.read import Bundle
from hasten.engine.confine import WorkerLimits
from hasten.serve.batch import Outcome
from hasten.serve.core import EngineLost, EngineUp, Event, Warmed
from hasten.serve.instance import Instance
from hasten.serve.instances import Instances
from hasten.serve.pool import Isolation, Loading
from hasten.spec.serving import Serving
from hasten.spec.variant import REFERENCE


def instances_of(bundle: Bundle, told: list[Event], isolation: Isolation = "none") -> Instances:
    loading = Loading(bundle, tuple(bundle.manifest.ladder), Serving(threads=1), max_batch=2)
    return Instances(lambda n: Instance(loading, n, told.append, isolation=isolation, limits=WorkerLimits()), 2)


def test_one_that_does_not_load_is_tried_again_until_it_does(bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(bundle.path, tmp_path / "copy")
    mine = Bundle(tmp_path / "copy", bundle.manifest)
    told: list[Event] = []

    async def body() -> None:
        instances = instances_of(mine, told)
        mine.model_path(REFERENCE).write_bytes(b"")
        instances.begin(1)
        await until(lambda: EngineLost(0.2, 1) in told, within(10.0))
        shutil.copy(bundle.model_path(REFERENCE), mine.model_path(REFERENCE))
        await until(lambda: EngineUp(1) in told, within(10.0))
        assert (instances.up, instances.all[0].up) == (1, False)
        await instances.close()

    asyncio.run(body())


def test_one_that_was_stopped_may_be_started_again(bundle: Bundle) -> None:
    told: list[Event] = []

    async def body() -> None:
        instances = instances_of(bundle, told)
        await instances.start(1)
        instances.end(0)
        await until(lambda: instances.up == 0, within(10.0))
        instances.begin(0)
        await until(lambda: instances.up == 1, within(10.0))
        await instances.close()

    asyncio.run(body())
    assert [event for event in told if not isinstance(event, Warmed)] == [EngineUp(0), EngineUp(0)]


def test_what_ran_before_there_were_requests_is_told_before_it_takes_any(bundle: Bundle) -> None:
    told: list[Event] = []

    async def body() -> None:
        instances = instances_of(bundle, told)
        await instances.start(1)
        await instances.close()

    asyncio.run(body())
    *warmed, up = told
    assert up == EngineUp(0)
    assert {event.rows: len(event.seconds) for event in warmed if isinstance(event, Warmed)} == {1: 3, 2: 3}


def test_every_variant_runs_on_every_instance_in_a_process_and_without_one(bundle: Bundle) -> None:
    both = with_variants(bundle, {REFERENCE: (2.0, 1.0), "small": (1.0, 1.0)})

    async def body(isolation: Isolation) -> None:
        instances = instances_of(both, [], isolation)
        await instances.start(1)
        for variant in (REFERENCE, "small", REFERENCE):
            answered: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
            instances.run(0, variant, [ask(1.0).inputs, ask(2.0).inputs], answered.set_result)
            assert [list(outcome) for outcome in await answered] == [["y"], ["y"]]
        await instances.close()

    asyncio.run(body("none"))
    asyncio.run(body("process"))
