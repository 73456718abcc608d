"""Overload on real servers: arrivals, an open loop that keeps up with refusals, figures, bars, pages and plots."""
