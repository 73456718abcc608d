"""Answers in one line each: what clients rely on, in an order of its own, without servers' names, counts and times."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["grpc_words", "http_words"]

CODES = {
    "BOOL": "?", "INT8": "b", "UINT8": "B", "INT64": "q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip
TYPED = {
    "BOOL": "bool_contents", "INT8": "int_contents", "UINT8": "uint_contents", "INT64": "int64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents",
}  # fmt: skip


def http_words(status: int, headers: Mapping[str, str], body: bytes) -> str:
    """The words for an HTTP answer whose body is decompressed."""
    length = headers.get("inference-header-content-length")
    head = body if length is None else body[: int(length)]
    try:
        document = json.loads(head)
    except ValueError:
        return "" if not body else "text"
    if status >= 400:
        told = isinstance(document, dict) and isinstance(document.get("error"), str)
        return "" if told else json.dumps(document)
    if isinstance(document, list):
        return f"models {sorted(one.get('name', '') for one in document)}"
    if "model_stats" in document:
        return f"statistics of {sorted(one['name'] for one in document['model_stats'])}"
    if isinstance(document.get("outputs"), list) and "model_name" in document:
        return _answer(document, None if length is None else body[len(head) :])
    return _described(document)


def _answer(document: dict[str, Any], blobs: bytes | None) -> str:
    words, at = [_given_id(document.get("id")), f"version {document.get('model_version')}"], 0
    for output in sorted(document["outputs"], key=lambda one: one["name"]):
        words.append(f"{output['name']} {output['datatype']}{output['shape']}")
    # Blobs lie in the order of the outputs.
    for output in document["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            words.append(f"{output['name']} = {_numbers(output['data'])}")
        else:
            assert blobs is not None
            words.append(f"{output['name']} = {_numbers(_unpacked(output['datatype'], blobs[at : at + size]))} binary")
            at += size
    if blobs is not None and at != len(blobs):
        words.append(f"{len(blobs) - at} bytes left over")
    return _joined(words)


def _given_id(id_: str | None) -> str:
    return f"id {id_}" if id_ else ""


def _joined(words: list[str]) -> str:
    head = [word for word in words if word and " = " not in word]
    return ", ".join([*head, *sorted(word for word in words if " = " in word)])


def _described(document: dict[str, Any]) -> str:
    """Metadata of a model or a server, a model's configuration, or a flag."""
    if isinstance(document.get("ready"), bool) or isinstance(document.get("live"), bool):
        return f"{document.get('name', '')} {document.get('ready', document.get('live'))}".strip()
    if "extensions" in document:
        return "a server"
    if "max_batch_size" in document:
        return f"configuration of {document['name']}, at most {document['max_batch_size']} rows"
    if "versions" in document:
        tensors = [
            f"{one['name']} {one['datatype']}{one['shape']}"
            for side in ("inputs", "outputs")
            for one in sorted(document[side], key=lambda one: one["name"])
        ]
        return f"{document['name']} versions {document['versions']}: {', '.join(tensors)}"
    return json.dumps(document, sort_keys=True)


def grpc_words(message: Any) -> str:
    """The words for a message."""
    match type(message).__name__:
        case "ModelInferResponse":
            return _grpc_answer(message)
        case "ModelStreamInferResponse":
            return "error" if message.error_message else _grpc_answer(message.infer_response)
        case "ModelMetadataResponse":
            tensors = [
                {"name": one.name, "datatype": one.datatype, "shape": list(one.shape)}
                for one in (*message.inputs, *message.outputs)
            ]
            half = len(message.inputs)
            return _described(
                {
                    "name": message.name,
                    "versions": list(message.versions),
                    "inputs": tensors[:half],
                    "outputs": tensors[half:],
                }
            )
        case "ServerMetadataResponse":
            return "a server"
        case "ModelConfigResponse":
            return f"configuration of {message.config.name}, at most {message.config.max_batch_size} rows"
        case "ModelStatisticsResponse":
            return f"statistics of {sorted(one.name for one in message.model_stats)}"
        case "RepositoryIndexResponse":
            return f"models {sorted(one.name for one in message.models)}"
        case _:
            # Flags.
            return str(next(iter(getattr(message, field.name) for field in message.DESCRIPTOR.fields), ""))


def _grpc_answer(message: Any) -> str:
    words = [_given_id(message.id), f"version {message.model_version}"]
    for place, output in enumerate(message.outputs):
        raw = bool(message.raw_output_contents)
        if raw:
            values: Sequence[Any] = _unpacked(output.datatype, message.raw_output_contents[place])
        else:
            values = list(getattr(output.contents, TYPED[output.datatype]))
        words.append(f"{output.name} {output.datatype}{list(output.shape)}")
        words.append(f"{output.name} = {_numbers(values)}{' raw' if raw else ''}")
    head, tail = words[:2], sorted(words[2:])
    return _joined([*head, *tail])


def _unpacked(datatype: str, data: bytes) -> list[Any]:
    code = CODES[datatype]
    return list(struct.unpack(f"<{len(data) // struct.calcsize(code)}{code}", data))


def _numbers(values: Sequence[Any]) -> str:
    flat: list[Any] = []
    for value in values:
        flat += value if isinstance(value, list) else [value]
    shown = " ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in flat[:8])
    return shown + (f" and {len(flat) - 8} more" if len(flat) > 8 else "")
