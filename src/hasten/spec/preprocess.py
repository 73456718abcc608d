"""How raw pixels become what a vision model takes: a value, so that data, graph and server share one definition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hasten.spec.values import Value

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Preprocess"]


class Preprocess(Value, frozen=True):
    """From uint8 pixels [height, width, channels] to the f32 input called `input`.

    Each channel becomes (pixel - mean) / std, in the units of pixels (0 to 255); `channels_first` then moves channels
    to the front, [channels, height, width].
    """

    input: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels_first: bool = True

    def __post_init__(self) -> None:
        assert len(self.mean) == len(self.std), "one mean and one deviation for each channel"

    def options(self) -> dict[str, str | bool]:
        """The options of the transform `fold_preprocess` that does the same inside the graph."""
        return {
            "input": self.input,
            "mean": ",".join(repr(value) for value in self.mean),
            "std": ",".join(repr(value) for value in self.std),
            "channels_first": self.channels_first,
        }

    def apply(self, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the f32 input for one image."""
        import numpy as np

        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        values = (pixels.astype(np.float32) - mean) / std
        return np.ascontiguousarray(values.transpose(2, 0, 1)) if self.channels_first else values

    def undo(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the nearest pixels to an f32 input."""
        import numpy as np

        last = values.transpose(1, 2, 0) if self.channels_first else values
        pixels = last * np.array(self.std, np.float32) + np.array(self.mean, np.float32)
        return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
