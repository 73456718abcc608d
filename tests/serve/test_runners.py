"""An engine in a process of its own and one in this process keep the same promises."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper
from tests.serve.engines import POISON, ask, code_of, fake, running, until, within

from hasten.bundle.read import Bundle
from hasten.engine.confine import WorkerLimits
from hasten.errors import EngineCrashed, EngineError, EngineLoadError
from hasten.serve import warmup
from hasten.serve.plan import Rules
from hasten.serve.service import ModelService
from hasten.spec.request import Request, Response
from hasten.spec.variant import REFERENCE


@pytest.fixture(params=["process", "none"])
def isolation(request: pytest.FixtureRequest) -> str:
    return request.param


def engine_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "hasten-engine"]


def squares(bundle: Bundle, folder: Path) -> Bundle:
    """y = x · x + x over inputs of any length, served by two instances."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "x"], ["xx"]), helper.make_node("Add", ["xx", "x"], ["y"])],
        "squares",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "n"])],
    )
    path = folder / bundle.entry(REFERENCE).model
    path.parent.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    (folder / "golden").symlink_to(bundle.path / "golden")
    return Bundle(folder, fake(bundle, instances=2).manifest)


def test_hundreds_of_concurrent_inputs_of_mixed_shapes_each_get_their_own_answer(
    bundle: Bundle, tmp_path: Path, isolation: str
) -> None:
    rng = np.random.default_rng(3)
    inputs = [rng.normal(size=(1 + i % 3, (5, 64, 3000)[i % 7 % 3])).astype(np.float32) for i in range(400)]
    batches: list[int] = []

    async def body() -> list[Response]:
        options: dict[str, Any] = {"isolation": isolation, "rules": Rules(queue_capacity=1000)}
        async with running(
            squares(bundle, tmp_path), sink=lambda event: batches.append(event.batch), **options
        ) as service:
            return await asyncio.gather(*(service.infer(Request(model="tiny", inputs={"x": x})) for x in inputs))

    for x, answer in zip(inputs, asyncio.run(body()), strict=True):
        np.testing.assert_allclose(answer.outputs["y"], x * x + x, rtol=1e-6)
    assert max(batches) > 1


def test_answers_stay_as_they_are_while_later_batches_run(bundle: Bundle, expected: Any, isolation: str) -> None:
    async def body() -> list[Response]:
        async with running(fake(bundle), isolation=isolation) as service:
            # Of growing size, so that shared memory is replaced under the earlier answers.
            return [await service.infer(ask(i, rows=1 + i % 8)) for i in range(40)]

    for i, answer in enumerate(asyncio.run(body())):
        np.testing.assert_allclose(answer.outputs["y"], expected(np.full((1 + i % 8, 4), i)), rtol=1e-6)


def test_one_large_request_is_carried_whole(bundle: Bundle, expected: Any, isolation: str) -> None:
    x = np.random.default_rng(0).normal(size=(500_000, 4)).astype(np.float32)

    async def body() -> Response:
        async with running(fake(bundle, max_batch=1), isolation=isolation) as service:
            return await service.infer(Request(model="tiny", inputs={"x": x}))

    np.testing.assert_allclose(asyncio.run(body()).outputs["y"], expected(x), rtol=1e-4, atol=1e-5)


def test_large_answers_of_one_batch_stay_as_they_are_while_later_batches_run(
    bundle: Bundle, tmp_path: Path, isolation: str
) -> None:
    xs = [np.full((1 + i % 2, 40_000), i, np.float32) for i in range(12)]

    async def body() -> list[Response]:
        async with running(squares(bundle, tmp_path / "squares"), isolation=isolation) as service:
            return await asyncio.gather(*(service.infer(Request(model="tiny", inputs={"x": x})) for x in xs))

    for x, answer in zip(xs, asyncio.run(body()), strict=True):
        np.testing.assert_array_equal(answer.outputs["y"], x * x + x)


def test_a_bad_input_fails_alone_and_the_engine_stays(bundle: Bundle, isolation: str) -> None:
    async def body() -> None:
        async with running(fake(bundle, poison="fail"), isolation=isolation) as service:
            pid = service.engine_pid
            codes = await asyncio.gather(*(code_of(service, ask(value)) for value in (1, 2, POISON, 3, 4)))
            assert codes == ["ok", "ok", "internal", "ok", "ok"]
            assert service.engine_pid == pid

    asyncio.run(body())


def test_an_input_that_no_engine_can_be_given_fails_alone(bundle: Bundle, isolation: str) -> None:
    odd = Request(model="tiny", inputs={"x": np.zeros((1, 4), "datetime64[s]")})

    async def body() -> None:
        async with running(fake(bundle), isolation=isolation) as service:
            assert await asyncio.gather(code_of(service, odd), code_of(service, ask(1))) == ["internal", "ok"]

    asyncio.run(body())


def test_an_engine_without_memory_left_is_replaced_and_its_batch_may_come_again(bundle: Bundle, isolation: str) -> None:
    async def body() -> None:
        async with running(fake(bundle, poison="memory"), isolation=isolation) as service:
            [instance] = service.driver.instances.all
            assert await code_of(service, ask(POISON)) == "unavailable"
            assert not service.ready
            assert await code_of(service, ask(1)) == "ok"
            assert instance.restarts == 1

    asyncio.run(body())


def test_a_hang_is_given_up_in_time_and_costs_only_its_batch(bundle: Bundle, isolation: str) -> None:
    async def body() -> None:
        limits = WorkerLimits(run_s=0.5)
        async with (
            running(fake(bundle, poison="hang", max_batch=1), isolation=isolation, limits=limits) as service,
            running(bundle) as other,
        ):
            started = time.monotonic()
            stuck = asyncio.ensure_future(code_of(service, ask(POISON)))
            waiting = [asyncio.ensure_future(code_of(service, ask(i))) for i in range(3)]
            while not stuck.done():
                assert await code_of(other, ask(1)) == "ok"
            assert await stuck == "unavailable"
            assert 0.5 <= time.monotonic() - started < within(1.5)
            assert await asyncio.gather(*waiting) == ["ok"] * 3

    asyncio.run(body())


def test_many_short_batches_in_a_row_are_no_hang(bundle: Bundle, isolation: str) -> None:
    async def body() -> None:
        async with running(fake(bundle), isolation=isolation, limits=WorkerLimits(run_s=0.3)) as service:
            started = time.monotonic()
            while time.monotonic() - started < 0.8:
                assert await code_of(service, ask(1)) == "ok"
            assert service.driver.instances.all[0].restarts == 0

    asyncio.run(body())


def test_a_load_that_hangs_is_given_up(bundle: Bundle, isolation: str) -> None:
    async def body() -> None:
        service = ModelService(fake(bundle, hang="load"), isolation=isolation, limits=WorkerLimits(load_s=0.5))
        started = time.monotonic()
        with pytest.raises(EngineCrashed, match="did not answer 'load'"):
            await service.start()
        assert time.monotonic() - started < within(1.5)
        await service.close()

    asyncio.run(body())


def test_an_engine_that_refuses_the_model_says_why(bundle: Bundle, isolation: str) -> None:
    async def body() -> None:
        service = ModelService(fake(bundle, fail="load"), isolation=isolation)
        with pytest.raises(EngineLoadError, match="told to refuse"):
            await service.start()
        await service.close()

    asyncio.run(body())


def test_an_engine_that_fails_while_it_is_warmed_up_does_not_become_ready(bundle: Bundle, isolation: str) -> None:
    async def body() -> None:
        service = ModelService(fake(bundle, fail="run"), isolation=isolation)
        with pytest.raises(EngineError, match="told to fail"):
            await service.start()
        assert not service.ready
        await service.close()

    asyncio.run(body())


def test_closing_answers_whoever_still_waits_and_leaves_nothing_behind(bundle: Bundle, isolation: str) -> None:
    async def body() -> list[str]:
        async with running(fake(bundle, poison="hang", max_batch=1), isolation=isolation) as service:
            asked = [asyncio.ensure_future(code_of(service, ask(value))) for value in (POISON, 1, 2)]
            await asyncio.sleep(0)  # all are in: one hangs, two wait
        return await asyncio.gather(*asked)

    before = set(psutil.Process().children()), len(os.listdir("/proc/self/fd"))
    assert asyncio.run(body()) == ["unavailable"] * 3
    assert (set(psutil.Process().children()), len(os.listdir("/proc/self/fd"))) == before


def test_an_engine_of_this_process_ends_its_thread_when_it_is_closed(bundle: Bundle) -> None:
    async def body() -> None:
        # Those of other tests may still be ending.
        before = set(engine_threads())
        async with running(fake(bundle), isolation="none") as service:
            assert await code_of(service, ask(1)) == "ok"
            [mine] = set(engine_threads()) - before
            assert service.engine_pid is None
        await until(lambda: not mine.is_alive(), within(5.0))

    asyncio.run(body())


def test_every_batch_size_has_run_before_a_model_is_ready(
    bundle: Bundle, isolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The fourth size of the warm-up is one that fails: were it left out, the model would become ready.
    def batches(samples: Any, max_batch: int) -> list[list[Any]]:
        sizes = [len(batch) for batch in whole(samples, max_batch)][:5]
        assert sorted(sizes) == [1, 2, 3, 4, 5]
        return [[{"x": np.full((1, 4), POISON if size == 3 else 1, np.float32)}] * size for size in sizes]

    whole = warmup.batches
    monkeypatch.setattr(warmup, "batches", batches)

    async def body() -> None:
        service = ModelService(fake(bundle, max_batch=5, poison="fail"), isolation=isolation)
        with pytest.raises(EngineError, match="told to fail"):
            await service.start()
        assert not service.ready
        await service.close()

    asyncio.run(body())
