"""Calibration samples on disk, so that a process of its own can read them one at a time.

One file for each sample, in the frames that also cross to engine workers: every element type, no pickle.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hasten.data.dataset import Samples
from hasten.engine.frames import Frame, read_frame
from hasten.errors import StorageError

__all__ = ["StoredSamples", "store"]

# More calibration samples than this teach no technique anything that it does not know already.
MOST = 256


class StoredSamples:
    """Samples that `store` wrote. Each is read when it is asked for; memory does not grow with their number."""

    def __init__(self, folder: Path) -> None:
        self._files = sorted(folder.glob("*.sample"))

    def __len__(self) -> int:
        return len(self._files)

    def inputs(self, position: int, /) -> dict[str, np.ndarray[Any, Any]]:
        """Return the inputs of one sample, without batch axis."""
        return dict(read_frame(bytearray(self._files[position].read_bytes())).tensors)


def store(samples: Samples, folder: Path) -> StoredSamples:
    """Write at most 256 samples into `folder`. Raises `StorageError` on a full disk."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for position in range(min(len(samples), MOST)):
            arrays = {name: np.asarray(array) for name, array in samples.inputs(position).items()}
            with (folder / f"{position:05d}.sample").open("wb") as stream:
                stream.write(Frame("sample", tensors=arrays).layout().to_bytes())
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror}.", remedy="Free some space.") from error
    return StoredSamples(folder)
