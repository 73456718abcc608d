"""Draw the state diagrams of docs/scheduling.md from the scheduler's tables (a test compares the two)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hasten.serve.admit import REASONS
from hasten.serve.ladder import LADDER
from hasten.serve.outcomes import REQUEST
from hasten.serve.roster import INSTANCE

PAGE = Path(__file__).parent / "scheduling.md"
BEGIN, END = "<!-- drawn from the tables: begin -->\n", "<!-- drawn from the tables: end -->\n"


def diagram(table: Mapping[tuple[str, str], str], first: str) -> str:
    """A state diagram in mermaid's words. States that nothing leaves are ends."""
    left = {state for state, _ in table}
    states = dict.fromkeys([first, *left, *table.values()])
    names = {state: "".join(word.capitalize() for word in state.split()) for state in states}
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [f"    {names[state]} : {state}" for state in sorted(states)]
    lines += [f"    [*] --> {names[first]}"]
    lines += [f"    {names[before]} --> {names[after]} : {happening}" for (before, happening), after in table.items()]
    lines += [f"    {names[state]} --> [*]" for state in sorted(states) if state not in left]
    return "\n".join([*lines, "```"])


def drawn() -> str:
    """Everything between the marks."""
    reasons = [
        f"| {name} | {reason.code} | {reason.message} | {'yes' if reason.passes else 'no'} |"
        for name, reason in REASONS.items()
    ]
    parts = [
        "### A request (`serve/outcomes.py`)",
        diagram(REQUEST, "arriving"),
        "### The level of a model (`serve/ladder.py`)",
        diagram(LADDER, "first variant"),
        "### An engine instance (`serve/roster.py`)",
        diagram(INSTANCE, "off"),
        "### Why a request is refused (`serve/admit.py`)",
        "\n".join(
            ["| reason | code | what the client reads | told when to come back |", "|---|---|---|---|", *reasons]
        ),
    ]
    return "\n\n".join(parts) + "\n"


def page() -> str:
    """Return the page with its diagrams made anew."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{drawn()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page())
