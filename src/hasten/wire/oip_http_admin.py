"""What the Open Inference Protocol says over HTTP of a server and its models, beside inference."""

from __future__ import annotations

from typing import Any

import msgspec

from hasten.spec.signature import Signature
from hasten.spec.tensor import TensorSpec

__all__ = ["model_metadata", "server_metadata"]

# What the server speaks beyond the protocol's core.
EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "statistics")


def server_metadata(version: str) -> bytes:
    """Body of GET /v2."""
    return msgspec.json.encode({"name": "hasten", "version": version, "extensions": list(EXTENSIONS)})


def model_metadata(name: str, signature: Signature) -> bytes:
    """Body of GET /v2/models/{m}. A free dimension is -1."""
    return msgspec.json.encode(
        {
            "name": name,
            "versions": ["1"],
            "platform": "hasten_bundle",
            "inputs": [_tensor_metadata(spec) for spec in signature.inputs],
            "outputs": [_tensor_metadata(spec) for spec in signature.outputs],
        }
    )


def _tensor_metadata(spec: TensorSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "datatype": spec.dtype,
        "shape": [dim if isinstance(dim, int) else -1 for dim in spec.shape],
    }
