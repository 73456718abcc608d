"""This hasten, as its users start it: `hasten serve`, with every check and the scheduler on."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from servers.process import Server, free_ports, launched

SOURCE = Path(__file__).parents[2] / "src"


@contextmanager
def running(
    bundles: Sequence[Path],
    work: Path,
    *,
    name: str = "hasten",
    core: int | None = None,
    config: str = "",
    more: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
    source: Path = SOURCE,
) -> Generator[Server]:
    """Serve bundles over HTTP and gRPC; `config` is the text of a serve.toml, `more` are further flags, `source` the
    tree that runs.
    """
    http, grpc = free_ports(2)
    command = [sys.executable, "-m", "hasten.cli", "serve", *map(str, bundles), "--drain-delay", "0", *more]
    if config:
        (work / "serve.toml").write_text(config)
        command += ["--config", str(work / "serve.toml")]
    with launched(
        name,
        [*command, "--http", f"127.0.0.1:{http}", "--grpc", f"127.0.0.1:{grpc}"],
        http=http,
        grpc=grpc,
        core=core,
        environment={
            "PYTHONPATH": os.pathsep.join([str(source.resolve()), os.environ.get("PYTHONPATH", "")]),
            **(variables or {}),
        },
        log=work / "hasten.log",
    ) as server:
        yield server
