"""Bundles: the verified deployment artifact. Written by the offline wing, opened by the online wing."""
