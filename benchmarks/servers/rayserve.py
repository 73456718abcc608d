"""Ray Serve before an identity, in an environment of its own. It speaks what a deployment does, here JSON over HTTP."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from servers.apart import environment
from servers.process import Server, free_ports, launched

VERSION = "2.60.0"
APPLICATION = """\
import signal
import sys

import numpy
import ray
from ray import serve


@serve.deployment(max_ongoing_requests=64)
class Same:
    async def __call__(self, request):
        x = (await request.json())["x"]
        return {"y": numpy.asarray(x, numpy.float32).tolist()}


if __name__ == "__main__":
    ray.init(include_dashboard=False, num_cpus=2, object_store_memory=100 * 2**20, _temp_dir=sys.argv[2])
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Same.bind(), route_prefix="/predict")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()
"""


@contextmanager
def running(work: Path, *, core: int | None = None) -> Generator[Server]:
    """Serve an identity at /predict. Ray itself is a handful of processes, which all stay on the core."""
    python = environment("ray", f"ray[serve]=={VERSION}", "numpy")
    script = work / "ray_app.py"
    script.write_text(APPLICATION)
    [http] = free_ports(1)
    # Its sockets are files, whose paths may not be long.
    with (
        tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder,
        launched(
            "Ray Serve",
            [str(python), str(script), str(http), folder],
            http=http,
            ready="/-/healthz",
            core=core,
            environment={"RAY_USAGE_STATS_ENABLED": "0"},
            log=work / "ray.log",
        ) as server,
    ):
        yield server
