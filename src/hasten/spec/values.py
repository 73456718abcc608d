"""The base of every frozen value: keyword-only, immutable, strict about unknown fields.

`msgspec.Struct` gives slots, equality, and JSON that is checked on the way in; the error names the place. Anyone may
import `hasten.spec`; it imports no numpy.
"""

from __future__ import annotations

import msgspec

__all__ = ["Value"]


class Value(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A frozen value. Fields that equal their default are left out of JSON."""
