"""`hasten devices`: which hardware there is, which engine reaches it, and what is missing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import click

from hasten.cli.seam import emit, verb

if TYPE_CHECKING:
    from rich.console import Console

    from hasten.engine.base import Absent, Device, Probe

__all__ = ["CLASSES", "command", "print_rows", "rows_of"]

CLASSES = ("CPU", "GPU", "TPU", "NPU", "FPGA", "ASIC", "edge")
# Below this many columns, reasons and remedies share a column with the state.
_WIDE = 110


@click.command(name="devices")
@verb("devices")
def command(as_json: bool) -> None:
    """List hardware classes and the engines that reach them: available, or why not and what to install."""
    import msgspec

    from hasten.engine.host import environment

    rows = rows_of(_probes())
    if as_json:
        emit("devices", {"devices": rows, "environment": msgspec.to_builtins(environment())})
        return
    from rich.console import Console

    print_rows(rows, Console())


def _probes() -> list[Probe]:
    """Ask every engine at the same time, each in a process of its own: a broken driver costs its own row only."""
    from hasten.engine.base import engines
    from hasten.engine.isolate import probe_isolated

    names = engines.names()
    with ThreadPoolExecutor(len(names)) as pool:
        return list(pool.map(probe_isolated, names))


def rows_of(probes: list[Probe]) -> list[dict[str, Any]]:
    """Return a row for each device found or missed, and one for each hardware class that nothing reaches."""
    rows: list[dict[str, Any]] = []
    for probe in probes:
        engine = f"{probe.engine} {probe.version or ''}".strip()
        rows += [_found(engine, device) for device in probe.devices]
        rows += [_missed(engine, absent) for absent in probe.absent]
        if not probe.devices:
            reason = probe.reason or "It found no device here."
            rows.append(_row("CPU", None, engine, reason=reason, remedy=probe.remedy or None))
    reached = {row["class"] for row in rows}
    for name in CLASSES:
        if name not in reached:
            reason = f"No engine of this version drives hardware of the class {name}."
            remedy = "A package can add an engine: see docs/plugins.md."
            rows.append(_row(name, None, None, reason=reason, remedy=remedy))
    return sorted(rows, key=lambda row: (CLASSES.index(row["class"]), row["state"] != "available"))


def _found(engine: str, device: Device) -> dict[str, Any]:
    row = _row(device.hardware, device.name, engine, support=device.support)
    return row | {"device": device.detail, "state": "available", "precisions": list(device.precisions)}


def _missed(engine: str, absent: Absent) -> dict[str, Any]:
    return _row(
        absent.hardware, absent.name, engine, support=absent.support, reason=absent.reason, remedy=absent.remedy or None
    )


def _row(
    class_: str,
    name: str | None,
    engine: str | None,
    *,
    support: str | None = None,
    reason: str | None = None,
    remedy: str | None = None,
) -> dict[str, Any]:
    """A device that is not available, until `_found` says otherwise. `name` is what `Target.device` takes."""
    return {
        "class": class_,
        "name": name,
        "device": name,
        "engine": engine,
        "state": "not available",
        "support": support,
        "precisions": [],
        "reason": reason,
        "remedy": remedy,
    }


def print_rows(rows: list[dict[str, Any]], console: Console) -> None:
    """Print the rows as a table that fits the console: six columns where there is room, else four."""
    from rich.markup import escape
    from rich.table import Table

    wide = console.width >= _WIDE
    heads = ("class", "device", "engine", "state", "precisions", "why not, and what to do")
    table = Table(show_lines=not wide)
    for head in heads if wide else heads[:4]:
        table.add_column(head, overflow="fold", max_width=14 if wide and head in ("state", "precisions") else None)
    for row in rows:
        cells = [row["class"], _device_text(row), (row["engine"] or "-").replace(" ", "\n" if not wide else " ", 1)]
        state = f"{row['state']}; {row['support']}" if row["support"] else row["state"]
        advice = " ".join(text for text in (row["reason"], row["remedy"]) if text)
        precisions = " ".join(row["precisions"])
        extra = [precisions, advice] if wide else []
        lines = [state] if wide else [text for text in (state, precisions, row["reason"], row["remedy"]) if text]
        table.add_row(*(escape(cell) for cell in (*cells, "\n".join(lines), *extra)))
    console.print(table)


def _device_text(row: dict[str, Any]) -> str:
    name, detail = row["name"], row["device"]
    return f"{name}: {detail}" if name and detail != name else name or "-"
