"""Frozen values that every room may know. No logic beyond a value's own, no numpy at import."""
