"""A bundle is absent or complete, and what was altered does not open."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from hasten.bundle.check import problems
from hasten.bundle.manifest import MANIFEST, decode_manifest, encode_manifest
from hasten.bundle.read import open_bundle
from hasten.errors import BundleError, StorageError


@pytest.fixture
def bundle(tmp_path: Path, small_bundle: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(small_bundle, tmp_path / "copy.bundle"))


def test_a_bundle_opens_and_verifies_where_it_was_made(small_bundle: Path) -> None:
    assert problems(open_bundle(small_bundle)) == []


def test_equal_manifests_are_equal_bytes(small_bundle: Path) -> None:
    manifest = open_bundle(small_bundle).manifest
    assert decode_manifest(encode_manifest(manifest), "here") == manifest
    assert encode_manifest(manifest) == (small_bundle / MANIFEST).read_bytes()


def every_file(bundle: Path) -> list[str]:
    return [entry["path"] for entry in json.loads((bundle / MANIFEST).read_bytes())["files"]]


def test_one_changed_bit_in_any_file_is_found_and_the_file_named(bundle: Path) -> None:
    for name in every_file(bundle):
        path = bundle / name
        original = path.read_bytes()
        path.write_bytes(bytes([original[0] ^ 1]) + original[1:])
        with pytest.raises(BundleError, match=name):
            open_bundle(bundle)
        path.write_bytes(original)
    open_bundle(bundle)


def test_a_missing_file_an_extra_file_and_a_link_are_refused(bundle: Path) -> None:
    (bundle / "extra.txt").write_text("hello")
    with pytest.raises(BundleError, match=r"extra\.txt' is not in the manifest"):
        open_bundle(bundle)
    (bundle / "extra.txt").unlink()
    report = bundle / "report.html"
    content = report.read_bytes()
    report.unlink()
    with pytest.raises(BundleError, match=r"report\.html' is missing"):
        open_bundle(bundle)
    (bundle.parent / "elsewhere.html").write_bytes(content)
    report.symlink_to(bundle.parent / "elsewhere.html")
    with pytest.raises(BundleError, match=r"report\.html' cannot be read"):
        open_bundle(bundle)


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "a/../../b", "a\\b", "", "C:/x", "a//b"])
def test_a_manifest_that_points_outside_is_refused(bundle: Path, path: str) -> None:
    raw = json.loads((bundle / MANIFEST).read_bytes())
    raw["files"][0]["path"] = path
    (bundle / MANIFEST).write_text(json.dumps(raw))
    with pytest.raises(BundleError, match="leaves the bundle"):
        open_bundle(bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "hasten.bundle/99"}, "made by another version"),
        ({"alien": 1}, "unknown field"),
        ({"picked": "ghost"}, "'ghost' of the ladder is not in the bundle"),
        ({"name": "a/b"}, "not a plain name"),
    ],
)
def test_a_manifest_of_another_kind_says_so(bundle: Path, change: dict[str, object], message: str) -> None:
    raw = {**json.loads((bundle / MANIFEST).read_bytes()), **change}
    (bundle / MANIFEST).write_text(json.dumps(raw))
    with pytest.raises(BundleError, match=message):
        open_bundle(bundle)


def test_what_is_no_bundle_is_named_with_a_remedy(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "none", "does not exist"), (tmp_path, "has no manifest.json")):
        with pytest.raises(BundleError, match=words):
            open_bundle(path)


def test_a_ladder_step_without_accepted_evidence_does_not_serve(bundle: Path) -> None:
    opened = open_bundle(bundle)
    record = opened.record()
    if not record.holdout:
        pytest.fail("the tiny bundle was to hold a picked variant")
    unproven = tuple(msgspec.structs.replace(item, outcome="unproven") for item in record.holdout)
    raw = msgspec.json.encode(msgspec.structs.replace(record, holdout=unproven))
    (bundle / "evidence/record.json").write_bytes(raw)
    with pytest.raises(BundleError, match="not accepted; it does not serve"):
        opened.require_servable()


def test_evidence_of_a_newer_version_says_so_and_is_no_bug(bundle: Path) -> None:
    opened = open_bundle(bundle)
    path = bundle / "evidence" / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "telepathy": []}))
    with pytest.raises(BundleError, match=r"another version of hasten.*telepathy"):
        opened.record()


def test_golden_outputs_that_do_not_come_back_name_the_variant(bundle: Path) -> None:
    opened = open_bundle(bundle)
    for id_ in opened.manifest.variants:
        path = bundle / f"golden/{id_}.npz"
        with np.load(path) as archive:
            arrays = {key: archive[key] + 1 for key in archive.files}
        np.savez(path, **arrays)  # type: ignore[arg-type]
    found = problems(opened)
    assert any("'reference': golden sample 0, output 'y': it differs by" in problem for problem in found)


KILLED = """
import sys, os, signal
from pathlib import Path
import hasten.bundle.write as write
steps = 0
for name in ("_dump", "_copy", "_save_samples", "_replace", "_hashes", "_flush_folder"):
    original = getattr(write, name)
    def counted(*a, _original=original, **k):
        global steps
        steps += 1
        if steps == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return _original(*a, **k)
    setattr(write, name, counted)
from hasten.bundle.read import open_bundle
from hasten.bundle.write import Part, write_bundle
source = open_bundle(sys.argv[1])
record, manifest = source.record(), source.manifest
parts = [
    Part(evidence=source.evidence(i), model=source.model_path(i), outputs=source.golden(i).outputs)
    for i in manifest.variants
]
write_bundle(
    Path(sys.argv[3]), name=manifest.name, signature=manifest.signature, record=record, parts=parts,
    golden_inputs=source.golden(manifest.picked).inputs, max_batch=manifest.max_batch, report="<p>",
)
"""


def test_after_kill_9_at_any_step_the_bundle_is_absent_or_complete(tmp_path: Path, small_bundle: Path) -> None:
    out, finished, absent = tmp_path / "out.bundle", False, 0
    for step in range(1, 60):
        done = subprocess.run([sys.executable, "-c", KILLED, str(small_bundle), str(step), str(out)], check=False)
        if done.returncode == 0:
            finished = True
            break
        assert done.returncode == -signal.SIGKILL
        if out.exists():
            open_bundle(out)
            break
        absent += 1
    assert absent >= 5
    if not finished:
        open_bundle(out)
        return
    open_bundle(out)
    assert [path.name for path in tmp_path.iterdir()] == ["out.bundle"], "left-overs are removed by the next attempt"


def test_a_full_disk_leaves_nothing_half_written(
    tmp_path: Path, small_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hasten.bundle import write

    source = open_bundle(small_bundle)

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(write, "_copy", full)
    parts = [
        write.Part(evidence=source.evidence(i), model=source.model_path(i), outputs=source.golden(i).outputs)
        for i in source.manifest.variants
    ]
    with pytest.raises(StorageError, match=r"No space left on device.*Free some space"):
        write.write_bundle(
            tmp_path / "out.bundle",
            name="m",
            signature=source.manifest.signature,
            record=source.record(),
            parts=parts,
            golden_inputs=source.golden("reference").inputs,
            max_batch=1,
            report="",
        )
    assert list(tmp_path.iterdir()) == []
