"""What a cascade inside a graph and the engines that run it agree on."""

from __future__ import annotations

__all__ = ["FOUND"]

# The node, behind the If, that lists the rows to compute again. It does not run where there are none. Who knows that
# there is one row knows its answer, and with it all shapes behind it.
FOUND = "full/cascade/found"
