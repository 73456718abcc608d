"""The routes beside inference: statistics, configuration, and the repository of models."""

from __future__ import annotations

import asyncio
import importlib.resources
import logging
from collections.abc import Coroutine
from typing import Any

import msgspec

from hasten.errors import RequestError
from hasten.serve.driver import ModelService
from hasten.serve.http.message import Cancel, HttpRequest, Reply, internal, json_answer, refusal
from hasten.serve.repository import Repository

__all__ = ["Management", "audit", "model_config"]

_audit = logging.getLogger("hasten.serve.audit")
_EMPTY = (b"", b"{}")


def audit(event: str, **fields: str | int) -> None:
    """Put one line of JSON on the record of who changed the server, or tried to."""
    _audit.info("%s", msgspec.json.encode({"event": event, **fields}).decode())


class Management:
    """Handlers over the repository."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._tasks: set[asyncio.Task[None]] = set()

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
        assert request.route is not None
        _no_parameters(request)
        return self._change("load", request.route.model, self._repository.load(request.route.model), reply)

    def unload(self, request: HttpRequest, reply: Reply) -> Cancel:
        """Take a model out of service."""
        assert request.route is not None
        _no_parameters(request)
        return self._change("unload", request.route.model, self._repository.unload(request.route.model), reply)

    def api(self, request: HttpRequest, reply: Reply) -> None:
        """The OpenAPI description of all routes."""
        reply(200, json_answer(api_description()))

    def _service(self, name: str) -> ModelService:
        """It was there when the request began; that may be some seconds ago."""
        service = self._repository.services.get(name)
        if service is None:
            raise RequestError(f"The model {name!r} is not served here.", code="not_found")
        return service

    def _change(self, what: str, model: str, work: Coroutine[Any, Any, None], reply: Reply) -> Cancel:
        """Do it to the end, whether or not the client stays to hear of it."""
        listening = True

        async def change() -> None:
            status, answer = 200, json_answer(b"{}")
            try:
                await work
            except RequestError as error:
                status, answer = refusal(error)
            except Exception as error:
                status, answer = refusal(internal(error))
            audit(what, model=model, status=status)
            if listening:
                reply(status, answer)

        def leave() -> None:
            nonlocal listening
            listening = False

        task = asyncio.get_running_loop().create_task(change())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return leave


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
    if request.body in _EMPTY:
        return {}
    try:
        return msgspec.json.decode(request.body, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise RequestError("The body is no JSON object.", code="invalid") from error


def _wish(request: HttpRequest, name: str) -> bool:
    body = _object(request)
    value = body.pop(name, False)
    if body or type(value) is not bool:
        raise RequestError(f"The body may hold {name!r}, true or false, and nothing else.", code="invalid")
    return value


def _no_parameters(request: HttpRequest) -> None:
    """What would change the model on its way (a config, files) is refused: a bundle is served as it was proven.

    Triton's client sends an empty object of parameters, or `unload_dependents`, of which there are none.
    """
    body = _object(request)
    parameters = body.pop("parameters", {})
    if body or not isinstance(parameters, dict) or set(parameters) - {"unload_dependents"}:
        raise RequestError("No parameters are taken here: a bundle is served as it was proven.", code="invalid")
