"""One bundle being served: what is asked of it, and what its owner awaits."""

from __future__ import annotations

import asyncio

import msgspec

from hasten.bundle.read import Bundle
from hasten.engine.confine import WorkerLimits
from hasten.engine.precedence import come_first
from hasten.errors import RequestError
from hasten.serve.driver import Driver
from hasten.serve.plan import Plan, Rules, plan_of
from hasten.serve.policy import Policy
from hasten.serve.pool import Isolation
from hasten.spec.event import Gauges, Lane, Sink
from hasten.spec.request import Request, Response

__all__ = ["ModelService"]


class ModelService:
    """One bundle being served. Start it on a running event loop; `submit` calls back, `infer` awaits the answer.

    `rules` are the operator's. `isolation` "process" gives each engine instance a process of its own within `limits`;
    "none" runs them in this one.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        rules: Rules | None = None,
        sink: Sink | None = None,
        isolation: Isolation = "process",
        limits: WorkerLimits | None = None,
    ) -> None:
        self.bundle = bundle
        self.plan: Plan = plan_of(bundle, rules or Rules())
        limits = limits or WorkerLimits()
        if limits.nice is None:
            limits = msgspec.structs.replace(limits, nice=self.plan.nice)
        self._shares = bool(limits.nice)
        self.driver = Driver(bundle, self.plan, sink, isolation, limits)
        self.tally = self.driver.tally
        # Every request comes by: not through a method of its own.
        self.submit = self.driver.submit
        self.turn_away = self.driver.turn_away
        self.refuse = self.driver.refuse

    @property
    def ready(self) -> bool:
        """Whether requests are taken and an instance is up."""
        return self.driver.is_open and self.driver.instances.up > 0

    @property
    def variant(self) -> str:
        """The variant that serves at normal load."""
        return self.plan.variants[0]

    @property
    def policy(self) -> Policy:
        """The bounds of its queue and batches."""
        return self.driver.core.policy

    @property
    def engine_pid(self) -> int | None:
        """Process id of the first engine instance, where it has one of its own."""
        return self.driver.instances.all[0].pid

    async def start(self) -> None:
        """Load, warm up, become ready. Raises `EngineError` where the bundle does not load here."""
        if self._shares:
            come_first()
        await self.driver.instances.start(self.policy.instances)
        self.driver.is_open = True

    def gauges(self) -> Gauges:
        """How it stands at this moment."""
        core, answers = self.driver.core, self.driver.answers
        return Gauges(
            model=self.bundle.manifest.name,
            variant=self.variant,
            ready=self.ready,
            instances=core.wanted,
            instances_up=self.driver.instances.up,
            level=core.level,
            cache_bytes=0 if answers is None else answers.bytes,
            capacity=self.policy.queue_capacity,
            lanes=tuple(
                Lane(lane=lane.name, requests=core.lanes.length(number), work_s=core.lanes.work(number))
                for number, lane in enumerate(self.policy.lanes)
            ),
        )

    async def infer(self, request: Request) -> Response:
        """Queue a request and await its answer. Raises `RequestError`; a cancelled caller frees its place."""
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

        def answer(result: Response | RequestError) -> None:
            if isinstance(result, RequestError):
                future.set_exception(result)
            else:
                future.set_result(result)

        cancel = self.submit(request, answer)
        try:
            return await future
        finally:
            cancel()

    async def drain(self) -> None:
        """Refuse what comes, finish what waits and runs."""
        driver = self.driver
        driver.is_open = False
        if driver.answers is not None:
            await driver.answers.settle()
        driver.drain()
        await driver.desk.empty.wait()

    async def close(self) -> None:
        """End the engine, at once even where it hangs. Call `drain` first to lose nothing."""
        driver = self.driver
        driver.is_open = False
        driver.stop()
        await driver.instances.close()
        if driver.answers is not None:
            driver.answers.close()
        driver.desk.settle_all(RequestError("The server stopped.", code="unavailable"))
