"""What the base of all transforms promises: checks, bisection, reasons, nothing half-written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hasten.data import Dataset
from hasten.data.dataset import Subset
from hasten.model.base import Model
from hasten.model.onnx_file import OnnxModel
from hasten.model.open import open_model
from hasten.transform.base import Options, Task, Transform, TransformFailed

Make = Callable[..., Path]
X = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
NODES = [f"scale{number}" for number in range(8)]


@pytest.fixture
def samples() -> Subset:
    return Dataset(inputs={"x": X}).subset(range(8))


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """Eight multiplications by one, in a row."""
    names = ["x", *(f"h{number}" for number in range(7)), "y"]
    nodes = [helper.make_node("Mul", [names[i], f"one{i}"], [names[i + 1]], name=NODES[i]) for i in range(len(NODES))]
    ones = [numpy_helper.from_array(np.ones(4, np.float32), f"one{i}") for i in range(len(NODES))]
    shape = ["batch", 4]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        ones,
    )
    path = tmp_path / "chain.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


@final
class _Rescale(Transform):
    """Multiplies each site's factor by 1, and the factors named in `harmful` by 2: a broken promise."""

    name = "rescale"
    promise = "exact"
    defaults = {"harmful": "", "rename": False, "crash": False}

    def requires(self, model: Model, options: Options) -> str | None:
        return None

    def sites(self, model: Model, options: Options) -> Sequence[str]:
        assert isinstance(model, OnnxModel)
        return [node.name for node in model.proto.graph.node]

    def apply(self, task: Task) -> None:
        if task.options["crash"]:
            task.out.write_bytes(b"half a model")
            raise RuntimeError("the library fell over")
        assert isinstance(task.model, OnnxModel)
        changed = onnx.ModelProto()
        changed.CopyFrom(task.model.proto)
        harmful = str(task.options["harmful"]).split(",")
        for node, factor in zip(changed.graph.node, changed.graph.initializer, strict=True):
            if node.name in harmful and node.name not in task.skip:
                values = numpy_helper.to_array(factor) * 2
                factor.CopyFrom(numpy_helper.from_array(values, factor.name))
        if task.options["rename"]:
            changed.graph.output[0].name = changed.graph.node[-1].output[0] = "z"
        onnx.save(changed, str(task.out))


def apply(source: Path, folder: Path, samples: Subset, options: dict[str, Any], skip: Sequence[str] = ()) -> Any:
    folder.mkdir(exist_ok=True)
    return _Rescale().run(source, folder, samples, options, skip)


@pytest.mark.parametrize("harmful", [["scale0"], ["scale7"], ["scale2", "scale3"], ["scale0", "scale4", "scale5"]])
def test_the_nodes_that_break_the_promise_are_found_and_only_these_left_alone(
    chain: Path, samples: Subset, tmp_path: Path, harmful: list[str]
) -> None:
    _, applied = apply(chain, tmp_path / "out", samples, {"harmful": ",".join(harmful)})
    assert [item.site for item in applied.skipped] == harmful
    assert all("differs by more than rounding" in item.reason for item in applied.skipped)
    assert applied.sites == 8
    assert applied.error == 0.0


def test_a_technique_that_harms_everywhere_fails_with_the_reason_and_leaves_no_file(
    chain: Path, samples: Subset, tmp_path: Path
) -> None:
    with pytest.raises(TransformFailed, match="broke its promise at every node"):
        apply(chain, tmp_path / "out", samples, {"harmful": ",".join(NODES)})
    assert list((tmp_path / "out").iterdir()) == []


def test_sites_that_the_recipe_skips_stay_skipped_and_say_so(chain: Path, samples: Subset, tmp_path: Path) -> None:
    _, applied = apply(chain, tmp_path / "out", samples, {"harmful": "scale1"}, skip=["scale6"])
    assert {item.site: item.reason for item in applied.skipped}["scale6"] == "the recipe says so"
    assert [item.site for item in applied.skipped] == ["scale1", "scale6"]


def test_a_site_that_is_not_there_is_named(chain: Path, samples: Subset, tmp_path: Path) -> None:
    with pytest.raises(TransformFailed, match="has no site 'scale9'"):
        apply(chain, tmp_path / "out", samples, {}, skip=["scale9"])


def test_changed_inputs_or_outputs_are_found(chain: Path, samples: Subset, tmp_path: Path) -> None:
    with pytest.raises(TransformFailed, match="inputs or outputs changed"):
        apply(chain, tmp_path / "out", samples, {"rename": True})
    assert list((tmp_path / "out").iterdir()) == []


def test_what_a_library_throws_becomes_a_reason_and_leaves_no_file(
    chain: Path, samples: Subset, tmp_path: Path
) -> None:
    with pytest.raises(TransformFailed, match="rescale failed: RuntimeError: the library fell over"):
        apply(chain, tmp_path / "out", samples, {"crash": True})
    assert list((tmp_path / "out").iterdir()) == []


def test_operator_counts_before_and_after_are_told(chain: Path, samples: Subset, tmp_path: Path) -> None:
    model, applied = apply(chain, tmp_path / "out", samples, {})
    assert applied.operators_before == applied.operators_after == {"Mul": 8}
    assert open_model(model).signature == open_model(chain).signature
