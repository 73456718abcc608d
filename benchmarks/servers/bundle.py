"""Bundles for judges: of a reference alone, which needs no evidence, on ONNX Runtime with one thread."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from hasten.spec.signature import Signature
    from hasten.spec.target import Target

__all__ = ["MODEL", "complete_bundle", "target"]

MODEL = "m.onnx"
Arrays = Mapping[str, np.ndarray[Any, Any]]


def target() -> Target:
    """What such a bundle runs on."""
    from hasten.spec.target import Target

    return Target(engine="onnxruntime", threads=1, pin=False)


def complete_bundle(
    folder: Path, name: str, signature: Signature, inputs: Arrays, outputs: Arrays, max_batch: int
) -> Path:
    """Make a bundle of the folder that holds the model, with one golden sample; returns it."""
    from hasten.bundle.manifest import MANIFEST, SCHEMA, FileEntry, Manifest, VariantEntry, encode_manifest
    from hasten.bundle.read import sha256_of
    from hasten.engine.host import environment
    from hasten.spec.measurement import NOT_MEASURED
    from hasten.spec.variant import REFERENCE, Variant

    golden = f"golden/{REFERENCE}.npz"
    (folder / "golden").mkdir()
    np.savez(folder / "golden/inputs.npz", **{f"0/{key}": value for key, value in inputs.items()})  # type: ignore[arg-type]
    np.savez(folder / golden, **{f"0/{key}": value for key, value in outputs.items()})  # type: ignore[arg-type]
    entry = VariantEntry(
        variant=Variant(id=REFERENCE, target=target()),
        model=MODEL,
        tolerance=dict.fromkeys(outputs, 1e-3),
        latency_p50_ms=NOT_MEASURED,
        throughput_rps=NOT_MEASURED,
        accuracy=NOT_MEASURED,
    )
    hashes = {path: sha256_of(folder / path) for path in (MODEL, "golden/inputs.npz", golden)}
    manifest = Manifest(
        schema=SCHEMA,
        name=name,
        signature=signature,
        picked=REFERENCE,
        ladder=(REFERENCE,),
        variants={REFERENCE: entry},
        max_batch=max_batch,
        environment=environment(),
        created="2026-01-01T00:00:00+00:00",
        files=tuple(FileEntry(path=path, size=size, sha256=digest) for path, (size, digest) in hashes.items()),
    )
    (folder / MANIFEST).write_bytes(encode_manifest(manifest))
    return folder
