"""Programs of PyTorch, profiled node by node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hasten.engine.isolate import load_isolated
from hasten.engine.torch import Torch
from hasten.errors import EngineLoadError
from hasten.model.torch_export import export_module
from hasten.spec.target import Target


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(16, 8)

    def forward(self, x: Any) -> Any:
        return torch.relu(self.linear(x)).reshape(-1, 4, 2)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    export_module(Net().eval(), [{"x": np.zeros(16, np.float32)}], tmp_path / "net.pt2")
    return tmp_path / "net.pt2"


@pytest.mark.filterwarnings("ignore")
def test_every_node_has_its_time_its_work_and_its_own_name(program: Path) -> None:
    with load_isolated(program, Target(engine="torch", threads=1)) as session:
        session.put(0, {"x": np.ones((1, 16), np.float32)})
        found = session.profile([0] * 3, warmup=1)
    linear, relu, *views = found.operators
    assert (linear.nodes, linear.kind, linear.flops, linear.matrix) == (("linear",), "linear", 2 * 16 * 8, True)
    assert (relu.kind, relu.flops, relu.bytes_moved) == ("relu", 8, 64)
    assert all((view.flops, view.bytes_moved) == (0, 0) for view in views)
    assert {len(item.us) for item in found.operators} == {3}


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_program_says_why_it_gives_no_times(program: Path) -> None:
    with pytest.raises(EngineLoadError, match="compiled PyTorch program") as caught:
        Torch().profile(program, Target(engine="torch", options={"compile": "aot"}), [], warmup=0)
    assert caught.value.code == "no_profiler"
