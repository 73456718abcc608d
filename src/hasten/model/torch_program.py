"""PyTorch programs: files that `torch.export.save` wrote, opened without torch and without running anything in them."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from pathlib import Path

from hasten.errors import ModelError
from hasten.formats.torch_archive import Archive, open_archive, signature_of
from hasten.spec.target import Format

__all__ = ["TorchProgram", "open_program"]


class TorchProgram:
    """An opened PyTorch program. Outputs carry the names of the graph's values."""

    format: Format = "torch"

    def __init__(self, archive: Archive, digest: str) -> None:
        self.path = archive.path
        self.archive = archive
        self.digest = digest
        self.signature = signature_of(archive)

    @property
    def opset(self) -> int:
        """Version of the operator set that the archive states for the standard operators."""
        return int(self.archive.program.get("opset_version", {}).get("aten", 0))

    @property
    def bytes_on_disk(self) -> int:
        """Size of the file."""
        return self.path.stat().st_size

    def files(self) -> list[Path]:
        """The one file."""
        return [self.path]

    def operators(self) -> Counter[str]:
        """How often each operator occurs, without its overload."""
        targets = (node["target"].split(".") for node in self.archive.graph["nodes"])
        return Counter(parts[3] if len(parts) > 3 else parts[-1] for parts in targets)

    def parameters(self) -> int:
        """Number of weights, buffers included."""
        values = self.archive.graph["tensor_values"]
        specs = self.archive.program["graph_module"]["signature"]["input_specs"]
        names = [(spec.get("parameter") or spec.get("buffer") or {}).get("arg", {}).get("name") for spec in specs]
        return sum(math.prod(d.get("as_int", 1) for d in values[name]["sizes"]) for name in names if name in values)

    def metadata(self) -> dict[str, str]:
        """The version of PyTorch that exported it."""
        return {"torch_version": str(self.archive.program.get("torch_version", "unknown"))}


def open_program(path: Path | str) -> TorchProgram:
    """Open and check a program. Raises `ModelError` for anything that loading it could execute."""
    path = Path(path)
    archive = open_archive(path)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    try:
        return TorchProgram(archive, digest)
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path} is not a program that hasten can load: its graph lacks {error}.", remedy="Export the model again."
        ) from error
