"""Read a PyTorch checkpoint of the zoo: the one place in hasten that opens a pickle.

Only the zoo's builders call this, on a file whose SHA-256 the catalog pins and `fetch` has just checked, and PyTorch's
restricted unpickler makes nothing but tensors of it. Models that users bring are never read this way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hasten.errors import MissingError

__all__ = ["read_checkpoint"]


def read_checkpoint(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Return the weights by name. Raises `MissingError` without PyTorch."""
    try:
        import torch
    except ImportError as error:
        raise MissingError(
            f"{path.name} is a PyTorch checkpoint, and PyTorch is not installed.",
            remedy="Install it with: pip install 'hasten[torch]'",
        ) from error
    state: Any = torch.load(str(path), map_location="cpu", weights_only=True)
    return {name: tensor.numpy() for name, tensor in state.items()}
