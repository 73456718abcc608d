"""Sources of joules, read from folders that look like the kernel's, and from a library that looks like NVIDIA's."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hasten.measure.power import Absent, Battery, Nvml, Rapl, Tdp, find_source
from hasten.model.open import open_model
from hasten.spec.slo import Prices
from hasten.spec.target import Target
from hasten.testing import FakeArm, ManualClock

CPU = Target(engine="onnxruntime")


@pytest.fixture
def arm(make_linear: Callable[..., Path]) -> FakeArm:
    return FakeArm(open_model(make_linear()).signature, lambda inputs: {}, ms=100.0, cores=2.0)


def files(root: Path, folder: str, **contents: object) -> Path:
    place = root / folder
    place.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (place / name).write_text(f"{content}\n")
    return place


def package(root: Path, number: int, uj: int, limit: int = 1_000_000_000) -> Path:
    folder = f"sys/class/powercap/intel-rapl:{number}"
    return files(root, folder, name=f"package-{number}", energy_uj=uj, max_energy_range_uj=limit)


def battery(root: Path, **contents: object) -> Path:
    return files(root, "sys/class/power_supply/BAT0", type="Battery", **contents)


def test_all_packages_are_added_up_and_their_parts_are_not_counted_twice(tmp_path: Path, arm: FakeArm) -> None:
    first, second = package(tmp_path, 0, 500), package(tmp_path, 1, 900)
    part = files(tmp_path, "sys/class/powercap/intel-rapl:0:0", name="core", energy_uj=0, max_energy_range_uj=9)
    platform = files(tmp_path, "sys/class/powercap/intel-rapl:2", name="psys", energy_uj=0, max_energy_range_uj=9)
    counter = Rapl.find(tmp_path)
    assert isinstance(counter, Rapl)
    assert counter.joules(arm) == 0
    (first / "energy_uj").write_text("2000500")
    (second / "energy_uj").write_text("1000900")
    (part / "energy_uj").write_text("7")
    (platform / "energy_uj").write_text("7")
    assert counter.joules(arm) == pytest.approx(3.0)


def test_a_counter_that_wraps_around_goes_on(tmp_path: Path, arm: FakeArm) -> None:
    folder = package(tmp_path, 0, 9_000_000, limit=10_000_000)
    counter = Rapl.find(tmp_path)
    assert isinstance(counter, Rapl)
    (folder / "energy_uj").write_text("1000000")
    assert counter.joules(arm) == pytest.approx(2.0)
    (folder / "energy_uj").write_text("500000")
    assert counter.joules(arm) == pytest.approx(11.5)


def test_a_machine_without_a_counter_says_so_and_what_to_do(tmp_path: Path) -> None:
    found = find_source(CPU, Prices(), root=tmp_path)
    assert isinstance(found, Absent)
    assert "no energy counter" in found.reason
    assert "processor_tdp_w" in found.remedy


def test_a_counter_that_only_root_may_read_says_how_to_allow_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path, 0, 1)
    read = Path.read_text

    def guarded(path: Path, *args: Any, **options: Any) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return read(path, *args, **options)

    # Tests may run as root, whom no permission stops.
    monkeypatch.setattr(Path, "read_text", guarded)
    found = find_source(CPU, Prices(), root=tmp_path)
    assert isinstance(found, Absent)
    assert "root only" in found.reason
    assert "sudo chmod a+r" in found.remedy


def test_a_counter_that_holds_no_number_is_a_reason(tmp_path: Path) -> None:
    package(tmp_path, 0, 1)
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").write_text("broken")
    found = Rapl.find(tmp_path)
    assert isinstance(found, Absent)
    assert "cannot be read" in found.reason


def test_a_discharging_battery_gives_current_times_voltage_over_time(tmp_path: Path, arm: FakeArm) -> None:
    folder = battery(tmp_path, status="Discharging", current_now=-2_000_000, voltage_now=10_000_000)
    clock = ManualClock()
    source = Battery.find(tmp_path, clock.now)
    assert isinstance(source, Battery)
    clock.advance(3.0)
    assert source.joules(arm) == pytest.approx(60.0)
    (folder / "current_now").write_text("1000000")
    clock.advance(2.0)
    assert source.joules(arm) == pytest.approx(60.0 + 2 * 15.0)


def test_a_battery_may_give_power_itself(tmp_path: Path, arm: FakeArm) -> None:
    battery(tmp_path, status="Discharging", power_now=8_000_000)
    clock = ManualClock()
    source = Battery.find(tmp_path, clock.now)
    assert isinstance(source, Battery)
    clock.advance(0.5)
    assert source.joules(arm) == pytest.approx(4.0)


def test_a_battery_that_is_charged_measures_nothing(tmp_path: Path) -> None:
    files(tmp_path, "sys/class/power_supply/AC", type="Mains")
    battery(tmp_path, status="Charging", power_now=8_000_000)
    found = Battery.find(tmp_path)
    assert isinstance(found, Absent)
    assert "unplug" in found.remedy


def test_a_battery_that_keeps_its_power_to_itself_is_passed_over(tmp_path: Path) -> None:
    battery(tmp_path, status="Discharging")
    assert isinstance(Battery.find(tmp_path), Absent)


def test_the_processors_own_counter_goes_before_a_battery_and_both_before_an_estimate(tmp_path: Path) -> None:
    stated = Prices(processor_tdp_w=65)
    assert isinstance(find_source(CPU, stated, root=tmp_path), Tdp)
    battery(tmp_path, status="Discharging", power_now=8_000_000)
    assert isinstance(find_source(CPU, stated, root=tmp_path), Battery)
    package(tmp_path, 0, 1)
    assert isinstance(find_source(CPU, stated, root=tmp_path), Rapl)


def test_an_estimate_charges_for_the_share_of_the_cores_that_was_used(arm: FakeArm) -> None:
    source = Tdp(80.0, cores=8)
    before = source.joules(arm)
    spent_s = sum(arm.time_ms([0] * 10)) / 1e3
    assert source.joules(arm) - before == pytest.approx(80.0 * 2 / 8 * spent_s)


class NvmlError(Exception):
    """What the library raises."""


def library(**functions: Callable[..., Any]) -> Callable[[str], Any]:
    made = {"nvmlInit": lambda: None, "nvmlDeviceGetHandleByIndex": lambda index: index, "NVMLError": NvmlError}
    return lambda name: types.SimpleNamespace(**{**made, **functions})


def test_a_board_counts_millijoules(arm: FakeArm) -> None:
    counted = iter([5000, 7500])
    source = Nvml.find(0, library(nvmlDeviceGetTotalEnergyConsumption=lambda board: next(counted)))
    assert isinstance(source, Nvml)
    assert source.joules(arm) == 7.5


def test_a_board_without_counter_or_library_is_a_reason_with_a_remedy() -> None:
    def unsupported(board: int) -> int:
        raise NvmlError("Not Supported")

    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name)

    old = Nvml.find(0, library(nvmlDeviceGetTotalEnergyConsumption=unsupported))
    assert isinstance(old, Absent)
    assert "Not Supported" in old.reason
    none = Nvml.find(0, missing)
    assert isinstance(none, Absent)
    assert "hasten[nvml]" in none.remedy


def test_a_device_beside_the_processor_is_not_charged_to_the_processors_counter(tmp_path: Path) -> None:
    package(tmp_path, 0, 1)
    found = find_source(Target(engine="openvino", device="NPU"), Prices(processor_tdp_w=65), root=tmp_path)
    assert isinstance(found, Absent)
    assert "NPU" in found.reason
