"""What one model's service has done since it started, as the protocol's statistics count it."""

from __future__ import annotations

from hasten.spec.values import Value

__all__ = ["BatchStatistics", "Duration", "Statistics"]


class Duration(Value, frozen=True):
    """How often something happened, and how long it took in all: nanoseconds."""

    count: int = 0
    ns: int = 0


class BatchStatistics(Value, frozen=True):
    """Batches of one size, counted in requests that ran together."""

    batch: int
    engine: Duration


class Statistics(Value, frozen=True):
    """Requests by their end, and where their time went. `success` and `fail` run from arrival to answer; refused and
    expired requests are failures. `last_inference_ms` is in milliseconds since 1970, 0 for never.
    """

    success: Duration = Duration()
    fail: Duration = Duration()
    queue: Duration = Duration()
    engine: Duration = Duration()
    batches: tuple[BatchStatistics, ...] = ()
    last_inference_ms: int = 0

    @property
    def executions(self) -> int:
        """How many batches ran."""
        return sum(batch.engine.count for batch in self.batches)
