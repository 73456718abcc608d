"""Write the table of docs/hardware.md from what the engines declare (a test compares the two).

Run it on a machine without accelerators, where each engine says of every device what would be needed.
"""

from __future__ import annotations

from pathlib import Path

from hasten.cli.devices import CLASSES
from hasten.engine.base import engines

PAGE = Path(__file__).parent / "hardware.md"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"
HEAD = "| class | device | engine | hasten's checks | how to get it |\n|---|---|---|---|---|\n"


def rows() -> list[tuple[str, ...]]:
    """One row for each device that an engine drives, in the order of `hasten devices`."""
    found: list[tuple[str, ...]] = []
    for entry in engines.entries():
        if entry.third_party:
            continue
        probe = engines.get(entry.name).probe()
        install = entry.install_hint.removeprefix("Install it with: ") or "comes with hasten"
        for device in probe.devices:
            found.append((device.hardware, device.name, entry.name, device.support, install))
        for absent in probe.absent:
            found.append((absent.hardware, absent.name, entry.name, absent.support, absent.remedy))
    reached = {row[0] for row in found}
    found += [(name, "-", "-", "-", "no engine of this version") for name in CLASSES if name not in reached]
    return sorted(found, key=lambda row: CLASSES.index(row[0]))


def page() -> str:
    """Return the page with its table made anew."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    table = HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows())
    return f"{before}{BEGIN}{table}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page())
