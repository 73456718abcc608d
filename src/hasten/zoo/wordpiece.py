"""WordPiece for lower-case English text: what the sentence encoder was trained with, for the sample data.

Forty lines of our own, because the library that has it brings a hub client with it. Source: Devlin et al. 2019, "BERT",
greedy longest match first.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

__all__ = ["WordPiece"]

_LONGEST_WORD = 100


class WordPiece:
    """Turns text into token numbers, without padding."""

    def __init__(self, vocabulary: Path) -> None:
        words = vocabulary.read_text(encoding="utf-8").splitlines()
        self._numbers = {word: number for number, word in enumerate(words)}

    def encode(self, text: str, longest: int) -> list[int]:
        """Return [CLS] tokens [SEP], cut to `longest`."""
        tokens = [piece for word in _words(text) for piece in self._pieces(word)]
        kept = tokens[: longest - 2]
        return [self._numbers["[CLS]"], *kept, self._numbers["[SEP]"]]

    def _pieces(self, word: str) -> list[int]:
        if len(word) > _LONGEST_WORD:
            return [self._numbers["[UNK]"]]
        pieces: list[int] = []
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            ends = range(len(word), start, -1)
            end = next((end for end in ends if prefix + word[start:end] in self._numbers), None)
            if end is None:
                return [self._numbers["[UNK]"]]
            pieces.append(self._numbers[prefix + word[start:end]])
            start = end
        return pieces


def _words(text: str) -> list[str]:
    """Lower case without control characters and accents; punctuation stands alone."""
    seen = "".join(c for c in text if c in "\t\n\r" or not unicodedata.category(c).startswith("C"))
    plain = unicodedata.normalize("NFD", seen.lower())
    spaced = "".join(f" {c} " if _stands_alone(c) else c for c in plain if unicodedata.category(c) != "Mn")
    return spaced.split()


def _stands_alone(character: str) -> bool:
    category = unicodedata.category(character)
    symbol = character.isascii() and character.isprintable() and not character.isalnum() and not character.isspace()
    return category.startswith("P") or symbol
