"""The map and the land agree: rooms, verbs, import cost, README."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "hasten"


def rooms() -> list[str]:
    folders = [path.name + "/" for path in PACKAGE.iterdir() if (path / "__init__.py").exists()]
    files = [path.name for path in PACKAGE.glob("*.py") if path.name != "__init__.py"]
    return sorted(folders + files)


@pytest.mark.parametrize("room", rooms())
def test_architecture_names_every_room(room: str) -> None:
    assert f"`{room}`" in (ROOT / "ARCHITECTURE.md").read_text()


def test_architecture_names_no_room_that_is_not_there() -> None:
    named = re.findall(r"^\| ((?:`[^`]+`(?:, )?)+) \|", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE)
    for name in re.findall(r"`([^`]+)`", " ".join(named)):
        assert (PACKAGE / name.rstrip("/")).exists(), name


def test_importing_hasten_loads_nothing_heavy() -> None:
    """Modules are counted instead of milliseconds, which are the machine's: the interpreter's own are some thirty."""
    code = "import sys; before = set(sys.modules); import hasten; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert len(loaded) < 60, loaded
    assert not {name.partition(".")[0] for name in loaded} & {"numpy", "onnx", "torch", "onnxruntime", "rich", "click"}


def test_public_functions_stay_functions_when_rooms_of_the_same_name_are_imported() -> None:
    code = (
        "import hasten, hasten.optimize.run, hasten.serve.core; from hasten.optimize import run;"
        "print(hasten.optimize.__name__, hasten.serve.__name__, run.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["optimize", "serve", "hasten.optimize.run"]


def documented_verbs() -> list[str]:
    return sorted(set(re.findall(r"^\|.*?`hasten (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE)))


@pytest.mark.parametrize("verb", documented_verbs())
def test_every_documented_verb_exists_with_help(verb: str) -> None:
    done = subprocess.run([sys.executable, "-m", "hasten.cli", verb, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def test_every_verb_is_documented() -> None:
    from hasten.cli import VERBS

    assert set(VERBS) <= set(documented_verbs())


def test_the_python_example_of_the_readme_runs(tmp_path: Path, make_linear) -> None:  # type: ignore[no-untyped-def]
    make_linear("model.onnx")
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    code = code.replace("budget_s=60", "budget_s=10")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert re.search(r"http://127\.0\.0\.1:\d+ \[\]", done.stdout), done.stdout


# A place where a banned call is safe, and why.
ALLOWED = {
    ("zoo/checkpoint.py", "torch.load("): "a file pinned by its hash, with weights_only: only tensors are made",
}


def test_no_product_code_unpickles_or_evaluates() -> None:
    # A method called eval, as PyTorch modules have, is not the function.
    banned = re.compile(
        r"pickle\.loads?\(|cloudpickle|recv_pyobj|(?<![.\w])eval\(|(?<![.\w])exec\(|yaml\.load|torch\.load\(|shell=True"
    )
    for path in PACKAGE.rglob("*.py"):
        for found in banned.findall(path.read_text()):
            assert (path.relative_to(PACKAGE).as_posix(), found) in ALLOWED, (path, found)


def test_json_errors_obey_the_contract_for_unknown_options_too() -> None:
    done = subprocess.run([sys.executable, "-m", "hasten.cli", "inspect", "--json"], capture_output=True, text=True)
    assert done.returncode == 2
    document = json.loads(done.stdout)
    assert list(document) == ["schema", "error"]
    assert set(document["error"]) == {"code", "message", "remedy"}


def test_colour_is_off_where_no_color_is_set() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hasten.cli", "inspect", "nowhere.onnx"],
        capture_output=True,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert done.returncode == 2
    assert "\x1b[" not in done.stderr


def test_the_page_on_the_command_line_is_what_help_says() -> None:
    import runpy

    page = runpy.run_path(str(ROOT / "docs" / "make_cli.py"))["page"]
    assert (ROOT / "docs" / "cli.md").read_text() == page(), "run make docs"
