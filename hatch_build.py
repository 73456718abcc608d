"""Builds of the package: `HASTEN_NATIVE=1 pip wheel .` compiles the request path into the wheel (native.py).

Without the variable, and for editable installs always, the wheel is plain Python and needs no compiler.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeHook(BuildHookInterface):
    """Called by hatchling for each wheel."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """What compiling needs beside a C compiler: mypyc, and the types of what the sources are made of."""
        return ["mypy[mypyc]>=2.4", "setuptools", "msgspec", "numpy"] if _is_wanted() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the extensions to the wheel, beside the sources that they are made from."""
        if version == "editable" or not _is_wanted():
            return
        folder = Path(self.root) / "build" / "native"
        subprocess.run([sys.executable, "native.py", str(folder)], cwd=self.root, check=True)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        for extension in (*folder.rglob("*.so"), *folder.rglob("*.pyd")):
            build_data["force_include"][str(extension)] = extension.relative_to(folder).as_posix()


def _is_wanted() -> bool:
    return os.environ.get("HASTEN_NATIVE", "0") not in ("", "0")
