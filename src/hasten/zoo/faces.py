"""Faces and other patches for the face detector: small grey photographs, enlarged to what the detector takes.

200 images prove little. About 130 of them make a claim; where none of those fails, still 2 % of all may (rule of
three, Hanley and Lippman-Hand 1983), which the interval of the area under the curve, resampled from what was seen,
cannot show. So there is a second metric, right or wrong at the detector's own threshold, whose interval does.

Source of the images: scikit-image's subset of Labeled Faces in the Wild (Huang et al. 2007), 100 faces, then 100
patches without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hasten.data.dataset import Arrays, Dataset
from hasten.data.metrics import Metric, mean_of_rows
from hasten.spec.preprocess import Preprocess

__all__ = ["DECISION", "faces", "score"]

_SIDE = 128
_FACES = 100
# As the detector's own graph decodes: logits beyond this say nothing more.
_CLIP = 100.0
_THRESHOLD = 0.5


def _right(answer: Any, label: Any) -> tuple[float]:
    return (float((float(np.ravel(answer)[-1]) > _THRESHOLD) == (label > 0.5)),)


# Share of images that are rightly called a face or none.
DECISION = Metric(name="decision", row=_right, aggregate=mean_of_rows, kind="binary")


def faces(files: Mapping[str, Path]) -> Dataset:
    """Return the 200 images as uint8 pixels with 1 for a face; the answer is the best score of all anchors."""
    patches = np.load(files["lfw-subset"], allow_pickle=False)
    return Dataset(
        name=f"faces and other patches ({len(patches)} images)",
        inputs=_Enlarged(patches),
        labels=[1.0] * _FACES + [0.0] * (len(patches) - _FACES),
        metric=["auc", DECISION],
        class_names={1.0: "face", 0.0: "no face"},
        decode=score,
        preprocess=Preprocess(input="input", mean=(127.5,) * 3, std=(127.5,) * 3, channels_first=False),
    )


def score(outputs: Arrays) -> np.ndarray[Any, Any]:
    """Return the probability of the most likely face: the logistic of the largest logit, as an array of one."""
    logits = np.clip(np.asarray(outputs["classificators"], np.float64), -_CLIP, _CLIP)
    return np.array([1.0 / (1.0 + np.exp(-logits.max()))])


class _Enlarged(Sequence[Arrays]):
    """Grey patches with values from 0 to 1, made into colour images of 128 pixels on demand."""

    def __init__(self, patches: np.ndarray[Any, Any]) -> None:
        self._patches = np.clip(np.rint(patches * 255), 0, 255).astype(np.uint8)

    def __len__(self) -> int:
        return len(self._patches)

    def __getitem__(self, index: Any) -> Any:
        from PIL import Image

        image = Image.fromarray(self._patches[index]).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
        return {"input": np.repeat(np.asarray(image)[:, :, None], 3, axis=2)}
