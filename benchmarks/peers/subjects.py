"""The models and data that contestants meet on. Everyone gets the same file, the same splits and the same labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hasten.data.dataset import Arrays, Dataset, Subset
from hasten.data.feed import feed
from hasten.data.split import Splits, split
from hasten.model.base import Model
from hasten.model.open import open_model
from hasten.zoo.open import zoo_data, zoo_model

__all__ = ["SUBJECTS", "Subject"]

# Where the encoder's tokenizer file pads to, and what users who leave it alone therefore run.
PADDED = 128
# As many as hasten hands to its own techniques.
MOST = 256


class Subject:
    """One model with its data, split as hasten splits it (seed 0), so that nobody sees the holdout data early."""

    def __init__(self, name: str) -> None:
        zoo, about, padded = SUBJECTS[name]
        self.name, self.zoo, self.about = name, zoo, about
        self.data = _padded(zoo_data(zoo)) if padded else zoo_data(zoo)
        self.path: Path = zoo_model(zoo)
        self.model: Model = open_model(self.path)
        self.text = zoo == "minilm"
        self._splits: Splits = split(self.data)
        self.holdout: Subset = self._splits.holdout.open(["every contestant"])

    def write_calibration(self, folder: Path) -> None:
        """Write the calibration split as plain `.npz` files, batch axis included, which any tool can read."""
        folder.mkdir(parents=True, exist_ok=True)
        samples = self._splits.calibration
        for position in range(min(len(samples), MOST)):
            np.savez(folder / f"{position:05d}.npz", **feed(self.model.signature, [samples.inputs(position)]))


# Name: specimen of the zoo, a word on the data, whether texts are padded.
SUBJECTS: dict[str, tuple[str, str, bool]] = {
    "ppocr-rec": ("ppocr-rec", "text lines of 48 by 320 pixels", False),
    "efficientnet-lite0": ("efficientnet-lite0", "pictures of 224 by 224 pixels", False),
    "minilm-128": ("minilm", f"sentences padded to {PADDED} tokens, with attention mask", True),
    "minilm": ("minilm", "sentences at their own lengths", False),
    "face-detector": ("face-detector", "pictures of 128 by 128 pixels", False),
    "magika": ("magika", "files of 2,048 bytes", False),
}


def _padded(data: Dataset) -> Dataset:
    return Dataset(
        name=data.name.replace("at their own lengths", f"padded to {PADDED} tokens"),
        inputs=_Padded(data),
        labels=data.labels,
        metric=list(data.metrics),
        decode=data.decode,
        groups=data.groups,
    )


class _Padded(Sequence[Arrays]):
    """Token numbers and mask, with zeros behind the text."""

    def __init__(self, data: Dataset) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: Any) -> Any:
        sample = self._data.inputs(index)
        return {name: np.pad(array, (0, PADDED - len(array))) for name, array in sample.items()}
