"""How fast servers answer, side by side: `make bench-serve`."""
