"""Engines that die under load: what fails, what does not, and how soon they are back."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from tests.engine.subjects import linear_for
from tests.serve.engines import POISON, ask, back, code_of, fake, running, until, within

from hasten.bundle.read import Bundle
from hasten.engine.confine import WorkerLimits
from hasten.engine.isolate import IsolatedSession
from hasten.errors import EngineCrashed, EngineError, EngineLoadError, RequestError
from hasten.serve.service import ModelService
from hasten.spec.request import Request
from hasten.spec.target import Target
from hasten.spec.variant import REFERENCE


async def load_on(service: ModelService, stop: asyncio.Event) -> Counter[str]:
    """Four clients that ask until they are told to stop; what came of it."""
    codes: Counter[str] = Counter()

    async def client() -> None:
        while not stop.is_set():
            codes[await code_of(service, ask(1))] += 1
            # A refusal may come without a pause, and the others are to have their turn.
            await asyncio.sleep(0)

    await asyncio.gather(*(client() for _ in range(4)))
    return codes


@pytest.mark.parametrize("deed", ["SIGSEGV", "SIGABRT", "SIGKILL", "exit"])
def test_a_crash_under_load_fails_what_was_in_flight_and_nothing_else(bundle: Bundle, expected: Any, deed: str) -> None:
    async def body() -> None:
        async with running(fake(bundle, poison=deed)) as service, running(bundle) as other:
            stop = asyncio.Event()
            loads = [asyncio.ensure_future(load_on(one, stop)) for one in (service, other)]
            [instance] = service.driver.instances.all
            for crash in (1, 2):
                assert await code_of(service, ask(POISON)) == "unavailable"
                assert not service.ready
                await back(service)
                assert instance.restarts == crash
                assert (await service.infer(ask(2))).outputs["y"].tolist() == expected(np.full((1, 4), 2)).tolist()
            stop.set()
            hit, untouched = await asyncio.gather(*loads)
            assert set(untouched) == {"ok"}
            assert set(hit) <= {"ok", "unavailable"}
            assert hit["unavailable"] <= 2 * 4, "only what ran beside the poison fails"
            assert hit["ok"] > 0

    asyncio.run(body())


def test_an_engine_that_dies_idle_is_back_before_anybody_asks(bundle: Bundle) -> None:
    async def body() -> None:
        async with running(bundle) as service:
            pid = service.engine_pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await until(lambda: not service.ready, within(1.0))
            assert await code_of(service, ask(1)) == "ok"
            assert service.engine_pid != pid

    asyncio.run(body())


def test_of_two_instances_the_healthy_one_goes_on(bundle: Bundle) -> None:
    async def body() -> None:
        async with running(fake(bundle, poison="SIGSEGV", instances=2)) as service:
            assert await code_of(service, ask(POISON)) == "unavailable"
            assert service.ready
            assert {await code_of(service, ask(i)) for i in range(20)} == {"ok"}
            await back(service)

    asyncio.run(body())


def test_an_engine_that_never_starts_again_is_tried_ever_more_seldom(bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(bundle.path, tmp_path / "copy")
    mine = Bundle(tmp_path / "copy", bundle.manifest)

    async def body() -> None:
        async with running(mine) as service, running(bundle) as other:
            [instance] = service.driver.instances.all
            mine.model_path(REFERENCE).write_bytes(b"")
            assert service.engine_pid is not None
            os.kill(service.engine_pid, signal.SIGKILL)
            stop = asyncio.Event()
            load = asyncio.ensure_future(load_on(other, stop))
            await until(lambda: instance._breaker.state == "open", within(30.0))
            with pytest.raises(RequestError) as caught:
                await service.infer(ask(1))
            assert caught.value.code == "unavailable"
            assert caught.value.retry_after_s == 10.0
            # Nothing is tried now: no process of this model is left that could take the processor.
            [worker] = workers()
            assert worker.pid == other.engine_pid
            stop.set()
            assert set(await load) == {"ok"}

    asyncio.run(body())


def workers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "hasten.engine.worker" in " ".join(child.cmdline())]


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="memory is limited on Linux only")
def test_a_batch_beyond_the_memory_limit_is_unavailable_and_the_server_lives(bundle: Bundle) -> None:
    huge = Request(model="tiny", inputs={"x": np.zeros((12_000_000, 4), np.float32)})

    async def body() -> None:
        async with running(fake(bundle, max_batch=1), limits=WorkerLimits(memory_mb=256)) as service:
            assert await code_of(service, huge) == "unavailable"
            assert await code_of(service, ask(1)) == "ok"

    asyncio.run(body())


def test_crashes_and_restarts_leave_no_process_and_no_descriptor(bundle: Bundle) -> None:
    before: list[int] = []

    async def body() -> None:
        async with running(fake(bundle, poison="SIGKILL")) as service:
            before.append(len(os.listdir("/proc/self/fd")))
            for _ in range(3):
                assert await code_of(service, ask(POISON)) == "unavailable"
                await back(service)
            before.append(len(os.listdir("/proc/self/fd")))
            assert len(workers()) == 1

    asyncio.run(body())
    assert before[0] == before[1]
    assert workers() == []


def damaged(model: bytes) -> dict[str, bytes]:
    rng = np.random.default_rng(5)
    files = {f"cut at {at}": model[:at] for at in np.linspace(0, len(model) - 1, 16, dtype=int)}
    for number in range(40):
        flipped = bytearray(model)
        flipped[rng.integers(len(model))] ^= 1 << rng.integers(8)
        files[f"flip {number}"] = bytes(flipped)
    return {**files, "another type": b"\x89PNG\r\n\x1a\n" + model, "text": b"not a model"}


@pytest.mark.parametrize("engine", ["onnxruntime", "litert"])
def test_a_damaged_model_is_an_error_of_the_engine_and_costs_at_most_its_process(engine: str, tmp_path: Path) -> None:
    path = linear_for(engine, tmp_path)
    target = Target(engine=engine, threads=1)
    session = IsolatedSession(target)
    try:
        for name, content in damaged(path.read_bytes()).items():
            path.write_bytes(content)
            try:
                session.load(path, 30.0)
                session.run({"x": np.ones((1, 4), np.float32)})
            except EngineCrashed:
                session.close()
                session = IsolatedSession(target)
            except EngineError as error:
                assert isinstance(error, EngineLoadError) or name.startswith("flip"), name
            else:
                assert name.startswith("flip"), name
    finally:
        session.close()
