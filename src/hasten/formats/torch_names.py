"""Which names and structures may stand in a PyTorch program.

torch writes Python source from a program and executes it, and it puts names of inputs, tensors, arguments and
parameters into that source as they stand. It also imports modules that the description of nested inputs names. So
every name must be a plain word, and inputs and outputs may be nested in tuples, lists and dictionaries only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hasten.errors import ModelError

__all__ = ["check_names"]

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Parameters carry the path of their module; torch looks up what is no word as an attribute, between quotation marks.
_PATH = re.compile(r"[A-Za-z0-9_.@-]*")
_SYMBOL = re.compile(r"[a-z]{1,4}\d+")
_WORDS = {"name", "as_name"}
# Graphs within graphs, functions as values, and objects of classes that a pickle would have to bring.
_REFUSED = {"as_graph", "as_operator", "as_custom_obj"}
_CONTAINERS = {"builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}


def check_names(path: Path, program: dict[str, Any]) -> None:
    """Raise `ModelError` for a name or a structure that could become more than a name. Fields that hasten drops before
    torch sees them (metadata, guards) are not looked at.
    """
    module = program["graph_module"]
    for key, value in _fields({**module, "metadata": {}}):
        if key in _REFUSED and value is not None:
            raise _refused(path, f"a value of the kind {key.removeprefix('as_')!r}")
        pattern = _WORD if key in _WORDS else _PATH if key == "fqn" or key.endswith("_name") else None
        if pattern is not None and value is not None:
            _match(path, pattern, value)
    for symbol in program.get("range_constraints") or {}:
        _match(path, _SYMBOL, symbol)
    for entry in module["module_call_graph"]:
        signature = entry.get("signature") or {}
        for name in signature.get("forward_arg_names") or ():
            _match(path, _WORD, name)
        for key in ("in_spec", "out_spec"):
            if key in signature:
                _check_structure(path, json.loads(signature[key])[1], _WORD if key == "in_spec" else None)


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at every depth, apart from notes of nodes."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key != "metadata":
                yield str(key), inner
                yield from _fields(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _fields(inner)


def _check_structure(path: Path, spec: dict[str, Any], keys: re.Pattern[str] | None) -> None:
    """How inputs or outputs are nested. `keys` is what the keys of dictionaries must be, if they get into source."""
    kind = spec["type"]
    if kind is not None and kind not in _CONTAINERS:
        raise _refused(path, f"inputs or outputs in a {str(kind)[:80]!r}")
    context = None if spec["context"] is None else json.loads(spec["context"])
    # A dictionary there can name a module, which torch would import.
    if not isinstance(context, list | None):
        raise _refused(path, "inputs or outputs that are described by more than their keys")
    for key in context or ():
        if not isinstance(key, str | int):
            raise _refused(path, "inputs or outputs whose keys are no plain words")
        if keys is not None:
            _match(path, keys, key)
    for child in spec["children_spec"]:
        _check_structure(path, child, keys)


def _match(path: Path, pattern: re.Pattern[str], value: Any) -> None:
    if not (isinstance(value, str) and pattern.fullmatch(value)):
        raise _refused(path, f"the name {str(value)[:80]!r}, which is no plain word")


def _refused(path: Path, what: str) -> ModelError:
    return ModelError(
        f"{path} has {what}; torch would turn that into code.",
        remedy="Export the model again, with tensors in tuples, lists or dictionaries, and plain names.",
    )
