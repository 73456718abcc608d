"""Where joules are read from: counters of processors, of NVIDIA boards, of batteries; and, on request, an estimate.

Each source gives joules since some moment of its own, so that a difference of two readings is what was spent between.
What a counter sees is all of its domain: idle power and whatever else runs there are in it. Finding no source gives a
reason and a remedy instead.

- `measured_rapl`: the packages of the processor, by the powercap interface of Linux (Intel, and AMD since Zen). The
  counter moves about every millisecond (Khan et al., RAPL in Action, 2018) and wraps around. Only root may read it
  since Platypus (CVE-2020-8694), unless somebody allows more.
- `measured_nvml`: the board of one NVIDIA GPU since Volta, without the processor that feeds it.
- `battery`: current times voltage while a battery discharges: the whole machine, its screen included.
- `estimated_tdp`: thermal design power that the user states, times the share of the processor's time that the worker
  used. An estimate: real power depends on clock, instructions and load.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hasten.engine.host import environment
from hasten.measure.base import Arm
from hasten.spec.slo import Prices
from hasten.spec.target import Target

__all__ = ["Absent", "Battery", "Nvml", "Rapl", "Source", "Tdp", "find_source"]

_POWERCAP = "sys/class/powercap"
_SUPPLIES = "sys/class/power_supply"
# Devices that are boards of NVIDIA, as engines call them; a number may follow.
_NVIDIA = ("CUDA", "TENSORRT", "NVIDIA")


@dataclass(frozen=True, slots=True)
class Absent:
    """Why there is nothing to read, and what would change that."""

    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.reason}; {self.remedy}"


class Source(Protocol):
    """Gives joules. `method` says how they are found.

    A burst of runs shorter than `burst_s` is not resolved; within one, `readings` are to be taken.
    """

    method: str
    burst_s: float
    readings: int

    def joules(self, arm: Arm) -> float:
        """Return joules since a fixed moment, as far as they are put down to `arm`."""
        ...


class Rapl:
    """Energy of all processor packages. Make one with `find`."""

    method = "measured_rapl"
    burst_s = 0.1
    readings = 1

    def __init__(self, packages: dict[Path, int]) -> None:
        # Packages by folder, with the value after which the counter begins anew, in microjoules.
        self._ranges = packages
        self._last = {path: _whole(path / "energy_uj") for path in packages}
        self._total_uj = 0

    @classmethod
    def find(cls, root: Path) -> Rapl | Absent:
        """Look for packages below `root`."""
        try:
            packages = {path: _whole(path / "max_energy_range_uj") for path in _packages(root / _POWERCAP)}
            if packages:
                return cls(packages)
        except PermissionError:
            return Absent(
                "the processor's energy counter may be read by root only",
                "allow it with: sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj",
            )
        except (OSError, ValueError) as error:
            return Absent(f"the processor's energy counter cannot be read ({error})", "load the module intel_rapl_msr")
        return Absent(
            "this machine exposes no energy counter (no package below /sys/class/powercap)",
            "virtual machines hide it: run on the machine itself, or state the processor's power with "
            "[prices] processor_tdp_w",
        )

    def joules(self, arm: Arm) -> float:
        """Joules of all packages since this was made. Read it more often than the counter wraps (minutes)."""
        for path, limit in self._ranges.items():
            now = _whole(path / "energy_uj")
            spent = now - self._last[path]
            self._total_uj += spent if spent >= 0 else spent + limit
            self._last[path] = now
        return self._total_uj / 1e6


class Nvml:
    """Energy of one NVIDIA board, by NVIDIA's management library. Make one with `find`."""

    method = "measured_nvml"
    burst_s = 0.3  # boards refresh the counter every 20 to 100 ms
    readings = 1

    def __init__(self, library: Any, index: int) -> None:
        self._library = library
        self._board = library.nvmlDeviceGetHandleByIndex(index)
        self.joules_now()

    @classmethod
    def find(cls, index: int = 0, load: Callable[[str], Any] = importlib.import_module) -> Nvml | Absent:
        """Look for the library and the board number `index`."""
        try:
            library = load("pynvml")
        except ImportError:
            return Absent("NVIDIA's management library is missing", "install it with: pip install 'hasten[nvml]'")
        try:
            library.nvmlInit()
            return cls(library, index)
        except library.NVMLError as error:
            return Absent(
                f"the GPU's energy counter cannot be read ({error})", "it needs a driver and a Volta or newer"
            )

    def joules_now(self) -> float:
        """Joules since the driver was loaded."""
        return self._library.nvmlDeviceGetTotalEnergyConsumption(self._board) / 1e3

    def joules(self, arm: Arm) -> float:
        """Joules of the board since the driver was loaded."""
        return self.joules_now()


class Battery:
    """Power of a discharging battery, added up between readings (trapezoids). Make one with `find`."""

    method = "battery"
    burst_s = 1.0  # gauges refresh about once a second
    readings = 4

    def __init__(self, folder: Path, now: Callable[[], float] = time.perf_counter) -> None:
        self._folder = folder
        self._now = now
        self._last = (now(), self._watts())
        self._total_j = 0.0

    @classmethod
    def find(cls, root: Path, now: Callable[[], float] = time.perf_counter) -> Battery | Absent:
        """Look for a battery below `root` that discharges and says how fast."""
        for folder in sorted((root / _SUPPLIES).glob("*")):
            try:
                if _text(folder / "type") != "Battery":
                    continue
                if _text(folder / "status") != "Discharging":
                    return Absent("the battery does not discharge", "unplug the machine, or allow the energy counter")
                return cls(folder, now)
            except (OSError, ValueError):
                continue
        return Absent("there is no battery that says how fast it discharges", "allow the energy counter")

    def joules(self, arm: Arm) -> float:
        """Joules that the battery gave since this was made, as far as it was read often enough."""
        before, watts_before = self._last
        self._last = now, watts = self._now(), self._watts()
        self._total_j += (now - before) * (watts_before + watts) / 2
        return self._total_j

    def _watts(self) -> float:
        """Some drivers give power in µW, others current in µA beside voltage in µV; the sign differs among drivers."""
        if (self._folder / "power_now").exists():
            return abs(_whole(self._folder / "power_now")) / 1e6
        return abs(_whole(self._folder / "current_now")) * _whole(self._folder / "voltage_now") / 1e12


class Tdp:
    """An estimate: the stated power, times the share of the processor's time that the worker has used.

    A thread that waits busily uses processor time, and is charged for it, as it is by the real machine.
    """

    method = "estimated_tdp"
    burst_s = 0.05
    readings = 1

    def __init__(self, watts: float, cores: int) -> None:
        self._watts_per_core = watts / cores

    def joules(self, arm: Arm) -> float:
        """Joules put down to the worker since it was started."""
        return self._watts_per_core * arm.cpu_s()


def find_source(target: Target, prices: Prices, *, root: Path = Path("/")) -> Source | Absent:
    """Return what can be read for a model on this target, or why nothing can.

    On a processor: its own counter, else a battery, else the estimate, which only the user can ask for. A device
    beside the processor is not in the processor's counter.
    """
    if target.device.upper().startswith(_NVIDIA) or target.engine == "tensorrt":
        index = target.options.get("device_id", 0)
        return Nvml.find(int(index))
    if target.device.upper() not in ("CPU", "XNNPACK"):
        return Absent(f"no energy counter of the device {target.device} is known", "measure it on the CPU")
    found = Rapl.find(root)
    if isinstance(found, Rapl):
        return found
    battery = Battery.find(root)
    if isinstance(battery, Battery):
        return battery
    return found if prices.processor_tdp_w is None else Tdp(prices.processor_tdp_w, environment().cores_logical)


def _packages(powercap: Path) -> list[Path]:
    """Folders of whole packages; their parts (core, uncore) and memory are below them, and would count twice."""
    zones = [path for path in sorted(powercap.glob("intel-rapl:*")) if (path / "name").exists()]
    return [path for path in zones if _text(path / "name").startswith("package")]


def _text(path: Path) -> str:
    return path.read_text().strip()


def _whole(path: Path) -> int:
    return int(_text(path))
