"""Compile the server's request path from its own source: `python native.py FOLDER` (or `make native`).
`python native.py --able` succeeds where that is possible: with compilers for C and C++, and Python's headers.

FOLDER becomes a copy of src/ with C extensions beside the modules named here, made by mypyc, and with what is written
in C++, so that `PYTHONPATH=FOLDER` runs them and src/ stays what it was: where an extension is missing, the same module
is interpreted, or done without. A copy, because an extension beside a source that is edited would go on hiding it.
Needs mypyc and these compilers.
`make wheel` makes wheels with and without it (hatch_build.py). Why, what it gains and what not: docs/decisions/0024.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parent
# What each request runs through, but for modules with coroutines and structs (tests/test_native.py says why).
MODULES = """
hasten/observe/base hasten/observe/histogram hasten/observe/log hasten/observe/prometheus hasten/observe/records
hasten/serve/admit hasten/serve/batch hasten/serve/batcher hasten/serve/choice hasten/serve/core hasten/serve/desk
hasten/serve/driver hasten/serve/gather hasten/serve/grpc/backlog hasten/serve/grpc/connection
hasten/serve/grpc/methods hasten/serve/grpc/writer hasten/serve/guard hasten/serve/http/connection
hasten/serve/http/frontend hasten/serve/http/inference hasten/serve/http/message hasten/serve/http/reader
hasten/serve/ladder hasten/serve/lanes hasten/serve/latency hasten/serve/lull hasten/serve/origin
hasten/serve/outcomes hasten/serve/outlook hasten/serve/roster hasten/serve/scale hasten/serve/sizes
hasten/serve/tally hasten/serve/ticket hasten/serve/told hasten/serve/unread hasten/serve/waiting hasten/serve/waker
hasten/spec/compiled hasten/wire/grpc_framing hasten/wire/known hasten/wire/oip_grpc hasten/wire/oip_http
hasten/wire/oip_rules hasten/wire/protobuf hasten/wire/tensors
""".split()  # noqa: SIM905  # as a list of strings it would take a page
# What is written in C++: each has a Python that does without.
WRITTEN = ("hasten/wire/numerals",)
# Who compiles, by the variables of Python's build, and what is taken where it names none.
COMPILERS = {"CC": "cc", "CXX": "c++"}


def is_able() -> bool:
    """Whether there are compilers for C and C++, those that Python was built with, and Python's headers."""
    compilers = [shlex.split(sysconfig.get_config_var(name) or other)[0] for name, other in COMPILERS.items()]
    headers = Path(sysconfig.get_paths()["include"])
    return all(map(shutil.which, compilers)) and (headers / "Python.h").exists()


def compiled(folder: Path) -> None:
    """Make the copy with its extensions."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "src", folder, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    os.chdir(folder)
    # mypy follows imports from the working folder.
    from mypyc.build import mypycify
    from setuptools import Distribution, Extension

    options = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(folder.parent / "mypy-cache")]
    extensions = mypycify(
        [*options, *(f"{module}.py" for module in MODULES)],
        opt_level="2",
        debug_level="0",
        group_name="hasten",
        target_dir=str(folder.parent / "native-c"),
    )
    for module in WRITTEN:
        name, flags = module.replace("/", "."), ["-std=c++17", "-O2"]
        extensions.append(Extension(name, [f"{module}.cpp"], language="c++", extra_compile_args=flags))
    distribution = Distribution({"name": "hasten", "ext_modules": extensions})
    command = distribution.get_command_obj("build_ext")
    command.inplace = True
    command.build_temp = str(folder.parent / "native-o")
    command.ensure_finalized()
    command.run()


if __name__ == "__main__":
    if sys.argv[1] == "--able":
        sys.exit(not is_able())
    compiled(Path(sys.argv[1]).resolve())
