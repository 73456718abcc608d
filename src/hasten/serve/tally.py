"""Counts and durations of one model's requests since the server started: what the statistics route tells.

Plain sums, kept on the event loop. Every request ends in exactly one of them: answered, or failed under the code that
its client got.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

__all__ = ["Tally"]


class Tally:
    """Sums of seconds and counts. `rows` are samples, of which a request may carry several."""

    def __init__(self) -> None:
        self.answered = 0
        self.rows = 0
        self.answered_s = 0.0
        self.queue_s = 0.0
        self.engine_s = 0.0
        self.failed_s = 0.0
        self.failures: Counter[str] = Counter()
        self.batches: dict[int, tuple[int, float]] = {}
        self.last: float | None = None

    def answer(self, rows: int, total_s: float, queue_s: float) -> None:
        """A request was answered after `total_s`, of which it waited `queue_s`."""
        self.answered += 1
        self.rows += rows
        self.answered_s += total_s
        self.queue_s += queue_s
        self.engine_s += total_s - queue_s
        self.last = time.time()

    def fail(self, code: str, total_s: float = 0.0) -> None:
        """A request was refused or failed with `code` after `total_s`."""
        self.failures[code] += 1
        self.failed_s += total_s

    def execute(self, requests: int, seconds: float) -> None:
        """A batch of so many requests ran for `seconds`."""
        count, total = self.batches.get(requests, (0, 0.0))
        self.batches[requests] = (count + 1, total + seconds)

    def as_statistics(self, name: str) -> dict[str, Any]:
        """Return the sums in the words of the statistics extension, durations in nanoseconds.

        `refusals` by code are an addition. What is not measured apart (`compute_input`, `compute_output`) is left out
        rather than zero.
        """
        return {
            "name": name,
            "version": "1",
            "last_inference": 0 if self.last is None else int(self.last * 1e3),
            "inference_count": self.rows,
            "execution_count": sum(count for count, _ in self.batches.values()),
            "inference_stats": {
                "success": _duration(self.answered, self.answered_s),
                "fail": _duration(self.failures.total(), self.failed_s),
                "queue": _duration(self.answered, self.queue_s),
                "compute_infer": _duration(self.answered, self.engine_s),
            },
            "batch_stats": [
                {"batch_size": size, "compute_infer": _duration(count, seconds)}
                for size, (count, seconds) in sorted(self.batches.items())
            ],
            "refusals": dict(self.failures),
        }


def _duration(count: int, seconds: float) -> dict[str, int]:
    return {"count": count, "ns": round(seconds * 1e9)}
