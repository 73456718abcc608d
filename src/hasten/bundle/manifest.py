"""The manifest: what a bundle is made of, and the hash of every file in it.

`manifest.json` is canonical JSON (sorted keys, no spaces), so that equal bundles have equal manifests and a
signature can stand over it. Paths in it are relative, POSIX, and never leave the bundle.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from hasten.errors import BundleError
from hasten.spec.environment import Environment
from hasten.spec.measurement import Figure
from hasten.spec.serving import Serving
from hasten.spec.signature import Signature
from hasten.spec.values import Value
from hasten.spec.variant import Variant

__all__ = ["SCHEMA", "FileEntry", "Manifest", "VariantEntry", "decode_manifest", "encode_manifest"]

SCHEMA = "hasten.bundle/1"
MANIFEST = "manifest.json"
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"


class FileEntry(Value, frozen=True):
    """One file: relative POSIX path, size in bytes, SHA-256 in hexadecimal."""

    path: str
    size: int
    sha256: str


class VariantEntry(Value, frozen=True):
    """One variant of the ladder: where its model lies, what it promises, and how close golden outputs must come.

    `tolerance` is the largest absolute difference allowed between a golden output and this variant's output
    elsewhere.
    """

    variant: Variant
    model: str
    tolerance: dict[str, float]
    latency_p50_ms: Figure
    throughput_rps: Figure
    accuracy: Figure


class Manifest(Value, frozen=True):
    """The content of `manifest.json`.

    `ladder` lists variant ids from the picked one downwards: the steps that serving may take under load, each
    with accepted evidence. `reference` is always among `variants`. `max_batch` is 1 where stacking samples was
    not proven to leave answers unchanged. `serving` has the serving defaults of variants for which they were chosen.
    """

    schema: Literal["hasten.bundle/1"]
    name: str
    signature: Signature
    picked: str
    ladder: tuple[str, ...]
    variants: dict[str, VariantEntry]
    max_batch: int
    environment: Environment
    created: str
    files: tuple[FileEntry, ...]
    serving: dict[str, Serving] = {}

    def serving_of(self, variant: str) -> Serving:
        """How to serve a variant: as was chosen for it, or one instance with the variant's own threads."""
        own = Serving(threads=self.variants[variant].variant.target.threads, max_batch=self.max_batch)
        return self.serving.get(variant, own)


def encode_manifest(manifest: Manifest) -> bytes:
    """Return canonical JSON."""
    return msgspec.json.encode(manifest, order="sorted")


def decode_manifest(raw: bytes, where: str) -> Manifest:
    """Parse and check a manifest. Raises `BundleError` naming the place and what is wrong."""
    try:
        head = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        schema = msgspec.json.decode(head.get("schema", msgspec.Raw(b"null")))
        if schema != SCHEMA:
            raise BundleError(
                f"{where}: schema {schema!r} is not {SCHEMA!r}.",
                remedy="This bundle was made by another version of hasten; rebuild it with this one.",
            )
        manifest = msgspec.json.decode(raw, type=Manifest)
    except msgspec.MsgspecError as error:
        raise BundleError(
            f"{where}: {error}.", remedy="The manifest is damaged; fetch or rebuild the bundle."
        ) from error
    problem = _problem(manifest)
    if problem:
        raise BundleError(f"{where}: {problem}", remedy="Fetch or rebuild the bundle.")
    return manifest


def _problem(manifest: Manifest) -> str | None:
    """What the types alone do not say."""
    if not re.fullmatch(NAME_PATTERN, manifest.name):
        return f"the name {manifest.name!r} is not a plain name."
    paths = [entry.path for entry in manifest.files]
    for path in paths:
        if not _is_plain(path):
            return f"the path {path!r} leaves the bundle or is not a plain relative path."
    if len({path.casefold() for path in paths}) != len(paths):
        return "two files have the same path."
    for id_, entry in manifest.variants.items():
        if not re.fullmatch(NAME_PATTERN, id_) or entry.variant.id != id_:
            return f"the variant {id_!r} is misnamed."
        if entry.model not in paths:
            return f"the model of variant {id_!r} is not among the files."
    for id_ in (manifest.picked, *manifest.ladder):
        if id_ not in manifest.variants:
            return f"the variant {id_!r} of the ladder is not in the bundle."
    for id_ in manifest.serving:
        if id_ not in manifest.variants:
            return f"the variant {id_!r} with serving defaults is not in the bundle."
    if manifest.picked not in manifest.ladder:
        return "the picked variant is not on the ladder."
    return None


def _is_plain(path: str) -> bool:
    parts = path.split("/")
    return (
        bool(path)
        and not path.startswith("/")
        and "\\" not in path
        and "\0" not in path
        and all(part not in ("", ".", "..") and ":" not in part for part in parts)
    )
