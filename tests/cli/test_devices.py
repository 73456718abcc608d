"""`hasten devices` and docs/hardware.md say what the engines say, and fit the screen."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from hasten.cli.devices import CLASSES, print_rows, rows_of
from hasten.engine.base import Absent, Device, Probe, engines
from hasten.spec.target import RUNTIME_KNOBS

PAGE = Path(__file__).parents[2] / "docs" / "hardware.md"
BUILT_IN = [entry.name for entry in engines.entries() if not entry.third_party]
PROBE = Probe(
    engine="onnxruntime",
    version="1.32.0",
    devices=(Device(name="CPU", hardware="CPU", detail="A processor with a long name @ 3.00GHz", precisions=("f32",)),),
    absent=(
        Absent(name="CUDA", hardware="GPU", reason="There is [no] GPU.", remedy="Type: pip install 'hasten[cuda]'"),
    ),
)


def printed(probes: list[Probe], width: int) -> str:
    out = io.StringIO()
    print_rows(rows_of(probes), Console(file=out, width=width))
    return out.getvalue()


def test_every_hardware_class_has_a_row_even_if_nothing_reaches_it() -> None:
    rows = rows_of([PROBE])
    assert list(dict.fromkeys(row["class"] for row in rows)) == list(CLASSES)
    [fpga] = [row for row in rows if row["class"] == "FPGA"]
    assert (fpga["engine"], fpga["state"], fpga["support"]) == (None, "not available", None)
    assert "No engine of this version" in fpga["reason"]


def test_what_is_found_stands_before_what_is_missed_and_says_how_far_it_was_checked() -> None:
    cpu, cuda = rows_of([PROBE])[:2]
    assert (cpu["state"], cpu["support"], cpu["precisions"]) == ("available", "runs here", ["f32"])
    assert (cuda["state"], cuda["support"], cuda["precisions"]) == ("not available", "not run on hardware", [])
    assert cuda["remedy"] == PROBE.absent[0].remedy


def test_an_engine_that_is_broken_is_a_row_with_its_reason() -> None:
    [row] = [row for row in rows_of([PROBE, Probe(engine="torch", reason="It died.")]) if row["engine"] == "torch"]
    assert (row["state"], row["reason"]) == ("not available", "It died.")


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_the_table_fits_the_screen_and_loses_no_word(width: int) -> None:
    text = printed([PROBE], width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    # Wrapped cells are put together again by dropping frames and spaces.
    columns = zip(*(line.split("│")[1:-1] for line in text.splitlines() if "│" in line), strict=True)
    letters = ["".join("".join(cells).split()) for cells in columns]
    for words in ("There is [no] GPU.", "Type: pip install 'hasten[cuda]'", "A processor with a long name @ 3.00GHz"):
        assert any("".join(words.split()) in column for column in letters), words


def test_json_gives_each_row_with_its_support() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hasten.cli", "devices", "--json"], capture_output=True, text=True, check=True
    )
    answer = json.loads(done.stdout)
    keys = {"class", "name", "device", "engine", "state", "support", "precisions", "reason", "remedy"}
    assert all(set(row) == keys for row in answer["devices"])
    here = {row["engine"].split()[0] for row in answer["devices"] if row["support"] == "runs here"}
    assert here == set(BUILT_IN)
    assert answer["environment"]["cores_logical"] >= 1


def documented() -> dict[tuple[str, str], tuple[str, ...]]:
    """The page's table: class, support and remedy by engine and device."""
    table = PAGE.read_text().partition("<!-- table: begin -->")[2].partition("<!-- table: end -->")[0]
    cells = [tuple(cell.strip() for cell in line.split("|")[1:-1]) for line in table.strip().splitlines()[2:]]
    return {(engine, device): (class_, support, remedy) for class_, device, engine, support, remedy in cells}


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_page_on_hardware_has_the_devices_that_each_engine_declares(name: str) -> None:
    page, probe = documented(), engines.get(name).probe()
    for device in probe.devices:
        assert page[name, device.name.split(".")[0]][:2] == (device.hardware, device.support)
    for absent in probe.absent:
        assert page[name, absent.name] == (absent.hardware, absent.support, absent.remedy), "run docs/make_hardware.py"
    declared = {item.name.split(".")[0] for item in (*probe.devices, *probe.absent)}
    assert {device for engine, device in page if engine == name} == declared


def test_the_page_on_hardware_says_which_knobs_each_engine_obeys() -> None:
    table = PAGE.read_text().partition("| knob |")[2]
    names = [name.strip() for name in table.splitlines()[0].split("|")[:-1]]
    obeyed: dict[str, set[str]] = {name: set() for name in names}
    for line in table.splitlines()[2:]:
        if not line.startswith("|"):
            break
        knobs, *cells = (cell.strip() for cell in line.split("|")[1:-1])
        for name, cell in zip(names, cells, strict=True):
            obeyed[name] |= set(re.findall(r"`(\w+)`", knobs)) if cell != "-" else set()
    assert obeyed == {name: set(engines.get(name).honours) for name in BUILT_IN}
    assert obeyed["onnxruntime"] | obeyed["openvino"] == set(RUNTIME_KNOBS), "each knob is obeyed by some engine"
