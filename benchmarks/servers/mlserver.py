"""MLServer before an identity model, in an environment of its own. No workers: one core has no use for them."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from servers.apart import environment
from servers.identity import Identity
from servers.process import Server, free_ports, launched

VERSION = "1.7.1"
RUNTIME = """\
from mlserver import MLModel
from mlserver.types import InferenceResponse, ResponseOutput


class Same(MLModel):
    async def predict(self, payload):
        outputs = [
            ResponseOutput(name=given, shape=one.shape, datatype=one.datatype, data=one.data, parameters=one.parameters)
            for one, given in zip(payload.inputs, {given!r})
        ]
        return InferenceResponse(model_name=self.name, model_version=self.version, id=payload.id, outputs=outputs)
"""


@contextmanager
def running(model: Identity, work: Path, *, core: int | None = None) -> Generator[Server]:
    """Serve an identity model over HTTP and gRPC."""
    python = environment("mlserver", f"mlserver=={VERSION}")
    folder = work / "mlserver"
    folder.mkdir()
    http, grpc, metrics = free_ports(3)
    settings = {
        "debug": False,
        "host": "127.0.0.1",
        "http_port": http,
        "grpc_port": grpc,
        "metrics_port": metrics,
        "parallel_workers": 0,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps({"name": model.name, "implementation": "same.Same"}))
    (folder / "same.py").write_text(RUNTIME.format(given=tuple(tensor.given for tensor in model.tensors)))
    with launched(
        "MLServer",
        [str(python.parent / "mlserver"), "start", str(folder)],
        http=http,
        grpc=grpc,
        core=core,
        log=work / "mlserver.log",
    ) as server:
        yield server
