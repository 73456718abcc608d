"""Cancelled calls leave nothing behind (the short form of the soak that cancels 20,000)."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
import warnings
from typing import Any

import numpy as np
import psutil
import pytest

from hasten.serve.grpc.call import Call
from hasten.serve.grpc.stream import Stream
from hasten.serve.server import Running

aio = pytest.importorskip("tritonclient.grpc.aio", reason="an independent client cancels")

ROUND, ROUNDS = 100, 3
GROWTH_BYTES = 16 * 2**20
PATIENCE_S = 15.0


def tensor() -> Any:
    one = aio.InferInput("x", [8, 4], "FP32")
    one.set_data_from_numpy(np.ones((8, 4), np.float32))
    return one


async def cancel_unary(client: Any) -> None:
    call = asyncio.ensure_future(client.infer("tiny", [tensor()]))
    await asyncio.wait([call], timeout=0.002)
    call.cancel()
    await asyncio.wait([call])


async def cancel_stream(client: Any) -> None:
    async def requests() -> Any:
        yield {"model_name": "tiny", "inputs": [tensor()]}
        await asyncio.Event().wait()

    stream = client.stream_infer(requests())

    async def read() -> None:
        async for _ in stream:
            pass

    task = asyncio.ensure_future(read())
    await asyncio.wait([task], timeout=0.002)
    stream.cancel()
    await asyncio.wait([task])


async def rounds(server: Running, count: int) -> None:
    async with aio.InferenceServerClient(server.grpc) as client:
        for _ in range(count):
            await asyncio.gather(*(cancel_unary(client) for _ in range(ROUND)))
            await asyncio.gather(*(cancel_stream(client) for _ in range(ROUND // 2)))
        # Answered after what was cancelled before it.
        assert await client.is_server_live()


def alive(*kinds: type) -> int:
    gc.collect()
    with warnings.catch_warnings():
        # Asking what an object is wakes deprecated ones of other libraries in this process.
        warnings.simplefilter("ignore")
        return sum(isinstance(one, kinds) for one in gc.get_objects())


def test_cancelled_calls_and_streams_leave_neither_calls_nor_memory_behind(server: Running) -> None:
    pid = server.services["tiny"].engine_pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        asyncio.run(rounds(server, 2))
        before = psutil.Process().memory_info().rss
        asyncio.run(rounds(server, ROUNDS))
    finally:
        os.kill(pid, signal.SIGCONT)
    # They did reach the queue.
    assert server.services["tiny"].tally.failures["cancelled"] > ROUND
    deadline = time.monotonic() + PATIENCE_S
    while alive(Call, Stream):
        assert time.monotonic() < deadline, "calls are left"
    assert psutil.Process().memory_info().rss - before < GROWTH_BYTES
