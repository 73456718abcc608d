"""Servers that the judges start and stop: hasten's own and its peers', on loopback, before the same identity models."""
