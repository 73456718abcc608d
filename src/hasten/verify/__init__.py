"""Verify: hold a measurement against the objectives. The result is evidence with an outcome and its reasons."""

from hasten.verify.judge import judge

__all__ = ["judge"]
