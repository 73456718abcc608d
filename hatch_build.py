"""Wheels with a compiled request path: HASTEN_COMPILE=1 for the builder. Others are plain; `make wheel` makes both.

Such a wheel is for one platform and one Python, and holds every source as well. It takes compilers for C and C++, and
some minutes; what is compiled, and what that gives and does not, stand in native.py and docs/decisions/0024.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_WANTED = os.environ.get("HASTEN_COMPILE") == "1"


class NativeHook(BuildHookInterface):
    """Adds the extensions to the wheel."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """What compiles, where that is wanted."""
        return ["mypy[mypyc]>=2.4", "msgspec>=0.19", "setuptools>=70"] if _WANTED else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and name the extensions to the builder."""
        if not _WANTED or version == "editable":
            return
        tree = Path(self.root) / "build" / "wheel"
        subprocess.run([sys.executable, "native.py", str(tree)], cwd=self.root, check=True)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        # The compiler leaves copies below tree/build.
        made = [path for end in ("so", "pyd") for where in ("", "hasten/**/") for path in tree.glob(f"{where}*.{end}")]
        build_data["force_include"] |= {str(path): path.relative_to(tree).as_posix() for path in made}
