"""GET /metrics: the observer's page. It is put together on a thread, one at a time, so that requests need not wait."""

from __future__ import annotations

import asyncio

from hasten.errors import RequestError
from hasten.serve.bugs import internal
from hasten.serve.http.message import Cancel, HttpRequest, Reply, refusal
from hasten.serve.repository import Repository
from hasten.serve.telemetry import Page
from hasten.serve.unread import Unread
from hasten.wire.base import Encoded

__all__ = ["Scrape"]


class Scrape:
    """The handler. Without a `page` there is nothing at this path."""

    def __init__(self, page: Page | None, repository: Repository, unread: Unread) -> None:
        self._page = page
        self._unread = unread
        self._repository = repository
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()

    def answer(self, request: HttpRequest, reply: Reply) -> Cancel:
        """Answer a scrape."""
        if self._page is None:
            raise RequestError("There is nothing at this path.", code="not_found")
        task = asyncio.get_running_loop().create_task(self._answer(self._page, request, reply))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task.cancel

    async def _answer(self, page: Page, request: HttpRequest, reply: Reply) -> None:
        try:
            async with self._turn:
                gauges = [service.gauges() for service in self._repository.services.values()]
                kind, body = await asyncio.to_thread(
                    page, request.headers.get("accept", ""), gauges, self._unread.bytes
                )
        except Exception as error:
            reply(*refusal(internal(error)))
        else:
            reply(200, Encoded(parts=[body], headers={"content-type": kind}))
