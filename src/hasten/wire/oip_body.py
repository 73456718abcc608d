"""The JSON of an infer request, for msgspec to read.

In a module of its own, which stays interpreted where the codec is compiled: a compiled class keeps of its annotations
less than msgspec needs (docs/decisions/0024).
"""

from __future__ import annotations

from typing import Any

import msgspec

from hasten.spec.tensor import DType

__all__ = ["Body", "Input", "Output", "decode_body"]

Parameters = dict[str, Any]


class Input(msgspec.Struct, forbid_unknown_fields=True):
    """One input, with its data or the size of its blob."""

    name: str
    shape: list[int]
    datatype: DType
    # Its text: how it is read depends on the model.
    data: msgspec.Raw = msgspec.Raw()
    parameters: Parameters = {}


class Output(msgspec.Struct, forbid_unknown_fields=True):
    """An output that is wanted, and how."""

    name: str
    parameters: Parameters = {}


class Body(msgspec.Struct, forbid_unknown_fields=True):
    """An infer request. KServe's client repeats the model's name and version; the URL decides and they are not
    looked at.
    """

    inputs: list[Input]
    id: str = ""
    parameters: Parameters = {}
    outputs: list[Output] = []
    model_name: str = ""
    model_version: str | None = None


decode_body = msgspec.json.Decoder(Body).decode
