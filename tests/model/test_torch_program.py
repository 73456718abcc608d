"""PyTorch programs are read without torch, and nothing that could run reaches torch."""

from __future__ import annotations

import copy
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hasten.errors import ModelError
from hasten.formats.torch_archive import load_program, open_archive, write_safe_copy
from hasten.model.open import open_model
from hasten.model.torch_export import export_module
from hasten.model.torch_program import open_program

Change = Callable[[dict[str, Any]], None]
X = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


class TwoHeads(torch.nn.Module):
    """Two inputs, two outputs, a parameter and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(4, 2)
        self.register_buffer("scale", torch.ones(2))

    def forward(self, left: Any, right: Any) -> Any:
        mixed = self.head(left + right)
        return mixed * self.scale, mixed.argmax(1)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "two.pt2"
    assert export_module(TwoHeads(), [{"left": X[0], "right": X[1]}], path) == []
    return path


def rewritten(
    source: Path, out: Path, change: Change, extra: dict[str, bytes] | None = None, packed: int = zipfile.ZIP_STORED
) -> Path:
    """Copy a program with its graph changed and with entries added or replaced."""
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(out, "w", packed) as target:
        root = archive.namelist()[0].partition("/")[0]
        graph = json.loads(archive.read(f"{root}/models/model.json"))
        change(graph)
        entries = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
        entries |= {"models/model.json": json.dumps(graph).encode(), **(extra or {})}
        for name, content in entries.items():
            target.writestr(f"{root}/{name}", content)
    return out


def nothing(graph: dict[str, Any]) -> None:
    """Leave the graph as it is."""


def test_interface_weights_and_operators_are_read_from_the_file(program: Path) -> None:
    model = open_program(program)
    left, right = model.signature.inputs
    assert (left.name, right.name) == ("left", "right")
    assert left.dtype == "FP32"
    assert isinstance(left.shape[0], str)
    assert left.shape == (left.shape[0], 4)
    assert [output.dtype for output in model.signature.outputs] == ["FP32", "INT64"]
    assert model.parameters() == 4 * 2 + 2 + 2
    assert model.operators() == {"add": 1, "linear": 1, "mul": 1, "argmax": 1}
    assert model.metadata()["torch_version"] == torch.__version__
    assert model.files() == [program]
    assert model.bytes_on_disk == program.stat().st_size


def test_reading_a_program_does_not_import_torch(program: Path) -> None:
    code = (
        "import sys; from hasten.model.open import open_model; "
        f"open_model({str(program)!r}).operators(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_safe_copy_answers_as_the_original_and_carries_no_paths(program: Path, tmp_path: Path) -> None:
    archive = open_archive(program)
    left, right = torch.from_numpy(X), torch.from_numpy(X[::-1].copy())
    torch.manual_seed(0)
    expected = torch.export.load(str(program)).module()(left=left, right=right)
    answer = load_program(archive).module()(left=left, right=right)
    assert all(torch.equal(a, b) for a, b in zip(expected, answer, strict=True))
    write_safe_copy(archive, tmp_path / "copy.pt2")
    assert b".py" not in (tmp_path / "copy.pt2").read_bytes()


def test_a_renamed_program_is_still_one(program: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(program.read_bytes())
    assert open_model(tmp_path / "model.onnx").format == "torch"


class Canary:
    """Unpickling it makes a folder."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.mkdir, (self.place,)


def pickled(place: Path) -> bytes:
    out = io.BytesIO()
    torch.save(Canary(str(place)), out)
    return out.getvalue()


@pytest.mark.parametrize(
    "entry",
    [
        "data/weights/model.pt", "data/weights/evil", "data/constants/model.pt", "data/constants/custom_obj_0",
        "models/other.json", "data/aotinductor/model/model.so", "code/run.py", "../outside", "data.pkl",
    ],
)  # fmt: skip
def test_entries_that_can_carry_code_are_refused(program: Path, tmp_path: Path, entry: str) -> None:
    path = rewritten(program, tmp_path / "m.pt2", nothing, {entry: pickled(tmp_path / "touched")})
    with pytest.raises(ModelError, match=r"can carry code|no program"):
        load_program(open_archive(path))
    assert not (tmp_path / "touched").exists()


def test_sample_inputs_never_reach_the_unpickler(program: Path, tmp_path: Path) -> None:
    path = rewritten(program, tmp_path / "m.pt2", nothing, {"data/sample_inputs/model.pt": pickled(tmp_path / "no")})
    load_program(open_archive(path))
    assert not (tmp_path / "no").exists()


def test_guards_are_not_executed(program: Path, tmp_path: Path) -> None:
    path = rewritten(program, tmp_path / "m.pt2", lambda graph: graph.update(guards_code=["__import__('os').abort()"]))
    load_program(open_archive(path)).module()


@pytest.mark.parametrize(
    "table", ["data/weights/model_weights_config.json", "data/constants/model_constants_config.json"]
)
def test_pickled_weights_are_refused(program: Path, tmp_path: Path, table: str) -> None:
    marked = {"config": {"head.weight": {"path_name": "weight_0", "is_param": True, "use_pickle": True}}}
    extra = {table: json.dumps(marked).encode(), "data/weights/weight_0": pickled(tmp_path / "touched")}
    with pytest.raises(ModelError, match="as a Python pickle"):
        open_program(rewritten(program, tmp_path / "m.pt2", nothing, extra))


def node(graph: dict[str, Any]) -> dict[str, Any]:
    return graph["graph_module"]["graph"]["nodes"][0]


def sizes(graph: dict[str, Any]) -> list[Any]:
    return graph["graph_module"]["graph"]["tensor_values"]["left"]["sizes"]


def call(graph: dict[str, Any]) -> dict[str, Any]:
    return graph["graph_module"]["module_call_graph"][0]["signature"]


def structure(context: Any, kind: str = "builtins.dict") -> str:
    leaf = {"type": None, "context": None, "children_spec": []}
    return json.dumps([1, {"type": kind, "context": json.dumps(context), "children_spec": [leaf]}])


CODE = "__import__('os').abort()"
ENUM = {"__enum__": True, "fqn": "antigravity:x", "name": "y"}
FACTORY = {"default_factory_module": "antigravity", "default_factory_name": "x", "dict_context": []}


@pytest.mark.parametrize(
    "change",
    [
        lambda g: node(g).update(target="torch.ops.aten.from_file.default"),
        lambda g: node(g).update(target="torch.ops.aten.save.default"),
        lambda g: node(g).update(target="torch.ops.aten.__class__"),
        lambda g: node(g).update(target="torch.ops.aten.add.__init__"),
        lambda g: node(g).update(target="torch.ops.prim.rpc_sync.default"),
        lambda g: node(g).update(target="torch.ops.load_library"),
        lambda g: node(g).update(target="torch.load"),
        lambda g: node(g).update(target="torch.hub.load"),
        lambda g: node(g).update(target="_operator.attrgetter"),
        lambda g: node(g).update(target="#import"),
        lambda g: node(g).update(target="builtins.eval"),
        lambda g: node(g).update(name=CODE),
        lambda g: node(g)["inputs"][0].update(name=f"a={CODE}, b"),
        lambda g: node(g)["inputs"][0].update(arg={"as_graph": {"name": "g", "graph": {"nodes": []}}}),
        lambda g: node(g)["inputs"][0].update(arg={"as_operator": "torch.load"}),
        lambda g: node(g)["inputs"][0].update(arg={"as_custom_obj": {"name": "o", "class_fqn": "os"}}),
        lambda g: node(g)["inputs"][0].update(arg={"as_sym_int": {"as_name": CODE}}),
        lambda g: node(g)["outputs"][0]["as_tensor"].update(name=f"x\n{CODE}"),
        lambda g: g["graph_module"]["graph"]["inputs"][0]["as_tensor"].update(name=CODE),
        lambda g: g["graph_module"]["signature"]["input_specs"][0]["parameter"].update(parameter_name=f'a"),{CODE},("'),
        lambda g: call(g).update(forward_arg_names=[f"left={CODE}", "right"]),
        lambda g: call(g).update(in_spec=structure([f"left={CODE}"])),
        lambda g: call(g).update(in_spec=structure(ENUM, "builtins.list")),
        lambda g: call(g).update(out_spec=structure(ENUM)),
        lambda g: call(g).update(out_spec=structure([ENUM])),
        lambda g: call(g).update(out_spec=structure(FACTORY, "collections.defaultdict")),
        lambda g: call(g).update(out_spec=structure(None, "my.Output")),
        lambda g: g["range_constraints"].update({CODE: {"min_val": 1, "max_val": 2}}),
        lambda g: sizes(g).append({"as_expr": {"expr_str": CODE}}),
        lambda g: sizes(g).append({"as_expr": {"expr_str": "(" * 999}}),
    ],
    ids=range(30),
)  # fmt: skip
def test_what_torch_would_turn_into_code_is_refused(program: Path, tmp_path: Path, change: Change) -> None:
    with pytest.raises(ModelError):
        open_archive(rewritten(program, tmp_path / "m.pt2", change))


def test_the_checks_above_start_from_a_program_that_passes(program: Path, tmp_path: Path) -> None:
    assert open_archive(rewritten(program, tmp_path / "m.pt2", nothing)).entries


@pytest.mark.parametrize(
    "text",
    [
        "Mul(Integer(384), Symbol('s53', positive=True, integer=True))",
        "Add(Pow(Symbol('s0', integer=True), Integer(2)), Integer(-1))",
        "2*s0 + Max(1, s1)",
    ],
)
def test_sizes_that_are_arithmetic_of_symbols_pass(text: str, program: Path, tmp_path: Path) -> None:
    changed = rewritten(program, tmp_path / "m.pt2", lambda g: sizes(g).append({"as_expr": {"expr_str": text}}))
    assert open_archive(changed).entries


def test_a_compressed_archive_is_refused_before_it_is_unpacked(program: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="compressed"):
        open_program(rewritten(program, tmp_path / "m.pt2", nothing, packed=zipfile.ZIP_DEFLATED))


@pytest.mark.parametrize(
    "change",
    [
        lambda g: g.pop("graph_module"),
        lambda g: g["graph_module"].pop("module_call_graph"),
        lambda g: g["graph_module"]["graph"].update(nodes=None),
        lambda g: g["graph_module"]["graph"]["nodes"][0].pop("target"),
        lambda g: g["graph_module"]["graph"].update(tensor_values={}),
        lambda g: g["graph_module"]["signature"].update(input_specs=[{"user_input": {"arg": {"as_int": 3}}}]),
        lambda g: g["graph_module"]["signature"].update(input_specs=[{"custom_obj": {}}]),
        lambda g: call(g).update(in_spec="[1]"),
        lambda g: call(g).update(in_spec="not json"),
    ],
    ids=range(9),
)
def test_a_damaged_graph_is_named(program: Path, tmp_path: Path, change: Change) -> None:
    with pytest.raises(ModelError, match=r"m\.pt2"):
        open_program(rewritten(program, tmp_path / "m.pt2", change))


def test_truncated_and_flipped_files_are_refused_or_harmless(program: Path, tmp_path: Path) -> None:
    raw = program.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [raw[: int(cut)] for cut in np.linspace(5, len(raw) - 1, 16)]
    for _ in range(100):
        flipped = bytearray(raw)
        flipped[int(rng.integers(4, len(raw)))] ^= 1 << int(rng.integers(8))
        damaged.append(bytes(flipped))
    refused = 0
    for content in damaged:
        (tmp_path / "m.pt2").write_bytes(content)
        try:
            open_program(tmp_path / "m.pt2")
        except ModelError:
            refused += 1
    assert refused >= 16


class Stateful(torch.nn.Module):
    """Counts its calls in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Any) -> Any:
        self.calls.add_(1)
        return x + self.calls


class Noisy(torch.nn.Module):
    """Answers otherwise each time."""

    def forward(self, x: Any) -> Any:
        return x + torch.rand_like(x)


class Opaque(torch.nn.Module):
    """Leaves what can be traced."""

    def forward(self, x: Any) -> Any:
        return x * float(np.asarray(x.detach().cpu().tolist()).sum())


class FixedBatch(torch.nn.Module):
    """Works for one row only."""

    def forward(self, x: Any) -> Any:
        return x.reshape(4) * 2


def test_a_module_that_insists_on_one_row_is_exported_with_a_note(tmp_path: Path) -> None:
    [note] = export_module(FixedBatch(), [{"x": X[0]}], tmp_path / "m.pt2")
    assert note.startswith("The batch is fixed to 1")
    assert open_program(tmp_path / "m.pt2").signature.inputs[0].shape == (1, 4)


@pytest.mark.parametrize(
    ("module", "words"),
    [(Noisy(), "answers otherwise"), (Stateful(), "state|otherwise"), (Opaque(), "cannot be exported"), ("text", "no")],
)
def test_modules_that_are_no_function_of_their_inputs_are_refused(tmp_path: Path, module: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        export_module(copy.deepcopy(module), [{"x": X[0]}], tmp_path / "m.pt2")
