"""Capacity: what a deployment carries, by simulation over the real scheduler of `serve`."""
