"""hasten makes a trained model fast and cheap to run, and proves it.

    import hasten

    result = hasten.optimize("model.onnx", data="samples.npz", out="fast.bundle")
    with hasten.open_bundle("fast.bundle").serve() as server:
        print(server.url)

Importing hasten is free: nothing heavy is loaded before it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hasten.facade import BundleHandle, Result, open_bundle, optimize, serve

__version__ = "0.1.0"
__all__ = ["BundleHandle", "Result", "open_bundle", "optimize", "serve"]


def __getattr__(name: str) -> Any:
    """Load the public names on first use (PEP 562)."""
    if name in __all__:
        return getattr(importlib.import_module("hasten.facade"), name)
    raise AttributeError(f"module 'hasten' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
