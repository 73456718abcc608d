"""What a load found: from the log of its calls to figures. Pure, so that every rule here is tested without a clock.

Latencies are of answered requests. One that was never answered took at least as long as anyone waited: it stands
behind all others when percentiles are taken, and a percentile that falls among such requests is not measured. Whoever
asks for a deadline is told the share of all requests that met it, whether they failed, were shed or were never sent.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from hasten.errors import HastenError, RequestError, UsageError
from hasten.measure.load import Load
from hasten.spec.measurement import Figure, unmeasured
from hasten.spec.values import Value
from hasten.stats.change import share
from hasten.stats.percentiles import mean, percentile

__all__ = ["FOREVER_MS", "LATE_S", "Call", "LoadResult", "of_answered", "summarize"]

# Threads of one Python process hand over to each other every 5 ms: a caller that was sent off later than this was not
# late by chance but because there was none free.
LATE_S = 0.005
# Stands for the latency of a request that nobody answered: larger than any real one by so much that a mean of both is
# still larger, and finite, so that it can be sorted and interpolated.
FOREVER_MS, _LONGEST_MS = 1e300, 1e200
# The interval of a rate comes from the spread between so many equal slices of the time.
_SLICES = 20
_NO_DEADLINE = unmeasured("no deadline was given (--deadline-ms)")


@dataclass(slots=True)
class Call:
    """One request, in seconds from the start of what is measured: due, sent, and answered or failed.

    `sent_s` None: nobody was free to send it before patience ran out. `done_s` None: nobody answered. `failure` is the
    kind of a failure, an error code.
    """

    due_s: float
    sent_s: float | None = None
    done_s: float | None = None
    failure: str | None = None
    error: HastenError | None = None


class LoadResult(Value, frozen=True):
    """Latencies in ms and rates per second over one run; failed calls are counted, never timed.

    `requests` = answered + `failed` + `unanswered` + `unsent`. `late` are those sent more than 5 ms after they were
    due, for want of a caller: their latency counts from when they were due all the same. `attainment` is the share of
    all requests that were answered within the deadline, `goodput_rps` their rate. `offered_rps` is the rate at which
    requests were due (open loops).
    """

    latency_p50_ms: Figure
    latency_p95_ms: Figure
    latency_p99_ms: Figure
    throughput_rps: Figure
    failed: int
    failures: dict[str, int] = {}
    requests: int = 0
    unanswered: int = 0
    unsent: int = 0
    late: int = 0
    attainment: Figure = _NO_DEADLINE
    goodput_rps: Figure = _NO_DEADLINE
    offered_rps: float | None = None


def summarize(load: Load, calls: Sequence[Call], duration_s: float, deadline_ms: float | None = None) -> LoadResult:
    """Return the figures of a run that lasted `duration_s` seconds (infinite for a trace: until its last answer).

    Calls that were due before 0 belong to the warm-up. Raises the first error where no request was answered,
    `UsageError` where there was none at all.
    """
    measured = [call for call in calls if call.due_s >= 0]
    answered = [call for call in measured if call.done_s is not None and call.failure is None]
    failures = Counter(call.failure for call in measured if call.failure is not None)
    lost = sum(call.done_s is None for call in measured)
    if not answered:
        raise _nothing(measured)
    window = _window(load, measured, duration_s)
    times = [(_done(call) - call.due_s) * 1e3 for call in answered]
    good = [] if deadline_ms is None else [call for call, ms in zip(answered, times, strict=True) if ms <= deadline_ms]
    # What was under way when measuring began is answered within it, as what is under way at its end is not.
    finished = measured if load.open else calls
    unsent = sum(call.sent_s is None for call in measured)
    return LoadResult(
        latency_p50_ms=_percentile(times, 50, lost),
        latency_p95_ms=_percentile(times, 95, lost),
        latency_p99_ms=_percentile(times, 99, lost),
        throughput_rps=_rate([call for call in finished if call.failure is None], window, load),
        failed=sum(failures.values()),
        failures=dict(failures.most_common()),
        requests=len(measured),
        unanswered=lost - unsent,
        unsent=unsent,
        late=sum(call.sent_s is not None and call.sent_s - call.due_s > LATE_S for call in measured),
        attainment=_NO_DEADLINE if deadline_ms is None else _attainment(len(good), len(measured), deadline_ms),
        goodput_rps=_NO_DEADLINE if deadline_ms is None else _rate(good, window, load),
        offered_rps=len(measured) / min(window, duration_s) if load.open else None,
    )


def _done(call: Call) -> float:
    assert call.done_s is not None
    return call.done_s


def _nothing(measured: Sequence[Call]) -> HastenError:
    """Why a run has no figures."""
    first = next((call.error for call in measured if call.error is not None), None)
    if first is not None:
        return first
    if measured:
        return RequestError(
            f"None of {len(measured)} requests was answered.",
            remedy="The target is too slow for this load: lower it, or make --duration longer.",
            code="timeout",
        )
    return UsageError("The load holds no request.", remedy="Make it longer: --duration 30s.")


def _window(load: Load, measured: Sequence[Call], duration_s: float) -> float:
    """Seconds that rates are taken over: in an open loop until the last answer, where that comes after the end.

    A server that lags behind would otherwise be credited with answers that it gave when the load was over.
    """
    if not load.open:
        return duration_s
    last = max((call.done_s for call in measured if call.done_s is not None), default=0.0)
    due = max((call.due_s for call in measured), default=0.0)
    return max(last, due if math.isinf(duration_s) else duration_s, 1e-9)


def _percentile(times: Sequence[float], p: float, lost: int) -> Figure:
    """A percentile over answered and unanswered requests; its upper bound is open where that was not answered."""
    return of_answered(percentile([*times, *[FOREVER_MS] * lost], p), p, lost)


def of_answered(figure: Figure, p: float, lost: int) -> Figure:
    """A percentile in ms over values in which `FOREVER_MS` stands for each of the `lost` that nobody answered."""
    if figure.value is not None and figure.value > _LONGEST_MS:
        return unmeasured(f"p{p:g} lies among the {lost} requests that nobody answered")
    if figure.high is not None and figure.high > _LONGEST_MS:
        return msgspec.structs.replace(figure, high=None)
    return figure


def _attainment(good: int, requests: int, deadline_ms: float) -> Figure:
    figure = share(np.repeat([1.0, 0.0], [good, requests - good]))
    return msgspec.structs.replace(figure, method=f"answered within {deadline_ms:g} ms; Wilson")


def _rate(calls: Sequence[Call], window_s: float, load: Load) -> Figure:
    """Calls that were finished within the window, over it. A rate that changes by design has no interval."""
    done = np.array([call.done_s for call in calls if call.done_s is not None and 0 <= call.done_s <= window_s])
    rate = len(done) / window_s
    if load.kind in ("step", "trace") or len(done) < _SLICES:
        return Figure(value=rate, low=None, high=None, n=len(done), method="answered over elapsed time")
    counts, _ = np.histogram(done, _SLICES, (0.0, window_s))
    spread = mean((counts * _SLICES / window_s).tolist())
    return Figure(
        value=rate,
        low=max(0.0, rate - (spread.value or 0.0) + (spread.low or 0.0)),
        high=rate - (spread.value or 0.0) + (spread.high or 0.0),
        n=len(done),
        method=f"answered over elapsed time; t interval of {_SLICES} slices",
    )
