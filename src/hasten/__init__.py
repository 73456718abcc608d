"""hasten makes a trained model fast and cheap to run, and proves it.

    import hasten

    result = hasten.optimize("model.onnx", data="samples.npz", out="fast.bundle")
    with hasten.open_bundle("fast.bundle").serve() as server:
        print(server.url)

Importing hasten is free: nothing heavy is loaded before it is used.
"""

from __future__ import annotations

import importlib
import os
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hasten.facade import BundleHandle, Result, open_bundle, optimize, profile, serve

__version__ = "0.1.0"
__all__ = ["BundleHandle", "Result", "open_bundle", "optimize", "profile", "serve"]

# ONNX Runtime (from 1.29 on, in official builds), OpenVINO and NNCF tell their makers over the network what is loaded
# and done, names and hashes of models among it, and keep an identifier of the machine. Models are their owners'
# business (docs/decisions/0038). Here, because all of them decide it once, when they are imported, whoever does that.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# They do without the package and have no switch: their own one is a file in the user's home. None fails to be imported.
sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType]


def __getattr__(name: str) -> Any:
    """Load the public names on first use (PEP 562)."""
    if name in __all__:
        return getattr(importlib.import_module("hasten.facade"), name)
    raise AttributeError(f"module 'hasten' has no attribute {name!r}")


class _Face(types.ModuleType):
    """Keeps public names for functions where a room has the same name: `hasten.optimize` is what one calls.

    Importing the room `hasten.optimize` would otherwise put the room in the function's place, so that the second call
    of `hasten.optimize(...)` failed. The rooms stay reachable: `from hasten.optimize import run`.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in __all__ and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
