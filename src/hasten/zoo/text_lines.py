"""Labelled text lines for the text recogniser: rendered, so that the truth is known. Synthetic, and said to be.

Words, amounts, dates and codes in four DejaVu faces, slightly turned, blurred and noisy, so that a good
recogniser reads about nine of ten exactly. The same seed gives the same lines.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hasten.data.dataset import Arrays, Dataset
from hasten.model.open import open_model

__all__ = ["COUNT", "HEIGHT", "WIDTH", "ctc_decoder", "text_lines"]

COUNT = 2400
HEIGHT, WIDTH = 48, 320
_FACES = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf")
_WORDS = [
    "invoice", "total", "amount", "due", "date", "order", "number", "street", "avenue", "price", "cash", "card",
    "receipt", "market", "coffee", "paper", "north", "south", "engine", "model", "sample", "health", "clinic",
    "report", "patient", "doctor", "music", "voice", "robot", "camera", "filter", "beauty", "color", "travel",
    "ticket", "gate", "flight", "train", "hotel", "window", "garden", "bridge", "copper", "silver", "marble",
    "anchor", "harbor", "lantern", "orchard", "pepper", "saffron",
]  # fmt: skip

Image = np.ndarray[Any, np.dtype[np.uint8]]


def text_lines(files: Mapping[str, Path], *, count: int = COUNT, seed: int = 2024) -> Dataset:
    """Return `count` rendered lines with their strings. The model `ppocr-rec` brings the alphabet in its metadata."""
    rng = np.random.default_rng(seed)
    fonts = _fonts()
    texts = [_text(rng) for _ in range(count)]
    images = [_render(text, fonts[int(rng.integers(len(fonts)))], rng) for text in texts]
    alphabet = open_model(files["ppocr-rec"]).metadata()["character"].splitlines()
    return Dataset(
        name=f"text lines (synthetic, {count} lines, seed {seed})",
        inputs=_Lines(images),
        labels=texts,
        metric=["exact_match", "char_error_rate"],
        decode=ctc_decoder(alphabet),
    )


def ctc_decoder(alphabet: Sequence[str]) -> Callable[[Arrays], str]:
    """Return a greedy CTC decoder (Graves et al. 2006): best class at each step, repeats merged, blanks dropped.

    Class 0 is the blank, then the alphabet, then the space. Spaces around the line are no part of the answer.
    """
    symbols = ["", *alphabet, " "]

    def decode(outputs: Arrays) -> str:
        best = next(iter(outputs.values())).argmax(-1)
        kept = best[np.concatenate(([True], best[1:] != best[:-1]))]
        return "".join(symbols[index] for index in kept).strip()

    return decode


class _Lines(Sequence[Arrays]):
    """Images kept as bytes, made into the recogniser's normalized input on demand."""

    def __init__(self, images: list[Image]) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: Any) -> Any:
        image = self._images[index]
        plane = np.zeros((HEIGHT, WIDTH), dtype=np.float32)
        plane[:, : image.shape[1]] = image.astype(np.float32) / 127.5 - 1.0
        return {"x": np.repeat(plane[None], 3, axis=0)}


def _fonts() -> list[Any]:
    import matplotlib
    from PIL import ImageFont

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return [ImageFont.truetype(str(folder / face), 32) for face in _FACES]


def _text(rng: np.random.Generator) -> str:
    def word() -> str:
        return _WORDS[int(rng.integers(len(_WORDS)))]

    def code() -> str:
        letters = list(string.ascii_uppercase + string.digits)
        return "".join(rng.choice(letters, int(rng.integers(6, 13))))

    kind = int(rng.integers(4))
    if kind == 0:
        return " ".join(word() for _ in range(int(rng.integers(2, 4))))
    if kind == 1:
        return f"{word().title()} {int(rng.integers(1, 9999))}.{int(rng.integers(100)):02d}"
    if kind == 2:
        return code()
    day, month, year = int(rng.integers(1, 29)), int(rng.integers(1, 13)), int(rng.integers(1990, 2030))
    return f"{day:02d}/{month:02d}/{year} {word()}"


def _render(text: str, font: Any, rng: np.random.Generator) -> Image:
    """Draw one line as grey bytes, 48 pixels high and at most 320 wide."""
    from PIL import Image as images
    from PIL import ImageDraw, ImageFilter

    left, top, right, bottom = font.getbbox(text)
    paper = int(rng.integers(200, 256))
    canvas = images.new("L", (int(right - left) + 16, HEIGHT), paper)
    place = (8 - left, HEIGHT // 2 - (top + bottom) // 2)
    ImageDraw.Draw(canvas).text(place, text, fill=int(rng.integers(0, 80)), font=font)
    canvas = canvas.rotate(float(rng.normal(0, 0.7)), fillcolor=paper, resample=images.Resampling.BILINEAR).filter(
        ImageFilter.GaussianBlur(float(rng.uniform(0, 1.2)))
    )
    if canvas.width > WIDTH:
        canvas = canvas.resize((WIDTH, HEIGHT), images.Resampling.BILINEAR)
    grey = np.asarray(canvas, dtype=np.float32)
    noisy = grey + rng.normal(0, rng.uniform(0, 25), grey.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)
