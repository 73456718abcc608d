"""Fashion-MNIST (Xiao et al. 2017): small grey pictures of clothes in ten classes, as they are and enlarged."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hasten.data.dataset import Arrays, Dataset
from hasten.errors import DataError
from hasten.spec.preprocess import Preprocess
from hasten.zoo.catalog import FASHION_TEST, FASHION_TRAIN

__all__ = [
    "PREPROCESS", "SIDE", "TESTED", "Enlarged", "all_pictures", "images_of", "labels_of", "pictures",
    "test", "train",
]  # fmt: skip

SIDE = 224
# Test pictures that the classifier's dataset gives out: enough to prove a drop of a point.
TESTED = 3000
# What the network was trained with: (pixel - 127) / 128.
PREPROCESS = Preprocess(input="image", mean=(127.0,) * 3, std=(128.0,) * 3)
_NAMES = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_IMAGES, _LABELS = 2051, 2049
_REMEDY = "Fetch it again: hasten zoo get fashion-mnist"


def pictures(files: Mapping[str, Path]) -> Dataset:
    """Return the first 3,000 test pictures enlarged to 224 pixels, as uint8 colour pixels with preprocessing."""
    return _enlarged(files, TESTED)


def all_pictures(files: Mapping[str, Path]) -> Dataset:
    """Return all 10,000 test pictures enlarged, as `pictures` does."""
    return _enlarged(files, None)


def test(files: Mapping[str, Path]) -> Dataset:
    """Return the 10,000 test pictures for a model of the user's own: `image`, f32 [1, 28, 28] from 0 to 1."""
    return _small(files, FASHION_TEST, "test")


def train(files: Mapping[str, Path]) -> Dataset:
    """Return the 60,000 training pictures, as `test` does."""
    return _small(files, FASHION_TRAIN, "training")


class Enlarged(Sequence[Arrays]):
    """Pictures of 28 pixels, made into colour pictures of 224 pixels (bicubic) on demand: 150 kB each, so that
    thousands need not be in memory.
    """

    def __init__(self, images: np.ndarray[Any, Any]) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: Any) -> Any:
        from PIL import Image

        image = Image.fromarray(self._images[index]).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        return {PREPROCESS.input: np.repeat(np.asarray(image)[:, :, None], 3, axis=2)}


class _Small(Sequence[Arrays]):
    """Pictures as uint8 [28, 28, 1]."""

    def __init__(self, images: np.ndarray[Any, Any]) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: Any) -> Any:
        return {"image": self._images[index][:, :, None]}


def _enlarged(files: Mapping[str, Path], count: int | None) -> Dataset:
    images, labels = images_of(files[FASHION_TEST[0]])[:count], labels_of(files[FASHION_TEST[1]])[:count]
    return Dataset(
        name=f"Fashion-MNIST enlarged ({len(images)} test pictures)",
        inputs=Enlarged(images),
        labels=labels.tolist(),
        metric="top1",
        class_names=_NAMES,
        preprocess=PREPROCESS,
    )


def _small(files: Mapping[str, Path], names: tuple[str, str], part: str) -> Dataset:
    images, labels = images_of(files[names[0]]), labels_of(files[names[1]])
    return Dataset(
        name=f"Fashion-MNIST ({len(images)} {part} pictures)",
        inputs=_Small(images),
        labels=labels.tolist(),
        metric="top1",
        class_names=_NAMES,
        preprocess=Preprocess(input="image", mean=(0.0,), std=(255.0,)),
    )


def images_of(path: Path) -> np.ndarray[Any, Any]:
    """Read an IDX file of images: uint8 [n, height, width]. Raises `DataError` for anything else."""
    raw = _unpacked(path)
    head = struct.unpack(">IIII", raw[:16]) if len(raw) >= 16 else (0, 0, 0, 0)
    if head[0] != _IMAGES or len(raw) != 16 + head[1] * head[2] * head[3]:
        raise DataError(f"{path} holds no images in IDX format.", remedy=_REMEDY)
    return np.frombuffer(raw, np.uint8, offset=16).reshape(head[1:])


def labels_of(path: Path) -> np.ndarray[Any, Any]:
    """Read an IDX file of labels: uint8 [n]. Raises `DataError` for anything else."""
    raw = _unpacked(path)
    head = struct.unpack(">II", raw[:8]) if len(raw) >= 8 else (0, 0)
    if head[0] != _LABELS or len(raw) != 8 + head[1]:
        raise DataError(f"{path} holds no labels in IDX format.", remedy=_REMEDY)
    return np.frombuffer(raw, np.uint8, offset=8)


def _unpacked(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise DataError(f"{path} is damaged: {error}.", remedy=_REMEDY) from error
