"""What may stand in an archive that `torch.export.save` wrote, and a copy of it that is safe to load.

`torch.export.load` is not safe on foreign files: weights marked `use_pickle`, weights in the format of older versions,
custom objects and sample inputs are unpickled without restriction, guards are executed as Python, symbolic shapes are
evaluated, names become Python source (`hasten.formats.torch_names`), and a node may name any function of the torch
package. So the archive is checked entry by entry and rewritten: only raw weights, their tables and the graph, with
known operators and plain arithmetic in it, and nothing else, reach torch.
"""

from __future__ import annotations

import ast
import json
import re
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hasten.errors import ModelError
from hasten.formats.torch_names import check_names
from hasten.spec.signature import Signature
from hasten.spec.tensor import DType, TensorSpec

__all__ = ["Archive", "load_program", "open_archive", "signature_of", "write_safe_copy"]

# Entries below the archive's root folder. Sample inputs are left out of the copy: torch takes an empty file for none.
_KEPT = re.compile(
    r"(data/weights/(weight_\d+|[\w.]+_weights_config\.json)"
    r"|data/constants/(tensor_\d+|[\w.]+_constants_config\.json)"
    r"|models/model\.json|archive_format|archive_version|byteorder|\.data/\w+|version)"
)
_DROPPED = re.compile(r"(data/sample_inputs/[\w.]+|extra/[\w.]*)")
_OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims|quantized_decomposed)\.(?!__)\w+(\.(?!_)\w+)?|torch\.sym_\w+"
    r"|torch\.ops\.aten\.__(and|or|xor|lshift|rshift)__\.\w+"
)
_PYTHON = re.compile(
    r"_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|neg|pow|eq|ne|lt|le|gt|ge|and_|or_)|math\.(ceil|floor|trunc)"
)
# Operators that reach outside the model, or change how torch works.
_OUTSIDE = re.compile(r"\.(from_file|save|_print|warn|manual_seed|seed|set_grad_enabled|dist_backward)(\.|$)")
# Operators whose result shares memory with their input.
_VIEWS = {
    "alias", "detach", "expand", "flatten", "narrow", "permute", "reshape", "select", "slice", "squeeze", "t", "to",
    "transpose", "unflatten", "unsqueeze", "view", "contiguous",
}  # fmt: skip
_SYMBOL = re.compile(r"[a-z]{1,4}\d+")
_FUNCTIONS = {
    "Symbol", "Integer", "Add", "Mul", "Abs", "Max", "Min", "Mod", "PythonMod", "FloorDiv", "CleanDiv", "CeilDiv",
    "IntTrueDiv", "Pow",
    "PowByNatural", "ToFloat", "TruncToInt", "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or", "Not", "floor", "ceiling",
}  # fmt: skip
_NAMES = {"oo", "int_oo", "True", "False"}
_ARITHMETIC = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.Compare, ast.BoolOp, ast.operator, ast.unaryop, ast.cmpop, ast.boolop,
    ast.Call, ast.keyword, ast.Name, ast.Constant, ast.Load,
)  # fmt: skip
_LARGEST_TABLE = 256 * 2**20
# Element types by their number in the archive's schema (torch._export.serde.schema.ScalarType).
_DTYPES: dict[int, DType] = {
    1: "UINT8", 2: "INT8", 3: "INT16", 4: "INT32", 5: "INT64", 6: "FP16", 7: "FP32", 8: "FP64", 12: "BOOL", 13: "BF16",
    28: "UINT16", 34: "UINT32", 35: "UINT64",
}  # fmt: skip


class Archive:
    """A checked archive: the graph and the names of its entries."""

    def __init__(self, path: Path, root: str, program: dict[str, Any], entries: list[str]) -> None:
        self.path = path
        self.root = root
        self.program = program
        self.entries = entries

    @property
    def graph(self) -> dict[str, Any]:
        """The graph: inputs, outputs, nodes, tensor values."""
        return self.program["graph_module"]["graph"]


def open_archive(path: Path) -> Archive:
    """Check every entry and the whole graph. Raises `ModelError` naming what is wrong; nothing is executed."""
    try:
        with zipfile.ZipFile(path) as archive:
            root, entries = _entries(path, archive)
            if "models/model.json" not in entries:
                raise _no_program(path, "it holds no exported program")
            program = json.loads(_table(path, archive, f"{root}/models/model.json"))
            for entry in entries:
                if entry.endswith("_config.json"):
                    _refuse_pickled(path, json.loads(_table(path, archive, f"{root}/{entry}")))
        _check_program(path, program)
        check_names(path, program)
    except (zipfile.BadZipFile, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _no_program(path, f"its contents cannot be read ({type(error).__name__})") from error
    return Archive(path, root, program, entries)


def write_safe_copy(archive: Archive, out: Path) -> None:
    """Write the archive with nothing in it that torch would execute or unpickle."""
    program = {**archive.program, "guards_code": []}
    graph = {**archive.graph, "nodes": [{**node, "metadata": {}} for node in archive.graph["nodes"]]}
    unused = {"metadata": {}, "treespec_namedtuple_fields": {}}
    program["graph_module"] = {**archive.program["graph_module"], "graph": graph, **unused}
    with zipfile.ZipFile(archive.path) as source, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as target:
        for entry in archive.entries:
            if entry == "models/model.json":
                target.writestr(f"{archive.root}/{entry}", json.dumps(program))
            elif _KEPT.fullmatch(entry):
                target.writestr(f"{archive.root}/{entry}", source.read(f"{archive.root}/{entry}"))
        target.writestr(f"{archive.root}/data/sample_inputs/model.pt", b"")


def load_program(archive: Archive) -> Any:
    """Give the safe copy to torch and return its `ExportedProgram`."""
    import torch

    with tempfile.TemporaryDirectory(prefix="hasten-torch-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        copy = Path(folder) / "model.pt2"
        write_safe_copy(archive, copy)
        return torch.export.load(str(copy))


def signature_of(archive: Archive) -> Signature:
    """Inputs and outputs of the program, outputs under the names of the graph's values. Raises `ModelError`."""
    signature = archive.program["graph_module"]["signature"]
    inputs: list[TensorSpec] = []
    for spec in signature["input_specs"]:
        kind = next(iter(spec))
        if kind == "user_input":
            inputs.append(_spec(archive, spec["user_input"]["arg"], "input"))
        elif kind not in ("parameter", "buffer", "tensor_constant"):
            raise _refused(archive.path, f"an input of kind {kind!r}")
    _refuse_state(archive, {spec.name for spec in inputs})
    outputs: list[TensorSpec] = []
    for spec in signature["output_specs"]:
        kind = next(iter(spec))
        if kind != "user_output":
            raise _refused(archive.path, f"an output of kind {kind!r}: the module changes its own state when it runs")
        outputs.append(_spec(archive, spec["user_output"]["arg"], "output"))
    return Signature(inputs=tuple(inputs), outputs=tuple(outputs))


def _refuse_state(archive: Archive, given: set[str]) -> None:
    """Raise where an operator writes into a weight or an input, or into a view of one."""
    specs = archive.program["graph_module"]["signature"]["input_specs"]
    kept = given | {(next(iter(spec.values())).get("arg") or {}).get("name", "") for spec in specs}
    for node in archive.graph["nodes"]:
        parts = node["target"].split(".")
        name = parts[3] if len(parts) > 3 else ""
        first = ((node["inputs"] or [{}])[0].get("arg") or {}).get("as_tensor") or {}
        if first.get("name") not in kept:
            continue
        if name.endswith("_") and not name.startswith("__"):
            raise _refused(archive.path, f"an operator, {name!r}, that changes an input or the module's own state")
        if name in _VIEWS:
            made = (output.get("as_tensor") or {} for output in node["outputs"])
            kept |= {item["name"] for item in made if "name" in item}


def _spec(archive: Archive, argument: dict[str, Any], what: str) -> TensorSpec:
    if "as_tensor" not in argument:
        raise _refused(archive.path, f"an {what} that is no tensor")
    name = argument["as_tensor"]["name"]
    value = archive.graph["tensor_values"][name]
    dtype = _DTYPES.get(value["dtype"])
    if dtype is None:
        raise _refused(archive.path, f"the {what} {name!r} of an element type that hasten cannot carry")
    return TensorSpec(name=name, dtype=dtype, shape=tuple(_dim(size) for size in value["sizes"]))


def _dim(size: dict[str, Any]) -> int | str:
    if "as_int" in size:
        return int(size["as_int"])
    found = re.findall(r"\b[a-z]{1,4}\d+\b", size["as_expr"]["expr_str"])
    return found[0] if len(set(found)) == 1 else "?"


def _refused(path: Path, what: str) -> ModelError:
    return ModelError(
        f"{path} has {what}.", remedy="Export it in eval mode, with plain tensors as inputs and outputs and no state."
    )


def _entries(path: Path, archive: zipfile.ZipFile) -> tuple[str, list[str]]:
    names = [info.filename for info in archive.infolist() if not info.is_dir()]
    roots = {name.partition("/")[0] for name in names}
    if len(roots) != 1 or len(set(names)) != len(names):
        raise _no_program(path, "it has no single root folder")
    # torch stores entries as they are. A small file that unpacks to a huge one is none of its own.
    if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
        raise _no_program(path, "its entries are compressed")
    root = roots.pop()
    entries = [name.partition("/")[2] for name in names]
    for entry in entries:
        if not (_KEPT.fullmatch(entry) or _DROPPED.fullmatch(entry)):
            raise ModelError(
                f"{path} holds {entry!r}, which can carry code; hasten loads plain exported programs only.",
                remedy="Save it with torch.export.save, without custom objects or compiled libraries.",
            )
    return root, entries


def _table(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > _LARGEST_TABLE:
        raise _no_program(path, f"the table {name!r} is larger than any program's")
    return archive.read(name)


def _refuse_pickled(path: Path, table: dict[str, Any]) -> None:
    for name, item in table["config"].items():
        if item.get("use_pickle"):
            raise ModelError(
                f"{path} keeps {name!r} as a Python pickle, which hasten never loads because that can run any code.",
                remedy="Make the tensor plain (contiguous, no subclass) and save the program again.",
            )


def _check_program(path: Path, program: dict[str, Any]) -> None:
    for node in _nodes(program["graph_module"]["graph"]):
        target = node["target"]
        known = _OPERATORS.fullmatch(target) or _PYTHON.fullmatch(target)
        if not known or _OUTSIDE.search(target):
            raise ModelError(
                f"{path} calls {target!r}, which is no operator that hasten lets a model use.",
                remedy="Export the model with standard operators.",
            )
    for text in _expressions(program):
        if not _is_arithmetic(text):
            raise ModelError(
                f"{path} has the shape {text[:80]!r}, which is no plain arithmetic.", remedy="Export the model again."
            )


def _nodes(graph: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Nodes of the graph and of every graph that is an argument of a node."""
    for node in graph["nodes"]:
        yield node
        for item in node["inputs"]:
            inner = (item["arg"].get("as_graph") or {}).get("graph")
            if inner:
                yield from _nodes(inner)


def _expressions(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "expr_str":
                yield str(inner)
            else:
                yield from _expressions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _expressions(inner)


def _is_arithmetic(text: str) -> bool:
    """Whether `text` is made of numbers, symbols and known functions only: it will be evaluated."""
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError):
        return False
    return all(isinstance(node, _ARITHMETIC) and _is_plain(node) for node in ast.walk(tree))


def _is_plain(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS
    if isinstance(node, ast.Name):
        return node.id in _FUNCTIONS | _NAMES or bool(_SYMBOL.fullmatch(node.id))
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int | float) or bool(_SYMBOL.fullmatch(str(node.value)))
    return True


def _no_program(path: Path, why: str) -> ModelError:
    return ModelError(
        f"{path} is not a program that hasten can load: {why}.",
        remedy="Write it with torch.export.save(torch.export.export(model.eval(), inputs), 'model.pt2').",
    )
