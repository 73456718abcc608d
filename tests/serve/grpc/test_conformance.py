"""tritonclient, unchanged, against the real server and a real engine process."""

from __future__ import annotations

import asyncio
import os
import queue
import signal
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from hasten.serve.server import Running

triton = pytest.importorskip("tritonclient.grpc", reason="an independent client judges the server")
aio = pytest.importorskip("tritonclient.grpc.aio", reason="an independent client judges the server")

PATIENCE_S = 15.0


@contextmanager
def client(server: Running) -> Generator[Any]:
    with triton.InferenceServerClient(server.grpc) as opened:
        yield opened


@contextmanager
def frozen_engine(server: Running) -> Generator[None]:
    """The engine takes work and gives none back while the block runs."""
    pid = server.services["tiny"].engine_pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def tensor(x: np.ndarray[Any, Any]) -> Any:
    one = triton.InferInput("x", list(x.shape), "FP32")
    one.set_data_from_numpy(x)
    return one


def numbers(rows: int, start: int = 0) -> np.ndarray[Any, Any]:
    return np.arange(start, start + 4 * rows, dtype=np.float32).reshape(rows, 4)


def test_the_server_and_the_model_are_described(server: Running) -> None:
    with client(server) as opened:
        assert opened.is_server_live()
        assert opened.is_server_ready()
        assert opened.is_model_ready("tiny")
        assert opened.is_model_ready("tiny", "1")
        assert opened.get_server_metadata().name == "hasten"
        metadata = opened.get_model_metadata("tiny", as_json=True)
        assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "4"]}]
        config = opened.get_model_config("tiny").config
        assert (config.name, config.max_batch_size) == ("tiny", 8)
        index = opened.get_model_repository_index().models
        assert [(model.name, model.state) for model in index] == [("tiny", "READY")]


def test_a_model_that_is_not_there_is_not_ready_and_has_no_metadata(server: Running) -> None:
    with client(server) as opened:
        assert not opened.is_model_ready("other")
        assert not opened.is_model_ready("tiny", "2")
        for ask in (opened.get_model_metadata, opened.get_model_config, opened.get_inference_statistics):
            with pytest.raises(triton.InferenceServerException) as caught:
                ask("other")
            assert caught.value.status() == "StatusCode.NOT_FOUND"


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_the_answer_is_the_reference_s(server: Running, expected: Any, rows: int, compression: str | None) -> None:
    x = numbers(rows)
    with client(server) as opened:
        result = opened.infer("tiny", [tensor(x)], request_id="7", compression_algorithm=compression)
    assert result.get_response().id == "7"
    np.testing.assert_allclose(result.as_numpy("y"), expected(x), rtol=1e-6)


@pytest.mark.parametrize(
    ("model", "inputs", "options", "status"),
    [
        ("other", [tensor(numbers(1))], {}, "NOT_FOUND"),
        ("tiny", [tensor(numbers(1))], {"model_version": "2"}, "NOT_FOUND"),
        ("tiny", [], {}, "INVALID_ARGUMENT"),
        ("tiny", [tensor(np.zeros((1, 5), np.float32))], {}, "INVALID_ARGUMENT"),
        ("tiny", [tensor(numbers(1))] * 2, {}, "INVALID_ARGUMENT"),
        ("tiny", [tensor(numbers(1))], {"sequence_id": 1, "sequence_start": True}, "INVALID_ARGUMENT"),
        ("tiny", [tensor(numbers(1))], {"outputs": [triton.InferRequestedOutput("q")]}, "INVALID_ARGUMENT"),
        ("tiny", [tensor(numbers(1))], {"outputs": [triton.InferRequestedOutput("y", 2)]}, "INVALID_ARGUMENT"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_the_protocol_s_status(
    server: Running, model: str, inputs: list[Any], options: dict[str, Any], status: str
) -> None:
    with client(server) as opened, pytest.raises(triton.InferenceServerException) as caught:
        opened.infer(model, inputs, **options)
    assert caught.value.status() == f"StatusCode.{status}"


def test_many_calls_at_once_each_get_the_answer_to_their_own_question(server: Running, expected: Any) -> None:
    async def ask(opened: Any, number: int) -> None:
        x = numbers(1 + number % 3, start=number)
        result = await opened.infer("tiny", [tensor(x)], request_id=str(number))
        assert result.get_response().id == str(number)
        np.testing.assert_allclose(result.as_numpy("y"), expected(x), rtol=1e-5)

    async def main() -> None:
        async with aio.InferenceServerClient(server.grpc) as opened:
            await asyncio.gather(*(ask(opened, number) for number in range(200)))

    asyncio.run(main())


def test_a_stream_answers_in_the_order_of_its_requests_and_outlives_a_bad_one(server: Running, expected: Any) -> None:
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    bad = 3
    with client(server) as opened:
        opened.start_stream(lambda result, error: answers.put((result, error)))
        for number in range(100):
            x = numbers(1, start=number) if number != bad else np.zeros((1, 5), np.float32)
            opened.async_stream_infer("tiny", [tensor(x)], request_id=str(number))
        for number in range(100):
            result, error = answers.get(timeout=PATIENCE_S)
            if number == bad:
                assert "axis 1" in str(error)
                continue
            assert error is None
            assert result.get_response().id == str(number)
            np.testing.assert_allclose(result.as_numpy("y"), expected(numbers(1, start=number)), rtol=1e-5)
        opened.stop_stream()


def test_an_asynchronous_stream_ends_when_its_client_has_sent_its_last(server: Running, expected: Any) -> None:
    async def requests() -> Any:
        for number in range(10):
            yield {"model_name": "tiny", "inputs": [tensor(numbers(1, start=number))], "request_id": str(number)}

    async def main() -> list[str]:
        async with aio.InferenceServerClient(server.grpc) as opened:
            ids: list[str] = []
            async for result, error in opened.stream_infer(requests()):
                assert error is None
                ids.append(result.get_response().id)
            return ids

    assert asyncio.run(main()) == [str(number) for number in range(10)]


def test_a_client_s_deadline_reaches_the_queue(own_server: Running) -> None:
    with client(own_server) as opened:
        with frozen_engine(own_server), pytest.raises(triton.InferenceServerException) as caught:
            opened.infer("tiny", [tensor(numbers(1))], client_timeout=0.3)
        assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        # The place is free again: what comes now is answered.
        opened.infer("tiny", [tensor(numbers(1))], client_timeout=PATIENCE_S)
        statistics = opened.get_inference_statistics("tiny").model_stats[0].inference_stats
        assert statistics.success.count >= 1


def test_the_request_s_own_timeout_is_answered_by_the_server(own_server: Running) -> None:
    with (
        client(own_server) as opened,
        frozen_engine(own_server),
        pytest.raises(triton.InferenceServerException) as caught,
    ):
        opened.infer("tiny", [tensor(numbers(1))], timeout=200_000)
    assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    assert "deadline" in caught.value.message()


def test_what_does_not_fit_the_queue_is_shed_as_resource_exhausted_and_counted(own_server: Running) -> None:
    async def main() -> list[Any]:
        async with aio.InferenceServerClient(own_server.grpc) as opened:
            with frozen_engine(own_server):
                calls = [asyncio.ensure_future(opened.infer("tiny", [tensor(numbers(1))])) for _ in range(8)]
                while sum(call.done() for call in calls) < 6:
                    await asyncio.wait([call for call in calls if not call.done()], return_when="FIRST_COMPLETED")
            return await asyncio.gather(*calls, return_exceptions=True)

    results = asyncio.run(main())
    refused = [result.status() for result in results if isinstance(result, triton.InferenceServerException)]
    assert refused == ["StatusCode.RESOURCE_EXHAUSTED"] * 6
    with client(own_server) as opened:
        statistics = opened.get_inference_statistics("tiny").model_stats[0].inference_stats
    assert (statistics.fail.count, statistics.success.count) == (6, 2)


def test_cancelled_calls_give_their_places_in_the_queue_back(own_server: Running, expected: Any) -> None:
    async def main() -> Any:
        async with aio.InferenceServerClient(own_server.grpc) as opened:
            await opened.is_server_live()
            with frozen_engine(own_server):
                running = asyncio.ensure_future(opened.infer("tiny", [tensor(numbers(1))]))
                await asyncio.sleep(0)
                # Answered after the request before it on the same connection has reached the engine.
                await opened.is_server_live()
                for _ in range(20):
                    waiting = asyncio.ensure_future(opened.infer("tiny", [tensor(numbers(1))]))
                    await asyncio.wait([waiting], timeout=0.01)
                    waiting.cancel()
                    await asyncio.wait([waiting])
                last = await accepted(opened)
            await running
            return (await last).as_numpy("y")

    async def accepted(opened: Any) -> asyncio.Future[Any]:
        """A call that waits in the queue: the cancellation before it may still be on its way."""
        while True:
            call = asyncio.ensure_future(opened.infer("tiny", [tensor(numbers(2))]))
            await asyncio.wait([call], timeout=0.2)
            if not call.done():
                return call
            assert isinstance(call.exception(), triton.InferenceServerException)

    np.testing.assert_allclose(asyncio.run(main()), expected(numbers(2)), rtol=1e-6)
