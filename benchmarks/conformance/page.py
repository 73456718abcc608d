"""The page that tells what was asked, what is answered alike, and every difference with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from conformance.compare import Difference, Found

__all__ = ["page"]


INTRODUCTION = """\
# Conformance: hasten beside a real tritonserver

Written by `make conformance`. It starts tritonserver and hasten on loopback before the same identity models, sends each
probe to both, lets KServe's clients ask both, and compares status and everything in the answer that clients rely on:
names, types, shapes, values, ids, binary or JSON. Wording of errors is not compared; that a refusal is JSON with an
`error` text is. A difference that `benchmarks/conformance/differences.toml` does not list with its reason fails the
command, and so does a row there that is out of date.
"""


def page(found: Sequence[Found], triton: str) -> str:
    """The page, in Markdown."""
    alike = [one for one in found if one.same and not one.problem]
    differ = [one for one in found if one.difference]
    problems = [one for one in found if one.problem]
    counts = f"{len(alike)} answered alike, {len(differ)} differ as meant"
    lines = [
        *INTRODUCTION.splitlines(),
        "",
        f"{len(found)} probes against tritonserver {triton}: {counts}, {len(problems)} problems.",
        "",
        "| class | probes | alike | differ as meant |",
        "|---|---|---|---|",
    ]
    asked, same = Counter(map(_class, found)), Counter(map(_class, alike))
    meant = Counter(map(_class, differ))
    lines += [f"| {name} | {count} | {same[name]} | {meant[name]} |" for name, count in asked.items()]
    lines += ["", "## Differences, and why", ""]
    for row in dict.fromkeys(one.difference for one in differ if one.difference):
        lines += _told(row, [one for one in differ if one.difference is row])

    if problems:
        lines += ["## Problems", "", "| probe | hasten | triton | |", "|---|---|---|---|"]
        lines += [f"| {one.probe} | {one.ours} | {one.theirs} | {one.problem} |" for one in problems]
        lines.append("")
    lines += ["## Answered alike", ""]
    lines += [f"- {name}: {'; '.join(_short(one) for one in alike if _class(one) == name)}" for name in same]
    return "\n".join(lines) + "\n"


def _told(row: Difference, found: Sequence[Found]) -> list[str]:
    probes = "; ".join(one.probe for one in found)
    return [f"- **{_status(row.hasten)}, Triton {_status(row.triton)}**: {probes}. {row.reason}", ""]


def _status(words: str) -> str:
    return words if len(words) < 60 else words[:57] + "..."


def _class(one: Found) -> str:
    return one.probe.partition(":")[0]


def _short(one: Found) -> str:
    return f"{one.probe.partition(':')[2].strip()} ({one.ours.status})"
