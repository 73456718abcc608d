"""What the machine was doing meanwhile: read from counters, unmeasured with a reason where there are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from hasten.measure import circumstances as module
from hasten.measure.circumstances import Machine, Snapshot, circumstances, disturbed, run_load_watched
from hasten.measure.contention import Watch
from hasten.measure.load import Load


def machine(root: Path, stat: str, *mhz: int) -> Machine:
    (root / "proc").mkdir(parents=True)
    (root / "proc/stat").write_text(stat)
    for core, value in enumerate(mhz):
        folder = root / f"sys/devices/system/cpu/cpu{core}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text(f"{value * 1000}\n")
    return Machine(root)


def test_stolen_time_is_a_share_of_the_time_of_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.os, "cpu_count", lambda: 2)
    before = Snapshot((0,) * 8, own_s=0.0, mhz=None)
    # 4 s on 2 cores are 800 ticks: 100 stolen, 300 busy, of which 2 s are our own.
    after = Snapshot((200, 0, 80, 400, 0, 0, 20, 100), own_s=2.0, mhz=None)
    found = circumstances(before, after)
    assert found["steal_share"].value == pytest.approx(0.125)
    assert found["cores_busy_with_others"].value == pytest.approx((3.0 - 2.0) / 4.0)


def test_the_clock_is_the_mean_over_the_cores_where_the_driver_tells_it(tmp_path: Path) -> None:
    watched = machine(tmp_path, "cpu  1 2 3 4 5 6 7 8 0 0\n", 2000, 3000)
    snapshot = watched.snapshot()
    assert (snapshot.ticks, snapshot.mhz) == ((1, 2, 3, 4, 5, 6, 7, 8), 2500)
    assert circumstances(snapshot, snapshot)["frequency_mhz"].value == 2500


@pytest.mark.parametrize("stat", ["", "cpu0 1 2 3", "cpu a b c d e f g h"])
def test_counters_that_cannot_be_read_are_unmeasured(tmp_path: Path, stat: str) -> None:
    snapshot = machine(tmp_path, stat).snapshot()
    found = circumstances(snapshot, snapshot)
    assert {figure.value for figure in found.values()} == {None}
    assert all(figure.reason for figure in found.values())


def test_this_machine_tells_something_or_says_why_not() -> None:
    reader = Machine()
    found = circumstances(reader.snapshot(), reader.snapshot())
    assert set(found) == {"steal_share", "cores_busy_with_others", "frequency_mhz"}


class Quick:
    """Answers at once, and counts."""

    def __init__(self) -> None:
        self.asked = 0

    def rest(self) -> None:
        pass

    def call(self, index: int) -> None:
        self.asked += 1


def watched(answers: list[bool], patience_s: float = 1.0) -> tuple[bool, int]:
    told = iter(answers)
    watch = Watch(patience_s, probe=lambda: 99.0 if next(told) else 0.0, pause=lambda seconds: None)
    found = run_load_watched(Quick(), Load(kind="closed"), 0.01, watch, seed=0, warmup_s=0.0, deadline_ms=None)
    return found.contended, found.repeated


def test_a_run_on_a_quiet_machine_is_made_once() -> None:
    assert watched([True, True]) == (False, 0)


def test_a_run_during_which_the_machine_got_busy_is_made_again() -> None:
    assert watched([True, False, True, True]) == (False, 1)


def test_a_machine_that_stays_busy_is_measured_and_said() -> None:
    assert watched([True, False, True, False]) == (True, 1)
    assert watched([False, True], patience_s=0.0) == (True, 0)


@pytest.mark.parametrize(
    ("user", "softirq", "steal", "own_s", "expected"),
    [
        (300, 0, 0, 3.0, False),
        (300, 0, 0, 2.0, True),
        (300, 100, 0, 3.0, False),
        (300, 0, 50, 3.0, True),
    ],
)
def test_a_short_measurement_is_disturbed_where_others_or_the_host_took_the_machine(
    monkeypatch: pytest.MonkeyPatch, user: int, softirq: int, steal: int, own_s: float, expected: bool
) -> None:
    monkeypatch.setattr(module.os, "cpu_count", lambda: 2)
    before = Snapshot((0,) * 8, own_s=0.0, mhz=None)
    idle = 400 - user - softirq - steal
    after = Snapshot((user, 0, 0, idle, 0, 0, softirq, steal), own_s=own_s, mhz=None)
    assert disturbed(before, after) is expected
    assert not disturbed(Snapshot(None, 0.0, None), after)
