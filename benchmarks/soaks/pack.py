"""A bundle with evidence, written by the product from a run with made-up arms, and written again from itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

__all__ = ["packed", "rewritten"]


def packed(model: Path, folder: Path) -> Path:
    """Pack a model that gives f32 [batch, 4] back; returns the bundle. Its figures are made up."""
    from hasten.data import Dataset
    from hasten.engine.base import Device, Probe
    from hasten.engine.onnxruntime import OnnxRuntime
    from hasten.optimize.run import Job, run
    from hasten.spec.slo import Goal, Slo
    from hasten.spec.target import Target
    from hasten.testing import FakeArm, FakeLoader

    x = np.random.default_rng(0).normal(size=(400, 4)).astype(np.float32)
    real = OnnxRuntime().load(model, Target(engine="onnxruntime"))
    table = {("onnxruntime", "f32", 0): lambda: FakeArm(real.signature, real.run, ms=10.0)}
    table |= {
        ("openvino", "f32", threads): lambda: FakeArm(real.signature, real.run, ms=5.0) for threads in range(1, 129)
    }
    cpu = Device(name="CPU", hardware="CPU", detail="imaginary", precisions=("f32",))
    folder.mkdir()
    outcome = run(
        Job(
            model=model,
            data=Dataset(inputs={"x": x}),
            goal=Goal(slo=Slo(accuracy_drop_max=0.05)),
            out=folder / "source.bundle",
            name="tiny",
            render=lambda record: "<p>report</p>",
            loader=FakeLoader(table),
            probe=lambda: [Probe(engine="openvino", version="1", devices=(cpu,))],
            cores_given=lambda: 999.0,
        )
    )
    assert outcome.bundle is not None, outcome.record.summary
    return outcome.bundle


def rewritten(source: str, out: str) -> Callable[[], object]:
    """Return what writes the bundle once more, all that it needs being read."""
    from hasten.bundle.read import open_bundle
    from hasten.bundle.write import Part, write_bundle

    bundle = open_bundle(source)
    manifest, record = bundle.manifest, bundle.record()
    parts = [
        Part(evidence=bundle.evidence(one), model=bundle.model_path(one), outputs=bundle.golden(one).outputs)
        for one in manifest.variants
    ]
    golden = bundle.golden(manifest.picked).inputs
    return lambda: write_bundle(
        Path(out),
        name=manifest.name,
        signature=manifest.signature,
        record=record,
        parts=parts,
        golden_inputs=golden,
        max_batch=manifest.max_batch,
        report="<p>report</p>",
    )
