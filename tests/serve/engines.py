"""Services over engines that misbehave, and what to watch them with."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import numpy as np

from hasten.bundle.read import Bundle
from hasten.errors import RequestError
from hasten.serve.service import ModelService
from hasten.spec.measurement import Figure
from hasten.spec.request import Request
from hasten.spec.serving import Serving
from hasten.spec.target import Target
from hasten.spec.variant import REFERENCE, Variant

__all__ = ["POISON", "ask", "back", "code_of", "fake", "running", "until", "with_variants", "within"]

POISON = float("nan")


def fake(bundle: Bundle, *, instances: int = 1, max_batch: int = 8, **options: str) -> Bundle:
    """The same bundle on the fake engine."""
    manifest = bundle.manifest
    entry = manifest.variants[REFERENCE]
    variant = msgspec.structs.replace(entry.variant, target=Target(engine="fake", threads=1, options=options))
    changed = msgspec.structs.replace(
        manifest,
        variants={REFERENCE: msgspec.structs.replace(entry, variant=variant)},
        serving={REFERENCE: Serving(instances=instances, max_batch=max_batch)},
    )
    return Bundle(bundle.path, changed)


class _Proven(Bundle):
    """A bundle whose variants are taken for proven: their figures are made up."""

    def require_servable(self) -> None:
        pass


def with_variants(
    bundle: Bundle, variants: dict[str, tuple[float, float]], *, picked: str = REFERENCE, **serving: Any
) -> Bundle:
    """The same bundle with several variants of the same model, each with its measured latency in ms and accuracy."""
    manifest = bundle.manifest
    entry, target = manifest.variants[REFERENCE], Target(engine="fake", threads=1)
    entries = {
        id_: msgspec.structs.replace(
            entry,
            variant=Variant(id=id_, target=target),
            latency_p50_ms=_figure(latency_ms),
            accuracy=_figure(accuracy),
        )
        for id_, (latency_ms, accuracy) in variants.items()
    }
    layout = Serving(**{"threads": 1, "max_batch": 8, **serving})
    changed = msgspec.structs.replace(
        manifest, variants=entries, ladder=tuple(entries), picked=picked, serving=dict.fromkeys(entries, layout)
    )
    return _Proven(bundle.path, changed)


def _figure(value: float) -> Figure:
    return Figure(value=value, low=value, high=value, n=1, method="made up")


def ask(value: float, rows: int = 1, **fields: Any) -> Request:
    return Request(model="tiny", inputs={"x": np.full((rows, 4), value, np.float32)}, **fields)


@asynccontextmanager
async def running(bundle: Bundle, **options: Any) -> AsyncGenerator[ModelService]:
    service = ModelService(bundle, **options)
    try:
        await service.start()
        yield service
    finally:
        await service.close()


async def code_of(service: ModelService, request: Request) -> str:
    """What came of a request: "ok", or the code of its error."""
    try:
        await service.infer(request)
    except RequestError as error:
        return error.code
    return "ok"


async def back(service: ModelService) -> None:
    """Let the loop run until all of a service's engines are up again, which takes at most five seconds."""
    await until(lambda: service.driver.instances.up == service.policy.instances, within(5.0))


def within(seconds: float) -> float:
    """A bound on real time; a looser one where other work keeps all cores busy, which says nothing about the server."""
    busy = os.getloadavg()[0] > (os.cpu_count() or 1)
    return 12 * seconds if busy else seconds


async def until(reached: Callable[[], bool], seconds: float) -> float:
    """Let the loop run until something is so; how long it took. Fails after `seconds`."""
    started = time.monotonic()
    while not reached():
        assert time.monotonic() - started < seconds, "it took too long"
        await asyncio.sleep(0.005)
    return time.monotonic() - started
