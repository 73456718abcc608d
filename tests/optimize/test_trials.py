"""The trial log: what is finished stays, and what cannot be read says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from hasten.errors import UsageError
from hasten.optimize.effort import ClaimEffort
from hasten.optimize.trials import TrialLog


def test_what_was_put_is_there_after_an_interruption(tmp_path: Path) -> None:
    log = TrialLog(tmp_path / "out", "run", resume=False)
    log.put("seen", [0.5])
    log.close()
    assert TrialLog(tmp_path / "out", "run", resume=True).get("seen", list[float]) == [0.5]
    assert TrialLog(tmp_path / "out", "run", resume=True).get("never", list[float]) is None


@pytest.mark.parametrize("kept", [{"rounds": 20, "samples": 100, "picks": 2}, "not an effort"])
def test_what_another_state_of_hasten_left_is_an_error_that_says_what_to_do(tmp_path: Path, kept: object) -> None:
    log = TrialLog(tmp_path / "out", "run", resume=False)
    log.put("claims", kept)
    with pytest.raises(UsageError, match=r"'claims'.*cannot be read") as raised:
        log.get("claims", ClaimEffort)
    assert "--resume" in str(raised.value.remedy)
