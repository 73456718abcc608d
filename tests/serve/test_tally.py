from __future__ import annotations

import pytest

from hasten.serve.tally import Tally


def test_requests_that_ran_together_count_one_by_one_and_as_one_batch() -> None:
    tally = Tally(wall=lambda: 12.5)
    tally.ran([0.0, 1.0], started=2.0, finished=5.0)
    found = tally.statistics()
    assert (found.success.count, found.executions, found.last_inference_ms) == (2, 1, 12_500)
    assert (found.queue.ns, found.engine.ns, found.success.ns) == (3 * 10**9, 6 * 10**9, 9 * 10**9)
    assert [(batch.batch, batch.engine.count, batch.engine.ns) for batch in found.batches] == [(2, 1, 3 * 10**9)]


def test_a_refusal_is_a_failure_and_no_execution() -> None:
    tally = Tally()
    tally.failed(0.5)
    found = tally.statistics()
    assert (found.fail.count, found.success.count, found.executions) == (1, 0, 0)
    assert found.fail.ns == pytest.approx(5e8)


def test_a_batch_that_nobody_waits_for_is_not_counted() -> None:
    tally = Tally()
    tally.ran([], started=0.0, finished=1.0)
    assert tally.statistics().executions == 0
