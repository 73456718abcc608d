"""The messages of the Open Inference Protocol over gRPC that are not inference, and those of grpc.health.v1.

Requests are small and are looked at before they are parsed, as everything that comes from strangers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from hasten.errors import RequestError
from hasten.spec.serving import Serving
from hasten.spec.signature import Signature
from hasten.spec.tensor import TensorSpec
from hasten.wire.base import invalid
from hasten.wire.messages import message_type
from hasten.wire.oip_grpc import parse
from hasten.wire.protobuf import STRUCTURE_BYTES, check_wire, shape_of

__all__ = [
    "HealthStatus",
    "Reader",
    "flag_response",
    "health_response",
    "index_response",
    "model_config",
    "model_metadata",
    "model_statistics",
    "read_change_request",
    "read_health_request",
    "read_index_request",
    "read_model_request",
    "read_nothing",
    "server_metadata",
]

HealthStatus = Literal["SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"]
PLATFORM, VERSION = "hasten_bundle", "1"
EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "statistics")


class Reader:
    """Reads requests of one message type."""

    def __init__(self, name: str) -> None:
        self._kind = message_type(name)
        self._shape = shape_of(self._kind.DESCRIPTOR)

    def __call__(self, body: bytes) -> Any:
        """Return the message. Raises `RequestError` for what is no such message, or too long."""
        if len(body) > STRUCTURE_BYTES:
            raise RequestError(f"The message exceeds {STRUCTURE_BYTES} bytes.", code="too_large")
        check_wire(body, self._shape)
        return parse(self._kind, body)


_nothing = Reader("inference.ServerLiveRequest")
_model = Reader("inference.ModelMetadataRequest")
_index = Reader("inference.RepositoryIndexRequest")
_changes = {
    "load": Reader("inference.RepositoryModelLoadRequest"),
    "unload": Reader("inference.RepositoryModelUnloadRequest"),
}
_health = Reader("grpc.health.v1.HealthCheckRequest")


def read_nothing(body: bytes) -> None:
    """Check a request without fields: ServerLive, ServerReady and ServerMetadata. Raises `RequestError`."""
    _nothing(body)


def read_model_request(body: bytes) -> tuple[str, str]:
    """Return the model's name and version, empty for any: ModelReady, ModelMetadata, ModelConfig and ModelStatistics
    are alike. Raises `RequestError`.
    """
    message = _model(body)
    return message.name, message.version


def read_index_request(body: bytes) -> bool:
    """Return whether a RepositoryIndex request wants ready models only. Raises `RequestError`."""
    message = _index(body)
    _the_repository(message)
    return bool(message.ready)


def read_change_request(what: Literal["load", "unload"], body: bytes) -> tuple[str, set[str]]:
    """Return the model that a RepositoryModelLoad or RepositoryModelUnload is about, and the names of its parameters.
    Raises `RequestError`.
    """
    message = _changes[what](body)
    _the_repository(message)
    return message.model_name, set(message.parameters)


def read_health_request(body: bytes) -> str:
    """Return the service that a health check is about, empty for the whole server. Raises `RequestError`."""
    return str(_health(body).service)


def flag_response(kind: Literal["ServerLive", "ServerReady", "ModelReady"], value: bool) -> bytes:
    """Return the answer to a question about health."""
    field = "live" if kind == "ServerLive" else "ready"
    return message_type(f"inference.{kind}Response")(**{field: value}).SerializeToString()


def server_metadata(version: str) -> bytes:
    """Return the answer to ServerMetadata."""
    message = message_type("inference.ServerMetadataResponse")
    return message(name="hasten", version=version, extensions=EXTENSIONS).SerializeToString()


def model_metadata(name: str, signature: Signature, properties: dict[str, str] | None = None) -> bytes:
    """Return the answer to ModelMetadata. A free dimension is -1."""
    return message_type("inference.ModelMetadataResponse")(
        name=name,
        versions=[VERSION],
        platform=PLATFORM,
        inputs=[_tensor(spec) for spec in signature.inputs],
        outputs=[_tensor(spec) for spec in signature.outputs],
        properties=properties or {},
    ).SerializeToString()


def model_config(name: str, signature: Signature, serving: Serving, max_batch: int) -> bytes:
    """Return the answer to ModelConfig. Where the model batches, `max_batch` is above 1 and the dimensions leave out
    the batch axis, as that message wants it; else `max_batch_size` is 0.
    """
    batches = max_batch > 1
    config: dict[str, Any] = {
        "name": name,
        "platform": PLATFORM,
        "backend": "hasten",
        "max_batch_size": max_batch if batches else 0,
        "input": [_config_tensor(spec, batches) for spec in signature.inputs],
        "output": [_config_tensor(spec, batches) for spec in signature.outputs],
        "instance_group": [{"count": serving.instances}],
    }
    if batches:
        config["dynamic_batching"] = {"max_queue_delay_microseconds": round(serving.max_delay_ms * 1e3)}
    return message_type("inference.ModelConfigResponse")(config=config).SerializeToString()


def model_statistics(models: Iterable[Mapping[str, Any]]) -> bytes:
    """Return the answer to ModelStatistics. Each model is a mapping in the words of the statistics extension; what the
    message has no field for is left out.
    """
    known = {field.name for field in message_type("inference.ModelStatistics").DESCRIPTOR.fields}
    return message_type("inference.ModelStatisticsResponse")(
        model_stats=[{key: value for key, value in model.items() if key in known} for model in models]
    ).SerializeToString()


def index_response(models: Iterable[Mapping[str, str]]) -> bytes:
    """Return the answer to RepositoryIndex. Each model is a mapping of name, version, state and reason."""
    return message_type("inference.RepositoryIndexResponse")(
        models=[dict(model) for model in models]
    ).SerializeToString()


def health_response(status: HealthStatus) -> bytes:
    """Return the answer to a health check."""
    return message_type("grpc.health.v1.HealthCheckResponse")(status=status).SerializeToString()


def _the_repository(message: Any) -> None:
    if message.repository_name:
        raise invalid("There is one repository here, which has no name.")


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.dtype, "shape": _dims(spec)}


def _config_tensor(spec: TensorSpec, batches: bool) -> dict[str, Any]:
    data_type = "TYPE_STRING" if spec.dtype == "BYTES" else f"TYPE_{spec.dtype}"
    return {"name": spec.name, "data_type": data_type, "dims": _dims(spec)[1:] if batches else _dims(spec)}


def _dims(spec: TensorSpec) -> list[int]:
    return [dim if isinstance(dim, int) else -1 for dim in spec.shape]
