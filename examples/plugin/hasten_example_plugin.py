"""A third party's engine and transform for hasten: a pattern to copy. docs/plugins.md explains it."""

# ruff: noqa: D102 (what each method is for stands in the protocols that it fulfils)

from importlib.metadata import version

from hasten.engine.base import Device, Probe, refuse_knobs
from hasten.errors import EngineLoadError, EngineRunError
from hasten.model.onnx_file import all_nodes, save_proto
from hasten.model.open import open_model
from hasten.transform.base import Transform


class ReferenceEngine:
    """ONNX's reference implementation: slow, plain numpy, and the judge of what an operator means."""

    name, formats, honours = "onnx-reference", frozenset({"onnx"}), frozenset()

    def probe(self):
        cpu = Device(name="CPU", hardware="CPU", detail="numpy", precisions=("f32",))
        return Probe(engine=self.name, version=version("onnx"), devices=(cpu,))

    def load(self, model, target):
        from onnx.reference import ReferenceEvaluator

        refuse_knobs(self, target)
        try:
            return ReferenceSession(open_model(model).signature, ReferenceEvaluator(str(model)))
        except Exception as error:
            raise EngineLoadError(f"{self.name} refused {model.name}: {error}") from error


class ReferenceSession:
    """A loaded model."""

    def __init__(self, signature, evaluator):
        self.signature, self.precision, self._evaluator = signature, "f32", evaluator

    def run(self, inputs):
        try:
            values = self._evaluator.run(None, dict(inputs))
        except Exception as error:
            raise EngineRunError(f"onnx-reference failed: {error}") from error
        return {spec.name: value for spec, value in zip(self.signature.outputs, values, strict=True)}

    def close(self):
        self._evaluator = None


class StripTraces(Transform):
    """Drop the notes that exporters leave at nodes: source lines and paths, which nobody who runs the model needs."""

    name, promise = "strip_traces", "exact"

    def requires(self, model, options):
        notes = any(node.doc_string or node.metadata_props for node in all_nodes(model.proto.graph))
        return "weights in other files." if model.files()[1:] else None if notes else "no node carries a note."

    def apply(self, task):
        proto = type(task.model.proto).FromString(task.model.proto.SerializeToString())
        for node in all_nodes(proto.graph):
            node.ClearField("doc_string")
            node.ClearField("metadata_props")
        save_proto(proto, task.out)
