"""Environments of their own under work/, for what brings other versions of what hasten uses. Never committed."""

from __future__ import annotations

import subprocess
import venv
from pathlib import Path

__all__ = ["WORK", "environment"]

WORK = Path(__file__).parents[2] / "work"


def environment(name: str, *packages: str) -> Path:
    """Return the Python of work/NAME, made on the first call with these packages, pinned, from the package index."""
    home = WORK / name
    python, ready = home / "bin" / "python", home / ".ready"
    wanted = "\n".join(packages)
    if not ready.exists() or ready.read_text() != wanted:
        venv.create(home, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *packages], check=True)
        ready.write_text(wanted)
    return python
