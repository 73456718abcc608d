"""The messages of the Open Inference Protocol over gRPC, of health checks and of reflection, as protobuf makes them.

They live in a descriptor pool of their own: a user's process may hold tritonclient's or KServe's stubs of the same
names, and the default pool would refuse the second of them. `proto/*.proto` is the source; `make proto` compiles it.
"""

from __future__ import annotations

import importlib.resources
from typing import Any

from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor_pool import DescriptorPool

__all__ = ["DESCRIPTORS", "POOL", "message_type"]

DESCRIPTORS = importlib.resources.files("hasten.wire").joinpath("proto/descriptors.binpb").read_bytes()
"""The compiled files, a FileDescriptorSet."""


def _pool() -> DescriptorPool:
    pool = DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS).file:
        pool.Add(file)
    return pool


POOL = _pool()


def message_type(name: str) -> Any:
    """Return the class of a message by its full name, such as `inference.ModelInferRequest`."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))
