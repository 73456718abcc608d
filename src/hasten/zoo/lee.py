"""News texts with similarities that people judged: a second task for the sentence encoder.

A sample is a document, its answer the embedding; the metric is Spearman's rank correlation between the cosine
similarities of all pairs and the judgements. Its interval resamples documents and not pairs, because the 1,225 pairs
share 50 documents and are far from independent. Source of the data: Lee, Pincombe and Welsh 2005, "An empirical
evaluation of models of text document similarity".
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hasten.data.dataset import Arrays, Dataset
from hasten.data.metrics import Metric, Rows
from hasten.errors import DataError
from hasten.zoo.sentences import OUTPUT, Texts
from hasten.zoo.wordpiece import WordPiece

__all__ = ["documents", "similarity_metric"]

# The encoder's own limit; the longest document has fewer tokens.
_LONGEST = 256


def documents(files: Mapping[str, Path]) -> Dataset:
    """Return the 50 documents, labelled by their row in the table of judgements."""
    texts = [line for line in files["lee-documents"].read_text(encoding="latin-1").splitlines() if line.strip()]
    judged = np.loadtxt(files["lee-similarities"])
    if judged.shape != (len(texts), len(texts)):
        raise DataError(
            f"{len(texts)} documents do not fit a table of {judged.shape} judgements.", remedy="Fetch minilm again."
        )
    return Dataset(
        name=f"news texts ({len(texts)} documents, {len(texts) * (len(texts) - 1) // 2} judged pairs)",
        inputs=Texts(texts, WordPiece(files["minilm-vocabulary"]), _LONGEST),
        labels=list(range(len(texts))),
        metric=similarity_metric(judged),
        decode=_embedding,
        describe=texts.__getitem__,
    )


def similarity_metric(judged: np.ndarray[Any, Any]) -> Metric:
    """Return the metric for embeddings of documents whose pairwise similarities `judged` [n, n] people gave; its
    upper triangle counts.
    """
    table = np.triu(judged, 1) + np.triu(judged, 1).T

    def aggregate(rows: Rows) -> float:
        numbers, vectors = rows[:, 0].astype(np.int64), rows[:, 1:]
        cosine = _unit(vectors) @ _unit(vectors).T
        first, second = np.triu_indices(len(rows), 1)
        # A resample holds documents twice; a document and itself are no judged pair.
        differ = numbers[first] != numbers[second]
        first, second = first[differ], second[differ]
        return _spearman(cosine[first, second], table[numbers[first], numbers[second]])

    return Metric(name="lee_spearman", row=_row, aggregate=aggregate, kind="statistic", unit="correlation")


def _row(answer: Any, label: Any) -> list[float]:
    return [float(label), *np.ravel(answer).astype(np.float64).tolist()]


def _embedding(outputs: Arrays) -> Any:
    return np.asarray(outputs[OUTPUT])


def _unit(vectors: Rows) -> Rows:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _spearman(a: Rows, b: Rows) -> float:
    from scipy.stats import rankdata

    a, b = rankdata(a), rankdata(b)
    return float(np.corrcoef(a, b)[0, 1]) if len(a) > 2 and a.std() > 0 and b.std() > 0 else float("nan")
