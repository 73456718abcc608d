"""Review sentences for the sentence encoder, with a probe that reads good or bad off an embedding.

The probe is a linear classifier, trained on a third of the sentences with the embeddings of the trained model, and
never changed; the other two thirds are what the dataset gives out. Sentences keep their own lengths: padding all to 128
tokens, as the encoder's tokenizer file would, makes every candidate look faster than it is. Source of the data:
Kotzias et al. 2015, "From group to individual labels using deep features".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hasten.data.dataset import Arrays, Dataset
from hasten.engine.base import engines
from hasten.spec.progress import Listener, Progress
from hasten.spec.target import Target
from hasten.zoo.probe import fit_classes
from hasten.zoo.wordpiece import WordPiece

__all__ = ["OUTPUT", "Texts", "build_probe", "sentences"]

OUTPUT = "sentence_embedding"
_SOURCES = ("sentences-amazon", "sentences-imdb", "sentences-yelp")
# Where the tokenizer file of the encoder cuts too.
_LONGEST = 128
# Weight of the squared norm. Four times as much would be a point better; this one gives the figure known before.
_DECAY = 0.05
# Every third sentence trains the probe.
_STEP = 3


def sentences(files: Mapping[str, Path]) -> Dataset:
    """Return the sentences that the probe was not trained on, in the order of the files, with 1 for a good review."""
    with np.load(files["minilm-probe"], allow_pickle=False) as kept:
        matrix, bias = kept["matrix"], kept["bias"]
    texts, labels = _given_out(*_rows(files))

    def decode(outputs: Arrays) -> int:
        return int((np.asarray(outputs[OUTPUT], np.float32) @ matrix + bias).argmax())

    return Dataset(
        name=f"review sentences ({len(texts)}, at their own lengths)",
        inputs=Texts(texts, WordPiece(files["minilm-vocabulary"]), _LONGEST),
        labels=labels,
        metric="top1",
        decode=decode,
        class_names=("bad", "good"),
        describe=texts.__getitem__,
    )


def build_probe(files: Mapping[str, Path], out: Path, listener: Listener) -> None:
    """Train the probe and write it: `matrix` f32 [384, 2] and `bias` f32 [2]."""
    texts, labels = _rows(files)
    texts, labels = texts[::_STEP], labels[::_STEP]
    samples = Texts(texts, WordPiece(files["minilm-vocabulary"]), _LONGEST)
    session = engines.get("onnxruntime").load(files["minilm"], Target(engine="onnxruntime"))
    rows: list[Any] = []
    for index in range(len(samples)):
        rows.append(session.run({name: array[None] for name, array in samples[index].items()})[OUTPUT][0])
        listener(Progress(stage="embedding sentences for the probe", done=index, total=len(samples)))
    session.close()
    matrix, bias = fit_classes(np.stack(rows), np.array(labels), 2, decay=_DECAY)
    with out.open("wb") as stream:
        np.savez(stream, matrix=matrix, bias=bias)


class Texts(Sequence[Arrays]):
    """Texts as token numbers, each at its own length and cut to `longest`."""

    def __init__(self, texts: Sequence[str], tokenizer: WordPiece, longest: int) -> None:
        self._tokens = [np.array(tokenizer.encode(text, longest), np.int64) for text in texts]

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, index: Any) -> Any:
        ids = self._tokens[index]
        return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def _rows(files: Mapping[str, Path]) -> tuple[list[str], list[int]]:
    """All sentences and their classes; each file has one row without them."""
    rows = [row for name in _SOURCES for row in json.loads(files[name].read_text(encoding="utf-8"))]
    kept = [row for row in rows if row.get("text") and row.get("class") is not None]
    return [str(row["text"]) for row in kept], [int(row["class"]) for row in kept]


def _given_out(texts: list[str], labels: list[int]) -> tuple[list[str], list[int]]:
    """The sentences that did not train the probe; a copy of one that did is left out too."""
    seen = {text.strip().lower() for text in texts[::_STEP]}
    kept = [(text, label) for text, label in zip(texts, labels, strict=True) if text.strip().lower() not in seen]
    return [text for text, _ in kept], [label for _, label in kept]
