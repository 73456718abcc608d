"""The models of the zoo and their data, on a part of the samples; make zoo-base measures all of them."""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hasten.data.dataset import Dataset
from hasten.data.feed import check_fits, feed, unbatch
from hasten.engine.base import engines, reference_engine
from hasten.errors import DataError, UsageError
from hasten.model.open import open_model
from hasten.spec.target import Target
from hasten.zoo.catalog import BUILDS, CATALOG, PARTS
from hasten.zoo.fashion import Enlarged, images_of, labels_of
from hasten.zoo.file_types import file_types
from hasten.zoo.lee import similarity_metric
from hasten.zoo.open import zoo_data, zoo_model
from hasten.zoo.probe import fit_classes
from hasten.zoo.text_lines import text_lines
from hasten.zoo.wordpiece import WordPiece

DOCS = Path(__file__).parent.parent.parent / "docs" / "zoo.md"
# How many samples, and what they must reach: the base of all samples less what chance may take on so few.
LEAST = {
    "ppocr-rec": (50, 0.78),
    "magika": (200, 0.88),
    "face-detector": (200, 0.9895),
    "efficientnet-lite0": (60, 0.75),
    "minilm": (150, 0.80),
    "minilm/lee": (50, 0.498),
}


def opened(path: Path) -> Any:
    """A session on the usual engine of the file's format; one thread, since tests run side by side."""
    engine = reference_engine(open_model(path).format)
    return engines.get(engine).load(path, Target(engine=engine, threads=1))


@functools.cache
def data_of(name: str) -> Dataset:
    """The data, made once; of the two that take long to make, a smaller edition."""
    if name == "ppocr-rec":
        return text_lines({"ppocr-rec": zoo_model("ppocr-rec")}, count=LEAST[name][0])
    return file_types({}, per_type=12) if name == "magika" else zoo_data(name)


@pytest.mark.zoo
@pytest.mark.parametrize("name", LEAST)
def test_a_trained_model_reaches_what_it_is_known_for(name: str, zoo_file: Callable[[str], Path]) -> None:
    session, data = opened(zoo_file(name.partition("/")[0])), data_of(name)
    count, least = LEAST[name]
    rows = []
    for index in np.linspace(0, len(data) - 1, min(count, len(data))).astype(int):
        sample = data.inputs(index)
        check_fits(session.signature, sample, name)
        answer = data.decode(unbatch(session.signature, sample, session.run(feed(session.signature, [sample]))))
        rows.append(data.metric.row(answer, data.label(index)))
    session.close()
    assert data.metric.aggregate(np.array(rows, dtype=np.float64)) >= least


@pytest.mark.zoo
def test_built_models_leave_the_batch_open_and_minilm_its_length_too(zoo_file: Callable[[str], Path]) -> None:
    assert open_model(zoo_file("efficientnet-lite0")).signature.leading_axis_is_free
    signature = open_model(zoo_file("minilm")).signature
    assert signature.leading_axis_is_free
    assert all(isinstance(spec.shape[1], str) for spec in signature.inputs)
    assert signature.outputs[0].shape[-1] == 384


@pytest.mark.zoo
def test_padding_that_the_mask_marks_does_not_change_an_embedding(zoo_file: Callable[[str], Path]) -> None:
    session = opened(zoo_file("minilm"))
    sample = dict(data_of("minilm").inputs(3))
    alone = session.run({name: array[None] for name, array in sample.items()})["sentence_embedding"][0]
    size = len(sample["input_ids"])
    padded = {name: np.pad(array, (0, 9))[None] for name, array in sample.items()}
    other = {"input_ids": np.full((1, size + 9), 2204), "attention_mask": np.ones((1, size + 9), np.int64)}
    both = {name: np.concatenate([padded[name], other[name]]) for name in padded}
    together = session.run(both)["sentence_embedding"]
    session.close()
    assert np.linalg.norm(alone) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(together[0], alone, atol=1e-5)
    assert together[1] @ alone < 0.9, "another text is another embedding"


@pytest.mark.zoo
def test_sentences_keep_their_own_lengths_and_none_trained_the_probe(zoo_file: Callable[[str], Path]) -> None:
    zoo_file("minilm")
    data = data_of("minilm")
    lengths = {len(data.inputs(index)["input_ids"]) for index in range(len(data))}
    assert len(lengths) > 30
    assert max(lengths) <= 128
    assert 1900 < len(data) < 2000
    assert sum(data.labels or ()) / len(data) == pytest.approx(0.5, abs=0.05)


@pytest.mark.zoo
def test_lower_case_english_is_cut_into_the_pieces_that_bert_knows(zoo_file: Callable[[str], Path]) -> None:
    from hasten.zoo.fetch import kept

    zoo_file("minilm")
    vocabulary = kept("minilm-vocabulary")
    assert vocabulary is not None
    tokenizer = WordPiece(vocabulary)
    words = {number: word for word, number in tokenizer._numbers.items()}

    def pieces(text: str, longest: int = 128) -> list[str]:
        return [words[number] for number in tokenizer.encode(text, longest)]

    assert pieces("Unaffable Caf\u00e9!") == ["[CLS]", "una", "##ffa", "##ble", "cafe", "!", "[SEP]"]
    assert pieces("It's 3.5") == ["[CLS]", "it", "'", "s", "3", ".", "5", "[SEP]"]
    assert pieces("is\x85was \x96 a") == ["[CLS]", "is", "##was", "a", "[SEP]"]
    assert pieces("\u2603" + "x" * 101) == ["[CLS]", "[UNK]", "[SEP]"]
    assert pieces("one two three four", longest=4) == ["[CLS]", "one", "two", "[SEP]"]


def test_similarities_that_people_gave_are_matched_perfectly_by_their_own_ranks() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(12, 5))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    metric = similarity_metric(unit @ unit.T)
    rows = np.array([metric.row(vector, index) for index, vector in enumerate(vectors)])
    assert metric.aggregate(rows) == pytest.approx(1.0)
    # In a resample a document may stand twice; the pair of it with itself says nothing.
    assert metric.aggregate(rows[[0, 0, 1, 2, 3, 3, 4]]) == pytest.approx(1.0)
    assert metric.aggregate(np.column_stack([rows[::-1, 0], rows[:, 1:]])) < 0.9
    assert np.isnan(metric.aggregate(rows[[0, 0, 0]]))


def test_a_probe_parts_what_can_be_parted_and_is_the_same_each_time() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    features = rng.normal(size=(300, 6)) * 50 + 1000
    features[:, :3] += 400 * np.eye(3)[labels]
    matrix, bias = fit_classes(features, labels, 3, decay=1e-3)
    assert ((features @ matrix + bias).argmax(1) == labels).mean() > 0.99
    again, _ = fit_classes(features, labels, 3, decay=1e-3)
    assert np.array_equal(matrix, again)


def test_pictures_are_enlarged_on_demand_to_grey_colour_pixels() -> None:
    images = np.zeros((2, 28, 28), np.uint8)
    images[1, 14:] = 200
    image: Any = Enlarged(images)[1]["image"]
    assert image.shape == (224, 224, 3)
    assert image.dtype == np.uint8
    assert image[0, 0].tolist() == [0, 0, 0]
    assert image[-1, -1].tolist() == [200, 200, 200]


@pytest.mark.parametrize("content", [b"", b"\x00" * 20, b"\x00\x00\x08\x03\x00\x00\x00\x09" + b"\x00" * 30])
def test_a_file_that_is_no_idx_is_refused(tmp_path: Path, content: bytes) -> None:
    import gzip

    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(content))
    for read in (images_of, labels_of):
        with pytest.raises(DataError, match="IDX"):
            read(path)
    path.write_bytes(b"no gzip")
    with pytest.raises(DataError, match="damaged"):
        images_of(path)


def test_data_without_a_model_and_unknown_views_say_what_there_is() -> None:
    with pytest.raises(UsageError, match="--data zoo:fashion-mnist"):
        zoo_model("zoo:fashion-mnist")
    with pytest.raises(UsageError, match="minilm, minilm/lee"):
        zoo_data("minilm/lea")
    with pytest.raises(UsageError, match="face-detector"):
        zoo_data("nothing")


@pytest.mark.parametrize("name", CATALOG)
def test_the_catalog_names_only_what_there_is(name: str) -> None:
    entry = CATALOG[name]
    items = {need for view in entry.views.values() for need in view.needs} | ({entry.model} - {""})
    assert items <= set(PARTS) | set(BUILDS)
    makers = [view.maker for view in entry.views.values()] + [BUILDS[item].maker for item in items if item in BUILDS]
    for maker in makers:
        module, _, function = maker.partition(":")
        assert callable(getattr(importlib.import_module(module), function))
    assert "" in entry.views


def test_every_part_is_pinned_and_has_a_licence() -> None:
    for part in PARTS.values():
        assert re.fullmatch("[0-9a-f]{64}", part.sha256), part.name
        assert part.size > 0
        assert part.licence
        assert part.package.version


@pytest.mark.parametrize("name", CATALOG)
def test_the_page_on_the_zoo_names_every_specimen_and_view(name: str) -> None:
    page = DOCS.read_text()
    assert f"| {name} |" in page
    for view in CATALOG[name].views:
        assert not view or f"{name}/{view}" in page


def test_the_bases_that_the_catalog_states_stand_on_the_page_and_within_a_point_of_what_was_known() -> None:
    page = DOCS.read_text()
    for entry in CATALOG.values():
        for name, view in entry.views.items():
            base = view.base
            if base is None:
                assert not entry.model
                continue
            row = f"| {entry.name}{f'/{name}' * bool(name)} | {base.n:,} | {base.metric} | {base.value:.4f} |"
            assert row in page
            assert base.low <= base.value <= base.high
            assert base.wanted is None or abs(base.value - base.wanted) < (
                0.025 if base.metric == "exact_match" else 0.01
            )
