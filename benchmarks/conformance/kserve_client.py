"""KServe's own clients, unchanged, in an environment of their own: they and tritonclient define the same messages.

    python kserve_client.py HTTP_PORT GRPC_PORT

Prints one JSON object: for each question "kserve NAME: ..." a status, "OK" or the error's type, and what was said.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

X = np.array([[1, 2.5, -3, 400]], np.float32)


def request(binary_in: bool, binary_out: bool | None, model: str = "tiny") -> InferRequest:
    tensor = InferInput("x", list(X.shape), "FP32")
    tensor.set_data_from_numpy(X, binary_data=binary_in)
    outputs = None if binary_out is None else [RequestedOutput("y", {"binary_data": binary_out})]
    return InferRequest(model, [tensor], request_id="k1", request_outputs=outputs)


async def told(question: Callable[[], Awaitable[Any]]) -> tuple[str, str]:
    try:
        answer = await question()
    except Exception as error:
        return type(error).__name__, ""
    if isinstance(answer, bool):
        return "OK", str(answer)
    [output] = answer.outputs
    return "OK", f"id {answer.id}, {output.name} {output.datatype}{output.shape} = {output.as_numpy().ravel().tolist()}"


async def main(http: str, grpc: str) -> None:
    url = f"http://127.0.0.1:{http}"
    rest = InferenceRESTClient(RESTConfig(protocol="v2", retries=0, timeout=10))
    calls = InferenceGRPCClient(f"127.0.0.1:{grpc}", use_ssl=False, retries=0)
    questions: dict[str, Callable[[], Awaitable[Any]]] = {
        "kserve http: live": lambda: rest.is_server_live(url),
        "kserve http: ready": lambda: rest.is_server_ready(url),
        "kserve http: model ready": lambda: rest.is_model_ready(url, "tiny"),
        "kserve http: another model ready": lambda: rest.is_model_ready(url, "nobody"),
        "kserve http: JSON both ways": lambda: rest.infer(url, request(False, False), model_name="tiny"),
        "kserve http: binary in": lambda: rest.infer(url, request(True, False), model_name="tiny"),
        "kserve http: binary out": lambda: rest.infer(url, request(False, True), model_name="tiny"),
        "kserve http: binary both ways": lambda: rest.infer(url, request(True, True), model_name="tiny"),
        "kserve http: no outputs named": lambda: rest.infer(url, request(True, None), model_name="tiny"),
        "kserve http: model unknown": lambda: rest.infer(url, request(False, False), model_name="nobody"),
        "kserve grpc: live": calls.is_server_live,
        "kserve grpc: ready": calls.is_server_ready,
        "kserve grpc: model ready": lambda: calls.is_model_ready("tiny"),
        "kserve grpc: another model ready": lambda: calls.is_model_ready("nobody"),
        "kserve grpc: typed contents": lambda: calls.infer(request(False, None)),
        "kserve grpc: raw contents": lambda: calls.infer(request(True, None)),
        "kserve grpc: model unknown": lambda: calls.infer(request(True, None, "nobody")),
    }
    said = {name: await told(question) for name, question in questions.items()}
    await rest.close()
    await calls.close()
    print(json.dumps(said))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
