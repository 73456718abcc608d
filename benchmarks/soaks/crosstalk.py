"""Thousands of questions at once: each gets its own answer (R28)."""

from __future__ import annotations

import json
import random
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as pb

from servers.process import Server
from soaks.good import METHOD

__all__ = ["WIDTHS", "crosstalk"]

# Connections, and how many calls are under way on each: as many as the server takes on one.
CHANNELS, CALLS, HTTP = 19, 100, 100
WIDTHS = (4, 5, 64, 1000)
ROWS = (1, 2, 3, 8)
# Whether it is quick is another row's question.
PATIENCE_S = 900


def crosstalk(server: Server, seconds: float, rng: random.Random, bundle: Path) -> str:
    """R28: 2,000 unique inputs of mixed shapes at a time, over HTTP and gRPC, to a model that gives them back."""
    rounds, until = 0, time.monotonic() + seconds
    numbers = np.random.default_rng(rng.randrange(2**32))
    with ExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor(HTTP))
        options = [("grpc.use_local_subchannel_pool", 1)]
        asks: list[Any] = [
            stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{server.grpc}", options)).unary_unary(METHOD)
            for _ in range(CHANNELS)
        ]
        while time.monotonic() < until or not rounds:
            shapes = [(rng.choice(ROWS), rng.choice(WIDTHS)) for _ in range(CHANNELS * CALLS + HTTP)]
            inputs = [numbers.normal(size=shape).astype(np.float32) for shape in shapes]
            posted = threads.map(lambda x: _over_http(server, x), inputs[:HTTP])
            calls = [
                asks[number % CHANNELS].future(_message(x), timeout=PATIENCE_S)
                for number, x in enumerate(inputs[HTTP:])
            ]
            _compare(inputs, [*posted, *(_answer(call.result()) for call in calls)])
            rounds += 1
    return f"{rounds} times {len(inputs)} inputs at once, each with its own answer"


def _compare(inputs: list[Any], answers: list[Any]) -> None:
    for x, y in zip(inputs, answers, strict=True):
        # The model gives its input back: unbatched, the answer would be the same to the bit.
        assert x.tobytes() == y, f"an answer of shape {x.shape} is another's"


def _message(x: Any) -> bytes:
    tensor = {"name": "x", "datatype": "FP32", "shape": x.shape}
    request = pb.ModelInferRequest(model_name="tiny", inputs=[tensor], raw_input_contents=[x.tobytes()])
    return request.SerializeToString()


def _answer(data: bytes) -> bytes:
    [content] = pb.ModelInferResponse.FromString(data).raw_output_contents
    return content


def _over_http(server: Server, x: Any) -> bytes:
    tensor = {"name": "x", "datatype": "FP32", "shape": x.shape, "parameters": {"binary_data_size": x.nbytes}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    request = urllib.request.Request(f"{server.url}/v2/models/tiny/infer", head + x.tobytes(), headers)
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        return answer.read()[int(answer.headers["Inference-Header-Content-Length"]) :]
