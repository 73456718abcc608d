"""Engines: the runtimes that execute models, and the processes that hold them. See `hasten.engine.base`."""
