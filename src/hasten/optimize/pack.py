"""From a record to a bundle: models, golden samples with each variant's outputs, evidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hasten.bundle.write import Part, write_bundle
from hasten.data.dataset import Subset
from hasten.data.feed import feed, sample_for
from hasten.optimize.trial import Loader
from hasten.spec.evidence import Evidence, Record
from hasten.spec.signature import Signature
from hasten.spec.variant import REFERENCE, Variant

__all__ = ["GOLDEN_SAMPLES", "Packer"]

GOLDEN_SAMPLES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Packer:
    """Writes bundles of one model. `build` gives the model file of a variant; golden inputs come from `data`."""

    name: str
    signature: Signature
    data: Subset
    build: Callable[[Variant], Path]
    loader: Loader

    def write(self, out: Path, record: Record, max_batch: int, *, report: str) -> None:
        """Write the bundle of `record` to `out`. Raises `StorageError` on a full disk, `EngineError` where a variant
        does not run any more.
        """
        inputs = [
            feed(self.signature, [sample_for(self.signature, self.data, at)])
            for at in range(min(GOLDEN_SAMPLES, len(self.data)))
        ]
        write_bundle(
            out,
            name=self.name,
            signature=self.signature,
            record=record,
            parts=[self._part(evidence, inputs) for evidence in _packed(record)],
            golden_inputs=inputs,
            max_batch=max_batch,
            report=report,
        )

    def _part(self, evidence: Evidence, inputs: Sequence[dict[str, np.ndarray[Any, Any]]]) -> Part:
        model = self.build(evidence.variant)
        with self.loader(model, evidence.variant.target) as arm:
            return Part(evidence=evidence, model=model, outputs=[arm.run(sample) for sample in inputs])


def _packed(record: Record) -> list[Evidence]:
    """Evidence of every variant in the bundle: the ladder, and the reference even where it is no step."""
    everything = {item.variant.id: item for item in (record.reference, *record.holdout)}
    return [everything[id_] for id_ in dict.fromkeys((*record.ladder, REFERENCE))]
