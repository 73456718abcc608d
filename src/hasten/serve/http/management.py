"""The routes beside inference: statistics, configuration, and the repository of models."""

from __future__ import annotations

import importlib.resources
from typing import Any

import msgspec

from hasten.errors import RequestError
from hasten.serve.changes import Change, Changes, check_parameters
from hasten.serve.http.message import Cancel, HttpRequest, Reply, json_answer, refusal
from hasten.serve.repository import Repository
from hasten.serve.service import ModelService
from hasten.spec.event import Sink

__all__ = ["Management", "model_config"]

_EMPTY = (b"", b"{}")


class Management:
    """Handlers over the repository."""

    def __init__(self, repository: Repository, sink: Sink | None = None) -> None:
        self._repository = repository
        self._changes = Changes(repository, sink)

    def statistics(self, request: HttpRequest, reply: Reply) -> None:
        """Of one model, or of all that are served."""
        assert request.route is not None
        name = request.route.model
        services = {name: self._service(name)} if name else self._repository.services
        rows = [service.tally.as_statistics(one) for one, service in services.items()]
        reply(200, json_answer(msgspec.json.encode({"model_stats": rows})))

    def config(self, request: HttpRequest, reply: Reply) -> None:
        """How a model is served."""
        assert request.route is not None
        service = self._service(request.route.model)
        reply(200, json_answer(msgspec.json.encode(model_config(service))))

    def index(self, request: HttpRequest, reply: Reply) -> None:
        """All models; with `{"ready": true}` those that are ready."""
        rows = self._repository.index()
        if _wish(request, "ready"):
            rows = [row for row in rows if row["state"] == "READY"]
        reply(200, json_answer(msgspec.json.encode(rows)))

    def load(self, request: HttpRequest, reply: Reply) -> Cancel:
        """Load or reload a model."""
        return self._change("load", request, reply)

    def unload(self, request: HttpRequest, reply: Reply) -> Cancel:
        """Take a model out of service."""
        return self._change("unload", request, reply)

    def api(self, request: HttpRequest, reply: Reply) -> None:
        """The OpenAPI description of all routes."""
        reply(200, json_answer(api_description()))

    def _service(self, name: str) -> ModelService:
        """It was there when the request began; that may be some seconds ago."""
        service = self._repository.services.get(name)
        if service is None:
            raise RequestError(f"The model {name!r} is not served here.", code="not_found")
        return service

    def _change(self, what: Change, request: HttpRequest, reply: Reply) -> Cancel:
        assert request.route is not None
        _no_parameters(request)

        def done(error: RequestError | None) -> None:
            reply(*((200, json_answer(b"{}")) if error is None else refusal(error)))

        return self._changes.begin(what, request.route.model, request.id, done)


def api_description() -> bytes:
    """The OpenAPI file that ships with the package."""
    return importlib.resources.files("hasten.serve.http").joinpath("openapi.json").read_bytes()


def model_config(service: ModelService) -> dict[str, Any]:
    """How a model is served, in the words of the model configuration extension."""
    manifest, policy = service.bundle.manifest, service.policy
    batches = policy.max_batch > 1
    return {
        "name": manifest.name,
        "platform": "hasten_bundle",
        "backend": "hasten",
        "max_batch_size": policy.max_batch if batches else 0,
        "input": [_tensor(spec, batches) for spec in manifest.signature.inputs],
        "output": [_tensor(spec, batches) for spec in manifest.signature.outputs],
        "instance_group": [{"kind": "KIND_AUTO", "count": policy.instances}],
        "dynamic_batching": {"max_queue_delay_microseconds": round(policy.max_delay_s * 1e6)},
        "parameters": {"variant": {"string_value": service.variant}},
    }


def _tensor(spec: Any, batches: bool) -> dict[str, Any]:
    """A batching model's first dimension is the batch and stays unsaid."""
    dims = [dim if isinstance(dim, int) else -1 for dim in spec.shape]
    kind = "TYPE_STRING" if spec.dtype == "BYTES" else f"TYPE_{spec.dtype}"
    return {"name": spec.name, "data_type": kind, "dims": dims[1:] if batches else dims}


def _object(request: HttpRequest) -> dict[str, Any]:
    body = bytes(request.body)
    if body in _EMPTY:
        return {}
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise RequestError("The body is no JSON object.", code="invalid") from error


def _wish(request: HttpRequest, name: str) -> bool:
    body = _object(request)
    value = body.pop(name, False)
    if body or type(value) is not bool:
        raise RequestError(f"The body may hold {name!r}, true or false, and nothing else.", code="invalid")
    return value


def _no_parameters(request: HttpRequest) -> None:
    body = _object(request)
    parameters = body.pop("parameters", {})
    if body or not isinstance(parameters, dict):
        raise RequestError("The body may hold 'parameters', an object, and nothing else.", code="invalid")
    check_parameters(set(parameters))
