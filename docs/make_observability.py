"""Write the table of metrics into docs/observability.md from the code's own (a test compares them)."""

from __future__ import annotations

import re
from pathlib import Path

from hasten.observe.families import table

PAGE = Path(__file__).parent / "observability.md"


def page() -> str:
    """Return the page with the table of today."""
    whole = f"<!-- metrics -->\n{table()}<!-- /metrics -->"
    return re.sub(r"<!-- metrics -->.*<!-- /metrics -->", lambda _: whole, PAGE.read_text(), flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(page())
