"""Pages and threads take their time on a busy machine: no property here is about how long an example takes."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
