from __future__ import annotations

import json

from hasten.spec.signature import Signature
from hasten.spec.tensor import TensorSpec
from hasten.wire.oip_http_admin import model_metadata, server_metadata

SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", dtype="FP32", shape=("batch", 4)),),
    outputs=(TensorSpec(name="y", dtype="FP32", shape=("batch", 3)),),
)


def test_the_model_s_metadata_say_minus_one_for_a_free_dimension() -> None:
    metadata = json.loads(model_metadata("m", SIGNATURE))
    assert metadata["inputs"][0] == {"name": "x", "datatype": "FP32", "shape": [-1, 4]}
    assert metadata["versions"] == ["1"]


def test_the_server_announces_binary_tensor_data() -> None:
    assert json.loads(server_metadata("1.2")) == {
        "name": "hasten",
        "version": "1.2",
        "extensions": ["binary_tensor_data", "model_configuration", "model_repository", "statistics"],
    }
