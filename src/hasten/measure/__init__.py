"""Meters: how fast, how big, how right. Paired with the reference and interleaved by construction."""
