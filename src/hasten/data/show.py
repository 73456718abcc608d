"""Samples as a person can look at them: in words where the dataset has some, as a small picture where it is one.

Whoever reports calls this at the end of long work, so nothing that a dataset does here ends it.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from hasten.data.dataset import Dataset
from hasten.spec.evidence import Shown

__all__ = ["picture", "show"]

# About what a thumbnail of 160 pixels a side holds; a line of text may be longer and lower than that.
_AREA = 160 * 160
_LONGEST, _SHORTEST = 320, 8
# A table of numbers without a channel axis is taken for a picture from this size on.
_PLANE = 16
_CHANNELS = (1, 3, 4)
# Photographs larger than this are told in fewer colours: a thumbnail needs no more.
_HEAVY, _COLOURS = 16_000, 96
_WORDS, _TEXTS = 400, 8

Array = np.ndarray[Any, Any]


def show(dataset: Dataset, index: int) -> Shown | None:
    """Return the sample at `index` as words or as a PNG of at most 160 x 160 pixels; None where it is neither."""
    try:
        text = _words(dataset, index)
        found = (picture(np.asarray(array)) for array in dataset.raw(index).values())
        image = next((png for png in found if png), b"")
    except Exception as error:
        # `describe` and lazily made samples are the user's own code.
        return Shown(sample=index, text=f"cannot be shown: {type(error).__name__}: {error}"[:_WORDS])
    return Shown(sample=index, text=text, picture=image) if text or image else None


def picture(array: Array) -> bytes:
    """Return an array that looks like a picture as PNG; empty for anything else.

    Pictures are uint8 or float, [height, width] or with a channel axis of 1, 3 or 4 at either end; axes of length 1
    before that are dropped. Floats are stretched from their smallest value to their largest: how they were scaled is
    not known. A fourth channel is left out.
    """
    from PIL import Image

    pixels = _pixels(array)
    if pixels is None:
        return b""
    image = Image.fromarray(_bytes(pixels))
    height, width = pixels.shape[:2]
    factor = min(1.0, (_AREA / (height * width)) ** 0.5, _LONGEST / max(height, width))
    if factor < 1.0:
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    png = _png(image)
    return png if len(png) <= _HEAVY else _png(image.quantize(_COLOURS))


def _words(dataset: Dataset, index: int) -> str:
    if dataset.describe is not None:
        return str(dataset.describe(index))[:_WORDS]
    said = [array for array in map(np.asarray, dataset.raw(index).values()) if array.dtype.kind in "SUO"]
    texts = [text for array in said for text in array.ravel()[:_TEXTS].tolist()]
    return " · ".join(text.decode(errors="replace") if isinstance(text, bytes) else str(text) for text in texts)[
        :_WORDS
    ]


def _pixels(array: Array) -> Array | None:
    """The array as [height, width] or [height, width, 3]; None where it is no picture."""
    while array.ndim > 3 and array.shape[0] == 1:
        array = array[0]
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        return None
    if array.ndim == 2:
        return array if min(array.shape) >= _PLANE else None
    if array.ndim != 3:
        return None
    last = array if array.shape[-1] in _CHANNELS else array.transpose(1, 2, 0)
    if last.shape[-1] not in _CHANNELS or min(last.shape[:2]) < _SHORTEST:
        return None
    grey = last.shape[-1] == 1 or bool((last[:, :, :1] == last[:, :, 1:3]).all())
    return last[:, :, 0] if grey else last[:, :, :3]


def _bytes(pixels: Array) -> Array:
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    finite = np.nan_to_num(pixels.astype(np.float64), posinf=0.0, neginf=0.0)
    low, reach = float(finite.min()), float(np.ptp(finite))
    return np.rint((finite - low) * (255.0 / reach if reach else 0.0)).astype(np.uint8)


def _png(image: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()
