"""The record of who changed the server, or tried to: one line of JSON each, whichever transport they came by."""

from __future__ import annotations

import logging

import msgspec

__all__ = ["audit"]

_audit = logging.getLogger("hasten.serve.audit")


def audit(event: str, **fields: str | int) -> None:
    """Put one line on the record."""
    record = {"event": event, **fields}
    _audit.info("%s", msgspec.json.encode(record).decode(), extra={"fields": record})
