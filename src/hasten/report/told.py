"""Samples whose answers changed, for people to look at: what was answered before and after, and the sample itself.

Labels, answers and samples are anybody's text: it is cleaned here, and escaped by the template. Pictures come into the
page as data, once for each place where they stand, as long as there is room. Pure; the other view models call it.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from hasten.report.words import clean
from hasten.spec.evidence import Record, Shown, Story

__all__ = ["Told", "told"]

_LONGEST, _LONGEST_SAMPLE = 160, 300
# Characters of pictures in a page, which stays below 2 MB with everything else on it.
_ROOM = 1_200_000
# A sample stands among what was tried, and perhaps once more where its variant is told of prominently.
_PLACES = 2
# Below this similarity, letters that two answers share are there by chance.
_ALIKE = 0.6
_NUMBER = re.compile(r"[-+.\de]+")
_PNG, _WIDEST = b"\x89PNG\r\n\x1a\n", 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """A story: the answer is split into pieces, and each tells whether it differs from the reference's answer.

    `picture` is an address that holds the picture itself; `text` is the sample in words. Both may be empty.
    """

    sample: int
    label: str
    reference: str
    answer: tuple[tuple[str, bool], ...]
    text: str = ""
    picture: str = ""


def told(record: Record, variant: str) -> tuple[Told, ...]:
    """Return the stories of one variant, those that changed most first, with the differing pieces marked."""
    pictures, texts = _pictures(record), {item.sample: item.text for item in record.shown}
    return tuple(
        _tell(story, texts.get(story.sample, ""), pictures.get(story.sample, ""))
        for story in record.stories
        if story.variant == variant
    )


def _tell(story: Story, text: str, picture: str) -> Told:
    label, reference, answer = (_shorten(t, _LONGEST) for t in (story.label, story.reference, story.answer))
    return Told(
        sample=story.sample,
        label=label,
        reference=reference,
        answer=_pieces(reference, answer),
        text=_shorten(text, _LONGEST_SAMPLE),
        picture=picture,
    )


def _shorten(text: str, longest: int) -> str:
    text = clean(text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _pieces(reference: str, answer: str) -> tuple[tuple[str, bool], ...]:
    """The answer cut where it differs; whole where it is a number, another word, or only lacks something."""
    matcher = SequenceMatcher(None, reference, answer, autojunk=False)
    pieces = [(answer[start:end], tag != "equal") for tag, _, _, start, end in matcher.get_opcodes() if end > start]
    if _NUMBER.fullmatch(answer) or matcher.ratio() < _ALIKE or not any(differs for _, differs in pieces):
        return ((answer, True),) if answer else ()
    return tuple(pieces)


def _pictures(record: Record) -> dict[int, str]:
    """The address of each sample's picture, in the order of the record, as long as all its places fit."""
    room, found = _ROOM, dict[int, str]()
    for item in record.shown:
        address = _address(item)
        room -= len(address) * _PLACES * _times(record.stories, item.sample)
        if address and room >= 0:
            found[item.sample] = address
    return found


def _times(stories: Sequence[Story], sample: int) -> int:
    return sum(story.sample == sample for story in stories)


def _address(item: Shown) -> str:
    """Only a small PNG becomes an address: a record may come from anywhere, and few bytes may stand for many pixels."""
    head = item.picture[:24]
    if len(head) < 24 or not head.startswith(_PNG) or max(struct.unpack(">II", head[16:])) > _WIDEST:
        return ""
    return f"data:image/png;base64,{base64.b64encode(item.picture).decode()}"
