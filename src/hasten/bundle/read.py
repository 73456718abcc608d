"""Open a bundle: check every byte against the manifest before anything else looks at it.

Nothing here trusts a name or a size: links, extra files, missing files and altered bytes are refused, and each problem
names the file.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from hasten.bundle.manifest import MANIFEST, Manifest, VariantEntry, decode_manifest, encode_manifest
from hasten.errors import BundleError
from hasten.spec.evidence import Evidence, Record
from hasten.spec.variant import REFERENCE

__all__ = ["EVIDENCE", "Bundle", "Golden", "file_problems", "open_bundle", "sha256_of"]

EVIDENCE = "evidence/record.json"
GOLDEN_INPUTS = "golden/inputs.npz"
MANIFEST_LIMIT = 16 * 2**20


class Golden:
    """Golden samples: inputs, and the outputs that one variant gave for them where the bundle was made."""

    def __init__(
        self, inputs: list[dict[str, np.ndarray[Any, Any]]], outputs: list[dict[str, np.ndarray[Any, Any]]]
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs


class Bundle:
    """A bundle whose files match its manifest. Get one from `open_bundle`."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @property
    def digest(self) -> str:
        """What tells this bundle from another of its name: the first 12 hexadecimal digits of its manifest's SHA-256,
        and so of all that is in it.
        """
        return hashlib.sha256(encode_manifest(self.manifest)).hexdigest()[:12]

    def entry(self, variant: str) -> VariantEntry:
        """Return the manifest entry of `variant`. Raises `BundleError` with the known ids."""
        found = self.manifest.variants.get(variant)
        if found is None:
            raise BundleError(
                f"{self.path}: there is no variant {variant!r}.",
                remedy=f"Choose one of: {', '.join(self.manifest.variants)}.",
            )
        return found

    def model_path(self, variant: str) -> Path:
        """Return the model file of `variant`."""
        return self.path / self.entry(variant).model

    def record(self) -> Record:
        """Return the evidence: everything that was tried and measured. Raises `BundleError` for that of another
        version, which older versions know less of.
        """
        try:
            return msgspec.json.decode((self.path / EVIDENCE).read_bytes(), type=Record)
        except msgspec.ValidationError as error:
            raise BundleError(
                f"{self.path / EVIDENCE} was written by another version of hasten: {error}.",
                remedy="Open the bundle with the version that wrote it, or a newer one.",
            ) from error

    def evidence(self, variant: str) -> Evidence:
        """Return the holdout evidence of one variant. Raises `BundleError` where there is none."""
        record = self.record()
        for item in (record.reference, *record.holdout):
            if item.variant.id == variant:
                return item
        raise BundleError(f"{self.path}: the variant {variant!r} carries no evidence.", remedy="Rebuild it.")

    def golden(self, variant: str) -> Golden:
        """Return the golden samples with the outputs of `variant`."""
        return Golden(_load_samples(self.path / GOLDEN_INPUTS), _load_samples(self.path / f"golden/{variant}.npz"))

    def require_servable(self) -> None:
        """Refuse a ladder step without accepted evidence. The reference needs none: it is what was trained."""
        for id_ in self.manifest.ladder:
            if id_ != REFERENCE and self.evidence(id_).outcome != "accepted":
                raise BundleError(
                    f"{self.path}: the evidence of variant {id_!r} is not accepted; it does not serve.",
                    remedy="Rebuild the bundle with hasten optimize.",
                )


def open_bundle(path: Path | str) -> Bundle:
    """Open the bundle folder at `path` after checking every file. Raises `BundleError` naming the first problem."""
    bundle = Bundle(Path(path), _manifest(Path(path)))
    problems = file_problems(bundle.path, bundle.manifest)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise BundleError(f"{path}: {problems[0]}{more}", remedy="The bundle was altered; fetch or rebuild it.")
    return bundle


def file_problems(path: Path, manifest: Manifest) -> list[str]:
    """Compare the files below `path` with the manifest; each problem names its file."""
    problems: list[str] = []
    listed = {entry.path for entry in manifest.files}
    present = set(_walk(path))
    problems += [f"the file {name!r} is not in the manifest." for name in sorted(present - listed - {MANIFEST})]
    for entry in manifest.files:
        if entry.path not in present:
            problems.append(f"the file {entry.path!r} is missing.")
            continue
        try:
            size, digest = sha256_of(path / entry.path)
        except OSError as error:
            problems.append(f"the file {entry.path!r} cannot be read: {error.strerror}.")
            continue
        if size != entry.size or digest != entry.sha256:
            problems.append(f"the file {entry.path!r} was altered: its SHA-256 does not match the manifest.")
    return problems


def sha256_of(path: Path) -> tuple[int, str]:
    """Return size and SHA-256 of a regular file; links are not followed."""
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    with os.fdopen(fd, "rb") as stream:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(0, "not a regular file")
        digest = hashlib.file_digest(stream, "sha256")
        return stream.tell(), digest.hexdigest()


def _manifest(path: Path) -> Manifest:
    where = path / MANIFEST
    if not path.is_dir():
        what = "is a file, not a bundle folder" if path.exists() else "does not exist"
        raise BundleError(f"{path} {what}.", remedy="Give the folder that hasten optimize --out wrote.")
    try:
        if where.stat().st_size > MANIFEST_LIMIT:
            raise BundleError(f"{where} is larger than any manifest.", remedy="Fetch or rebuild the bundle.")
        return decode_manifest(where.read_bytes(), str(where))
    except FileNotFoundError as error:
        raise BundleError(
            f"{path} has no {MANIFEST}; it is not a bundle.",
            remedy="Give the folder that hasten optimize --out wrote.",
        ) from error
    except OSError as error:
        raise BundleError(f"{where} cannot be read: {error.strerror}.", remedy="Check permissions.") from error


def _walk(root: Path) -> list[str]:
    """Relative paths of everything below `root` that is not a folder. A linked folder counts as one foreign file."""
    found: list[str] = []
    for folder, folders, files in os.walk(root, followlinks=False):
        base = Path(folder)
        found += [(base / name).relative_to(root).as_posix() for name in files]
        found += [(base / name).relative_to(root).as_posix() for name in folders if (base / name).is_symlink()]
    return found


def _load_samples(path: Path) -> list[dict[str, np.ndarray[Any, Any]]]:
    """Read samples written as `<index>/<tensor>` arrays. Pickled arrays are refused by numpy itself."""
    samples: dict[int, dict[str, np.ndarray[Any, Any]]] = {}
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            for key in archive.files:
                index, _, name = key.partition("/")
                samples.setdefault(int(index), {})[name] = archive[key]
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read: {error}.", remedy="Fetch or rebuild the bundle.") from error
    return [samples[index] for index in sorted(samples)]
