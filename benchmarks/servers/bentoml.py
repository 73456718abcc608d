"""BentoML before an identity, in an environment of its own. It speaks JSON of its own making, over HTTP."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from servers.apart import environment
from servers.process import Server, free_ports, launched

VERSION = "1.4.40"
APPLICATION = """\
import bentoml
import numpy


@bentoml.service(workers=1, traffic={"timeout": 20, "concurrency": 64})
class Same:
    @bentoml.api(route="/predict")
    def predict(self, x: list[float]) -> dict[str, list[float]]:
        return {"y": numpy.asarray(x, numpy.float32).tolist()}
"""


@contextmanager
def running(work: Path, *, core: int | None = None) -> Generator[Server]:
    """Serve an identity at /predict."""
    python = environment("bentoml", f"bentoml=={VERSION}", "numpy")
    (folder := work / "bentoml").mkdir()
    (folder / "service.py").write_text(APPLICATION)
    [http] = free_ports(1)
    command = [str(python), "-m", "bentoml", "serve", "service:Same", "--working-dir", str(folder)]
    with launched(
        "BentoML",
        [*command, "--host", "127.0.0.1", "--port", str(http)],
        http=http,
        ready="/readyz",
        core=core,
        environment={"BENTOML_HOME": str(folder / "home"), "BENTOML_DO_NOT_TRACK": "True"},
        log=work / "bentoml.log",
    ) as server:
        yield server
