"""`hasten devices`: which hardware there is, which engine reaches it, and what is missing."""

from __future__ import annotations

from typing import Any

import click

from hasten.cli.seam import emit, verb

__all__ = ["command"]

CLASSES = ("CPU", "GPU", "TPU", "NPU", "FPGA", "ASIC", "edge")


@click.command(name="devices")
@verb("devices")
def command(as_json: bool) -> None:
    """List hardware classes and the engines that reach them: available, or why not and what to install."""
    import msgspec

    from hasten.engine.host import environment

    rows = _rows()
    if as_json:
        emit("devices", {"devices": rows, "environment": msgspec.to_builtins(environment())})
        return
    _print(rows)


def _rows() -> list[dict[str, Any]]:
    from hasten.optimize.plan import probe_all

    rows: list[dict[str, Any]] = []
    for probe in probe_all():
        for device in probe.devices:
            rows.append(
                {
                    "class": device.hardware,
                    "device": device.detail,
                    "engine": f"{probe.engine} {probe.version}",
                    "state": "available",
                    "precisions": list(device.precisions),
                    "reason": None,
                    "remedy": None,
                }
            )
        if not probe.devices:
            rows.append(_absent("CPU", probe.engine, probe.reason or "no device found", probe.remedy))
    reached = {row["class"] for row in rows}
    for name in CLASSES:
        if name not in reached:
            rows.append(_absent(name, None, "no engine of this version reaches it here", None))
    return sorted(rows, key=lambda row: CLASSES.index(row["class"]) if row["class"] in CLASSES else 99)


def _absent(name: str, engine: str | None, reason: str, remedy: str | None) -> dict[str, Any]:
    return {
        "class": name,
        "device": None,
        "engine": engine,
        "state": "not available",
        "precisions": [],
        "reason": reason,
        "remedy": remedy,
    }


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("class", "device", "engine", "state", "precisions")
    for row in rows:
        state = row["state"] if row["reason"] is None else f"{row['reason']}. {row['remedy'] or ''}".strip()
        table.add_row(row["class"], row["device"] or "-", row["engine"] or "-", state, " ".join(row["precisions"]))
    Console().print(table)
