"""Write docs/serve.schema.json, the JSON Schema of serve.toml, from its types (a test compares them)."""

from __future__ import annotations

import json
from pathlib import Path

from hasten.serve.config import json_schema

SCHEMA = Path(__file__).parent / "serve.schema.json"


def text() -> str:
    """Return the file's content."""
    return json.dumps(json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(text())
