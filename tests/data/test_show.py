"""Samples as people can look at them: pictures where they are pictures, words where there are words, and small."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hasten.data import Dataset
from hasten.data.show import picture, show

RNG = np.random.default_rng(0)


def opened(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png))


def test_pixels_with_channels_at_either_end_become_the_same_picture() -> None:
    pixels = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    first, last = opened(picture(pixels.transpose(2, 0, 1))), opened(picture(pixels))
    assert first.size == (30, 20)
    assert np.array_equal(np.asarray(first), pixels)
    assert np.array_equal(np.asarray(last), pixels)


def test_a_grey_picture_in_three_channels_takes_the_bytes_of_one() -> None:
    pixels = RNG.integers(0, 256, (20, 30, 1), dtype=np.uint8)
    assert picture(np.repeat(pixels, 3, axis=2)) == picture(pixels)


def test_scaled_floats_are_stretched_back_over_all_pixels() -> None:
    pixels = RNG.integers(0, 256, (1, 28, 28), dtype=np.uint8)
    pixels[0, 0, :2] = 0, 255
    scaled = (pixels.astype(np.float32) / 255 - 0.5) / 0.25
    assert np.array_equal(np.asarray(opened(picture(scaled))), pixels[0])


def test_a_large_photograph_becomes_a_small_one_of_the_same_shape() -> None:
    png = picture(RNG.integers(0, 256, (3, 600, 1200), dtype=np.uint8))
    width, height = opened(png).size
    assert width == pytest.approx(2 * height, abs=1)
    assert width * height <= 160 * 160 * 1.02
    assert len(png) < 30_000


def test_a_line_of_text_stays_tall_enough_to_be_read() -> None:
    width, height = opened(picture(np.zeros((3, 48, 320), np.float32))).size
    assert (width, height) == (320, 48)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_spoil_no_picture(broken: float) -> None:
    values = np.zeros((16, 16), np.float32)
    values[3, 3] = broken
    assert opened(picture(values)).size == (16, 16)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((20, 20), np.int64),
        np.zeros(2048, np.uint8),
        np.zeros((4, 4), np.float32),
        np.zeros((20, 30, 7), np.float32),
        np.zeros((2, 3, 20, 20), np.float32),
        np.zeros((), np.float32),
    ],
    ids=["tokens", "bytes", "few numbers", "no channels", "several", "one number"],
)
def test_what_is_no_picture_is_not_shown_as_one(array: Any) -> None:
    assert picture(array) == b""


def test_a_sentence_is_shown_where_the_data_says_what_stood_behind_the_tokens() -> None:
    data = Dataset(inputs={"ids": np.zeros((2, 8), np.int64)}, describe=["good", "bad"].__getitem__)
    shown = show(data, 1)
    assert shown is not None
    assert (shown.sample, shown.text, shown.picture) == (1, "bad", b"")


def test_texts_that_the_model_takes_are_shown_as_they_are() -> None:
    shown = show(Dataset(inputs={"s": np.array([b"caf\xc3\xa9", b"tea"], dtype=object)}), 0)
    assert shown is not None
    assert shown.text == "café"


def test_numbers_that_mean_nothing_to_people_are_not_shown() -> None:
    assert show(Dataset(inputs={"x": np.zeros((2, 4), np.float32)}), 0) is None


def test_raw_pixels_are_shown_and_not_what_preprocessing_made_of_them() -> None:
    from hasten.spec.preprocess import Preprocess

    pixels = RNG.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    preprocess = Preprocess(input="x", mean=(9.0,) * 3, std=(2.0,) * 3)
    shown = show(Dataset(inputs={"x": pixels}, preprocess=preprocess), 1)
    assert shown is not None
    assert np.array_equal(np.asarray(opened(shown.picture)), pixels[1])


def test_a_description_that_fails_ends_nothing() -> None:
    def describe(index: int) -> str:
        raise KeyError(index)

    shown = show(Dataset(inputs={"x": np.zeros((2, 4), np.float32)}, describe=describe), 0)
    assert shown is not None
    assert "cannot be shown: KeyError" in shown.text
