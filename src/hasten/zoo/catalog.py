"""What the zoo holds, where it comes from, and under which licence. Facts only; `fetch` and the data files act on
them.
"""

from __future__ import annotations

from hasten.errors import UsageError
from hasten.spec.values import Value

__all__ = ["CATALOG", "Specimen", "specimen"]


class Specimen(Value, frozen=True):
    """One sample model: the package that carries it, the file inside, its hash, and who makes its labelled data."""

    name: str
    task: str
    package: str
    version: str
    member: str
    sha256: str
    size: int
    licence: str
    data: str
    data_note: str


CATALOG: dict[str, Specimen] = {
    item.name: item
    for item in (
        Specimen(
            name="ppocr-rec",
            task="text-line recognition",
            package="rapidocr-onnxruntime",
            version="1.4.4",
            member="rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
            sha256="48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
            size=10_857_958,
            licence="Apache-2.0",
            data="hasten.zoo.text_lines:text_lines",
            data_note="synthetic: rendered text lines with known strings, DejaVu fonts, blur and noise",
        ),
        Specimen(
            name="magika",
            task="file-type classification",
            package="magika",
            version="1.0.3",
            member="magika/models/standard_v3_3/model.onnx",
            sha256="fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
            size=3_163_737,
            licence="Apache-2.0",
            data="hasten.zoo.file_types:file_types",
            data_note="files of this machine's Python installation, labelled by trusted extensions",
        ),
    )
}


def specimen(name: str) -> Specimen:
    """Return one entry. Raises `UsageError` with the names there are."""
    if name not in CATALOG:
        raise UsageError(
            f"The zoo holds no {name!r}.", remedy=f"Choose one of: {', '.join(CATALOG)} (hasten zoo list)."
        )
    return CATALOG[name]
