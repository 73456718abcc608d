"""Recorded runs give the same decisions after a change that is not meant to change any."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.replay.traces import plain, read, runs


@pytest.mark.parametrize("path", runs(), ids=lambda path: path.stem)
def test_a_recorded_run_gives_the_same_decisions(path: Path) -> None:
    run, steps = read(path)
    core = run.core()
    for number, (now, event, commands) in enumerate(steps, start=2):
        given = [plain(command) for command in core.handle(event, now)]
        assert given == commands, f"line {number} of {path.name}: {event} at {now}"


def test_the_recorded_runs_show_what_there_is_to_decide() -> None:
    """A golden file in which nothing is refused, shed or started proves little."""
    kinds: set[str] = set()
    for path in runs():
        for _, event, commands in read(path)[1]:
            kinds |= {type(event).__name__, *(command["kind"] for command in commands)}
            kinds |= {command["reason"] for command in commands if command["kind"] == "Refuse"}
            kinds |= {command["variant"] for command in commands if command["kind"] == "Dispatch"}
    assert kinds >= {
        "Arrived", "Cancelled", "Finished", "Tick", "EngineDown", "EngineUp", "Dispatch", "Wake", "StartInstance",
        "StopInstance", "queue full", "would be late", "displaced", "f32", "int8",
    }  # fmt: skip
