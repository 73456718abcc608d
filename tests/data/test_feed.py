"""Samples reach the model with the types and dimensions that they have."""

from __future__ import annotations

import numpy as np

from hasten.data import Dataset
from hasten.data.feed import feed
from hasten.spec.signature import Signature
from hasten.spec.tensor import TensorSpec


def test_a_number_without_dimensions_stays_one() -> None:
    signature = Signature(inputs=(TensorSpec(name="t", dtype="FP32", shape=()),), outputs=())
    sample = Dataset(inputs={"t": np.arange(3, dtype=np.float32)}).inputs(1)
    assert signature.problem(feed(signature, [sample])) is None


def test_single_texts_are_stacked_into_a_batch_of_texts() -> None:
    signature = Signature(inputs=(TensorSpec(name="s", dtype="BYTES", shape=("n",)),), outputs=())
    data = Dataset(inputs={"s": np.array([b"a", b"bcd"], dtype=object)})
    together = feed(signature, [data.inputs(0), data.inputs(1)])
    assert signature.problem(together) is None
    assert together["s"].tolist() == [b"a", b"bcd"]
