"""Opening what users name: each mistake has a message that names the file and the remedy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hasten.data.open import open_data, open_metric
from hasten.errors import ConfigError, DataError, UsageError

X = np.arange(12, dtype=np.float32).reshape(6, 2)


def test_an_npz_gives_inputs_and_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=X, labels=np.arange(6))
    data = open_data(str(tmp_path / "d.npz"))
    assert len(data) == 6
    assert data.metric.name == "top1"
    np.testing.assert_array_equal(data.inputs(2)["x"], X[2])


def test_without_labels_the_metric_is_agreement(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=X)
    assert open_data(str(tmp_path / "d.npz")).metric.name == "agreement"


def test_a_folder_joins_its_files_in_order(tmp_path: Path) -> None:
    np.savez(tmp_path / "b.npz", x=X + 100)
    np.savez(tmp_path / "a.npz", x=X)
    (tmp_path / "dataset.toml").write_text('name = "mine"')
    data = open_data(str(tmp_path))
    assert data.name == "mine"
    np.testing.assert_array_equal(data.inputs(6)["x"], X[0] + 100)


def test_a_folder_says_what_its_classes_are_called(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X, labels=np.arange(len(X)) % 2)
    (tmp_path / "dataset.toml").write_text('class_names = ["cat", "dog"]')
    data = open_data(str(tmp_path))
    assert [data.class_name(data.label(index)) for index in (0, 1)] == ["cat", "dog"]


def test_a_function_returns_a_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mydata_a.py").write_text(
        "import numpy as np\nfrom hasten.data import Dataset\n"
        "def make():\n    return Dataset(inputs={'x': np.zeros((4, 2))})\n"
    )
    monkeypatch.chdir(tmp_path)
    assert len(open_data("mydata_a:make")) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"", "cannot be read"),
        (b"PK\x03\x04 truncated", "cannot be read"),
        (b"not a zip", "cannot be read"),
    ],
)
def test_a_bad_npz_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "bad.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=rf"bad\.npz.*{message}|bad\.npz cannot be read"):
        open_data(str(path))


def test_a_pickled_array_is_refused_and_never_loaded(tmp_path: Path) -> None:
    class Canary:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    np.savez(tmp_path / "evil.npz", x=np.array([Canary()], dtype=object))
    with pytest.raises(DataError, match="without object arrays"):
        open_data(str(tmp_path / "evil.npz"))
    assert not (tmp_path / "ran").exists()


def test_an_empty_folder_says_how_to_fill_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no \.npz.*numpy\.savez"):
        open_data(str(tmp_path))


def test_an_unknown_key_in_dataset_toml_is_an_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X)
    (tmp_path / "dataset.toml").write_text('metrik = "top1"')
    with pytest.raises(ConfigError, match="metrik"):
        open_data(str(tmp_path))


def test_files_that_differ_in_their_arrays_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X)
    np.savez(tmp_path / "b.npz", y=X)
    with pytest.raises(DataError, match="same arrays"):
        open_data(str(tmp_path))


def test_a_function_that_fails_is_the_users_error_and_not_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mydata_b.py").write_text("def make():\n    return 1 / 0\ndef other():\n    return 3\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="ZeroDivisionError"):
        open_data("mydata_b:make")
    with pytest.raises(DataError, match="returned int"):
        open_data("mydata_b:other")
    with pytest.raises(UsageError, match="cannot be loaded"):
        open_data("mydata_b:nothing")


def test_an_unknown_metric_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="top1, exact_match"):
        open_metric("accuracy")
