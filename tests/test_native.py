"""The list of what is compiled, and that what compiling loses is not on it; `make native-test` runs the rest."""

from __future__ import annotations

import ast
import importlib.util
import os
import runpy
from pathlib import Path

import pytest

from hasten.spec.compiled import is_compiled

ROOT = Path(__file__).parent.parent
NATIVE = runpy.run_path(str(ROOT / "native.py"))
MODULES: list[str] = NATIVE["MODULES"]
WRITTEN: list[str] = [module.replace("/", ".") for module in NATIVE["WRITTEN"]]


@pytest.mark.parametrize("module", MODULES)
def test_no_compiled_module_makes_a_struct(module: str) -> None:
    """mypyc keeps neither the options of such a class (`frozen`, `eq`) nor the types that msgspec decodes by."""
    tree = ast.parse((ROOT / "src" / f"{module}.py").read_text())
    bases = [ast.unparse(base) for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for base in node.bases]
    assert not {"Struct", "msgspec.Struct", "Value"} & set(bases)
    assert "enum.Enum" not in bases or module == "hasten/serve/http/reader"  # one without an __init__ is kept


@pytest.mark.parametrize("module", MODULES)
def test_no_compiled_module_has_a_coroutine(module: str) -> None:
    """One that mypyc made crashed the interpreter where it caught an error."""
    tree = ast.parse((ROOT / "src" / f"{module}.py").read_text())
    assert not any(isinstance(node, ast.AsyncFunctionDef) for node in ast.walk(tree))


def test_no_module_is_named_twice() -> None:
    assert len(set(MODULES)) == len(MODULES)


def test_what_runs_is_what_was_asked_for() -> None:
    assert is_compiled() == (os.environ.get("HASTEN_NATIVE") == "1")


@pytest.mark.parametrize("module", WRITTEN)
def test_what_is_written_in_cpp_is_there_with_the_compiled_path_only(module: str) -> None:
    there = importlib.util.find_spec(module) is not None
    assert there == (os.environ.get("HASTEN_NATIVE") == "1")
