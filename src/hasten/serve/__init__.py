"""Serve: a bundle as a service. `core` and `batcher` are pure; `pool`, `driver`, `frontend` and `server` do the I/O."""
