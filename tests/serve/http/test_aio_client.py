"""tritonclient's asynchronous client, unchanged, against the real server and a real engine process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from hasten.bundle.read import Bundle
from hasten.serve.server import Running, serve_bundle

aio = pytest.importorskip("tritonclient.http.aio", reason="an independent client judges the server")


@pytest.fixture(scope="module")
def server(bundle: Bundle) -> Iterator[Running]:
    with serve_bundle(bundle) as running:
        yield running


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_an_asynchronous_client_gets_the_answers_to_its_own_questions(
    server: Running, expected: Any, binary: bool
) -> None:
    async def ask(client: Any, number: int) -> None:
        x = np.arange(number, number + 4, dtype=np.float32)[None]
        tensor = aio.InferInput("x", [1, 4], "FP32")
        tensor.set_data_from_numpy(x, binary_data=binary)
        output = aio.InferRequestedOutput("y", binary_data=binary)
        result = await client.infer("tiny", [tensor], outputs=[output], request_id=str(number))
        assert result.get_response()["id"] == str(number)
        np.testing.assert_allclose(result.as_numpy("y"), expected(x), rtol=1e-6)

    async def main() -> None:
        async with aio.InferenceServerClient(urlsplit(server.url).netloc) as client:
            assert await client.is_server_ready()
            await asyncio.gather(*(ask(client, number) for number in range(40)))

    asyncio.run(main())
