"""Write a bundle so that at any moment, kill -9 included, it is either absent or complete.

Everything goes into a hidden folder beside the destination; files are flushed to disk, the manifest is written
last, and one rename makes the bundle appear. What an interrupted attempt left behind is removed by the next one.
"""

from __future__ import annotations

import datetime
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from hasten.bundle.manifest import MANIFEST, SCHEMA, FileEntry, Manifest, VariantEntry, encode_manifest
from hasten.bundle.read import EVIDENCE, GOLDEN_INPUTS, open_bundle, sha256_of
from hasten.errors import BundleError, StorageError
from hasten.model.open import open_model
from hasten.spec.evidence import Evidence, Record
from hasten.spec.signature import Signature

__all__ = ["Part", "check_destination", "write_bundle"]

Tensors = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One variant to be packed: its model file, its evidence, and its outputs for the golden inputs."""

    evidence: Evidence
    model: Path
    outputs: Sequence[Tensors]


def check_destination(out: Path, *, overwrite: bool) -> None:
    """Raise before long work if `out` cannot become a bundle."""
    if out.exists() and not overwrite:
        raise BundleError(f"{out} exists already.", remedy="Choose another --out, or replace it with --overwrite.")
    if out.exists() and not (out / MANIFEST).is_file():
        raise BundleError(f"{out} exists and is not a bundle; it is left alone.", remedy="Choose another --out.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise StorageError(
            f"{out.parent} cannot be written: {error.strerror}.", remedy="Choose another --out."
        ) from error


def write_bundle(
    out: Path,
    *,
    name: str,
    signature: Signature,
    record: Record,
    parts: Sequence[Part],
    golden_inputs: Sequence[Tensors],
    max_batch: int,
    report: str,
) -> Manifest:
    """Write the bundle folder `out`, replacing one that is there. Raises `StorageError` on a full disk."""
    with _staged(out) as folder:
        _dump(folder / EVIDENCE, msgspec.json.format(msgspec.json.encode(record), indent=1))
        _dump(folder / "report.html", report.encode())
        _save_samples(folder / GOLDEN_INPUTS, golden_inputs)
        variants = _pack_variants(folder, parts)
        manifest = Manifest(
            schema=SCHEMA,
            name=name,
            signature=signature,
            picked=record.picked,
            ladder=record.ladder,
            variants=variants,
            max_batch=max_batch,
            environment=record.environment,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            files=tuple(_hashes(folder)),
            serving={item.variant: item.serving for item in record.deployments if item.variant in variants},
        )
        _dump(folder / MANIFEST, encode_manifest(manifest))
        open_bundle(folder)
    return manifest


@contextmanager
def _staged(out: Path) -> Generator[Path]:
    """A hidden folder beside `out` that takes its place if the block ends well, and vanishes if not."""
    for left_over in out.parent.glob(f".{out.name}.partial-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
    except OSError as error:
        raise _storage(out, error) from error
    try:
        yield folder
        folder.chmod(0o755)
        _replace(folder, out)
    except OSError as error:
        raise _storage(out, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _replace(folder: Path, out: Path) -> None:
    """Put the finished folder in place. An older bundle is moved aside first: for an instant there is none."""
    if out.exists():
        aside = folder.with_name(folder.name + "-old")
        out.rename(aside)
        folder.rename(out)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        folder.rename(out)
    _flush_folder(out.parent)


def _pack_variants(folder: Path, parts: Sequence[Part]) -> dict[str, VariantEntry]:
    """Copy each distinct model once; variants that share a model share the file."""
    places: dict[Path, str] = {}
    entries: dict[str, VariantEntry] = {}
    reference = next(part for part in parts if not part.evidence.variant.recipe)
    for part in parts:
        variant, measured = part.evidence.variant, part.evidence.measurement
        if part.model not in places:
            # A model may refer to files beside it by name, so names stay and each model has a folder.
            places[part.model] = f"variants/{variant.id}/{part.model.name}"
            for file in open_model(part.model).files():
                _copy(file, folder / "variants" / variant.id / file.relative_to(part.model.parent))
        _save_samples(folder / f"golden/{variant.id}.npz", part.outputs)
        _dump(folder / f"evidence/{variant.id}.json", msgspec.json.encode(part.evidence))
        entries[variant.id] = VariantEntry(
            variant=variant,
            model=places[part.model],
            tolerance=_tolerance(part.outputs, reference.outputs),
            latency_p50_ms=measured.latency_p50_ms,
            throughput_rps=measured.throughput_rps,
            accuracy=measured.accuracy,
        )
    return entries


def _tolerance(outputs: Sequence[Tensors], reference: Sequence[Tensors]) -> dict[str, float]:
    """How far another machine's outputs may lie from the golden ones.

    A machine that computes at least as exactly as this variant lies within the variant's own error of the
    reference, so within twice that error of the golden output. Rounding of f32 sums in another order comes on
    top.
    """
    found: dict[str, float] = {}
    for mine, exact in zip(outputs, reference, strict=True):
        for name, array in mine.items():
            if array.dtype.kind == "f":
                error = float(np.abs(array - exact[name]).max(initial=0.0))
                scale = float(np.abs(exact[name]).max(initial=0.0))
                found[name] = max(found.get(name, 0.0), 2 * error + 1e-3 * scale)
            else:
                found[name] = 0.0
    return found


def _hashes(folder: Path) -> Iterator[FileEntry]:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        size, digest = sha256_of(path)
        yield FileEntry(path=path.relative_to(folder).as_posix(), size=size, sha256=digest)


def _save_samples(path: Path, samples: Sequence[Tensors]) -> None:
    """Write samples as `<index>/<tensor>` arrays. Strings become fixed-width bytes, because pickles are refused."""
    arrays = {
        f"{index}/{name}": array.astype("S") if array.dtype == object else array
        for index, sample in enumerate(samples)
        for name, array in sample.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)
        _flush(stream)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as reader, target.open("wb") as writer:
        shutil.copyfileobj(reader, writer, 2**20)
        _flush(writer)


def _dump(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        stream.write(content)
        _flush(stream)


def _flush(stream: Any) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _flush_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _storage(out: Path, error: OSError) -> StorageError:
    return StorageError(
        f"The bundle {out} could not be written: {error.strerror or error}.",
        remedy="Free some space or choose another --out; nothing half-written was left. "
        "With --resume, finished trials are used again.",
    )
