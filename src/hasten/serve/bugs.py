"""What a client gets for a bug of ours."""

from __future__ import annotations

import logging
import secrets

from hasten.errors import RequestError

__all__ = ["internal"]

_log = logging.getLogger("hasten.serve")


def internal(error: BaseException) -> RequestError:
    """The error that a client gets for a bug of ours; the log gets the traceback, and an id joins the two."""
    id_ = secrets.token_hex(6)
    _log.error("Request %s failed by a bug.", id_, exc_info=error)
    return RequestError(f"The server failed on this request; its log says more under {id_}.", code="internal")
