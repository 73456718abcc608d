"""LitServe before an identity, in an environment of its own. It speaks JSON of its own making, over HTTP only."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from servers.apart import environment
from servers.process import Server, free_ports, launched

VERSION = "0.2.19"
APPLICATION = """\
import sys

import litserve
import numpy


class Same(litserve.LitAPI):
    def setup(self, device):
        pass

    def decode_request(self, request):
        return numpy.asarray(request["x"], numpy.float32)

    def predict(self, x):
        return x

    def encode_response(self, y):
        return {"y": y.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Same(), accelerator="cpu", track_requests=False)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="error", access_log=False, generate_client_file=False)
"""


@contextmanager
def running(work: Path, *, core: int | None = None) -> Generator[Server]:
    """Serve an identity at /predict."""
    python = environment("litserve", f"litserve=={VERSION}", "numpy")
    script = work / "litserve_app.py"
    script.write_text(APPLICATION)
    [http] = free_ports(1)
    command = [str(python), str(script), str(http)]
    with launched("LitServe", command, http=http, ready="/health", core=core, log=work / "litserve.log") as server:
        yield server
