"""Where the time of the picked variant goes, beside that of the reference: asked for when every claim is made.

A profiler disturbs what it watches, so nothing here runs before or between claims, and nothing here changes a verdict.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import msgspec

from hasten.clock import Clock
from hasten.data.dataset import Subset
from hasten.errors import EngineError
from hasten.measure.base import Arm
from hasten.measure.operators import operator_times, without_times
from hasten.optimize.trials import TrialLog
from hasten.spec.evidence import OperatorTimes, Record
from hasten.spec.variant import REFERENCE, Variant

__all__ = ["with_operators"]

# Beside the budget; most models take a third of it.
_WITHIN_S = 12.0


def with_operators(
    record: Record,
    reference: Arm,
    open_arm: Callable[[Variant], AbstractContextManager[Arm]],
    data: Subset,
    *,
    log: TrialLog,
    clock: Clock,
) -> Record:
    """Return `record` with operator times of the reference and of what was picked, unless they are the same.

    Where an engine fails or has no profiler, the reason stands there instead. What the log has is not asked again.
    """
    if record.picked == REFERENCE:
        return record
    key = f"operators/{record.picked}"
    times = log.get(key, tuple[OperatorTimes, ...])
    if times is None:
        variant = next(item.variant for item in record.holdout if item.variant.id == record.picked)
        try:
            with open_arm(variant) as picked:
                times = operator_times(
                    {REFERENCE: reference, variant.id: picked}, data, clock=clock, within_s=_WITHIN_S
                )
        except EngineError as error:
            times = (without_times(variant.id, error.message),)
        log.put(key, times)
    return msgspec.structs.replace(record, operators=times)
