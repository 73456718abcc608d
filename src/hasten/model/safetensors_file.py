"""Read weights from a safetensors file. It holds tensors and no graph, so it is no model by itself.

The format's own library checks sizes, offsets, gaps and overlaps. What it lets through, a name given twice, is refused
here: two readers could take different weights from such a file. Source: the safetensors format, version 0.8.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from hasten.errors import MissingError, ModelError

__all__ = ["read_safetensors"]


def read_safetensors(path: Path | str) -> dict[str, np.ndarray[Any, Any]]:
    """Return all tensors by name; bf16 ones have the element type of the package ml_dtypes.

    Raises `ModelError` for a file that is damaged, ambiguous, or has element types that numpy lacks, and
    `MissingError` where the package is absent.
    """
    path = Path(path)
    try:
        from safetensors import SafetensorError, safe_open
        from safetensors.numpy import load_file
    except ImportError as error:
        raise MissingError(
            "Reading weights needs the package safetensors, which is not installed.",
            remedy="Install it with: pip install safetensors",
        ) from error
    try:
        # The library judges the header first; only what it accepts is read again for what it overlooks.
        with safe_open(str(path), framework="numpy"):
            _refuse_ambiguous(path)
        return load_file(str(path))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}.", remedy="Check the path.") from error
    except SafetensorError as error:
        raise ModelError(
            f"{path} is not a sound safetensors file: {' '.join(str(error).split())[:200]}.",
            remedy="Download or save it again.",
        ) from error
    except (AttributeError, KeyError) as error:
        raise ModelError(
            f"{path} holds tensors of an element type that numpy does not have ({error}).",
            remedy="Save the weights as f32, f16 or bf16.",
        ) from error


def _refuse_ambiguous(path: Path) -> None:
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = stream.read(length)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        if twice:
            raise ModelError(
                f"{path} names {twice[0]!r} twice, so that its weights depend on who reads them.",
                remedy="Save the weights again, each under one name.",
            )
        return dict(pairs)

    json.loads(header, object_pairs_hook=once)
