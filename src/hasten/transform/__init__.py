"""Transforms: one file per technique. Each declares what it requires and promises; the base checks both."""
