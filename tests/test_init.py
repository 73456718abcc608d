"""Importing hasten: what engines and techniques tell nobody from then on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.transform.small_models import small_convolutions

# Each event of a socket, of any thread, goes to standard error.
LISTENING = (
    "import sys; sys.addaudithook(lambda event, _: event.startswith('socket.') and print(event, file=sys.stderr))"
)
QUANTIZE = """
from pathlib import Path
import numpy as np
from hasten.data import Dataset
from hasten.transform.base import transforms
here = Path(sys.argv[1])
images = np.random.default_rng(1).normal(size=(12, 3, 16, 16)).astype(np.float32)
samples = Dataset(inputs={"image": images}).subset(range(12))
(here / "out").mkdir()
print(transforms.get("quantize_nncf").run(here / "model.onnx", here / "out", samples, {}, ())[0])
"""
ASK = """
from pathlib import Path
import numpy as np
from hasten.engine.base import engines
from hasten.engine.isolate import load_isolated
from hasten.spec.target import Target
target, row = Target(engine="ENGINE"), {"x": np.ones((1, 4), np.float32)}
with load_isolated(Path(sys.argv[1]), target) as session:
    session.run(row)
session = engines.get(target.engine).load(Path(sys.argv[1]), target)
print(*session.run(row))
session.close()
"""


def alone(code: str, argument: Path, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of somebody who has a home and has decided nothing, as no tester and no CI has."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(argument)],
        capture_output=True,
        text=True,
        env={**kept, "HOME": str(home), **variables},
    )
    assert done.returncode == 0, done.stderr
    return done


def told(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether somebody elsewhere was looked for."""
    return "socket.connect" in done.stderr or "socket.getaddrinfo" in done.stderr


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_engine_leaves_no_identifier_of_the_machine_and_nothing_to_send(
    engine: str, tmp_path: Path, make_linear: Callable[..., Path]
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    done = alone(LISTENING + ASK.replace("ENGINE", engine), make_linear(), home)
    assert done.stdout == "y\n"
    assert not told(done)
    assert list(home.rglob("*")) == []


def test_nncf_reaches_nobody(tmp_path: Path) -> None:
    small_convolutions(tmp_path / "model.onnx")
    home = tmp_path / "home"
    home.mkdir()
    done = alone(LISTENING + QUANTIZE, tmp_path, home)
    assert done.stdout.strip().endswith("model.onnx")
    assert not told(done)
    assert list(home.rglob("*")) == []


def test_whoever_wants_to_tell_makers_says_so_first(tmp_path: Path) -> None:
    code = "import os, sys, hasten; print(os.environ['ORT_DISABLE_TELEMETRY'], sys.modules['openvino_telemetry'])"
    assert alone(code, tmp_path, tmp_path).stdout == "1 None\n"
    first = f"import openvino_telemetry; {code}"
    assert alone(first, tmp_path, tmp_path, ORT_DISABLE_TELEMETRY="0").stdout.startswith("0 <module")
