"""Let OpenVINO compute in bf16, but for the operators that must stay in f32.

OpenVINO's precision hint moves a whole model to bf16, and one sensitive place (a large sum, a difference of large
numbers) can cost more accuracy than the bound allows. Its graph can carry a mark, operator by operator, that keeps
f32 under any hint. This technique writes OpenVINO's format with these marks on the sites that it is told to leave
alone; which ones is found by measurement (`hasten.optimize.mixed`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, final

from hasten.model.base import Model
from hasten.spec.target import Format
from hasten.transform.base import Options, Task, Transform, TransformFailed
from hasten.transform.openvino_graph import network_of

__all__ = ["ComputeBf16"]

# Under this key every release takes the mark; when it saves a graph, each writes its own name for it.
_MARK = "precise_0"
_SAVED = ('name="DisablePrecisionConversion"', 'name="precise"')
_REWRITTEN = {"Subtract", "Divide"}
_NOT_COMPUTED = {"Constant", "Parameter", "Result"}


@final
class ComputeBf16(Transform):
    """Mark what stays in f32. Sites are operators of OpenVINO's graph by type and number, such as "MatMul 3"."""

    name = "compute_bf16"
    promise = "approximate"
    formats: frozenset[Format] = frozenset({"onnx", "tflite", "openvino"})
    result: Format | None = "openvino"
    runs_in = "bf16"

    def requires(self, model: Model, options: Options) -> str | None:
        """A processor with bf16, and something that computes with floating-point numbers."""
        if not _has_bf16():
            return "this processor does not compute in bf16."
        return None if self.sites(model, options) else "the model computes nothing in f32."

    def sites(self, model: Model, options: Options) -> Sequence[str]:
        """The operators with an f32 result, in the order of execution."""
        return list(_sites(_fused(model)))

    def apply(self, task: Task) -> None:
        """Write the graph with marks on `task.skip`, and make sure that they are in the file."""
        import openvino as ov

        network = _fused(task.model)
        _settle_names(network, _fused(task.model))
        for site, operator in _sites(network).items():
            if site in task.skip:
                operator.get_rt_info()[_MARK] = ""
        ov.save_model(network, str(task.out), compress_to_fp16=False)
        saved = task.out.read_text()
        if task.skip and not any(words in saved for words in _SAVED):
            raise TransformFailed("this release of OpenVINO does not keep the marks; another release may.")


def _has_bf16() -> bool:
    import openvino as ov

    core: Any = ov.Core()
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _fused(model: Model) -> Any:
    """The graph after OpenVINO's own common optimizations: an operator that these make anew would lose its mark."""
    from openvino._offline_transformations import apply_fused_names_cleanup, apply_moc_transformations

    network = network_of(model)
    apply_moc_transformations(network, cf=True)
    _plain_arithmetic(network)
    apply_fused_names_cleanup(network)
    return network


def _settle_names(network: Any, again: Any) -> None:
    """Give operators whose names come from a counter, and so differ in a second reading, names by their place."""
    for place, (operator, other) in enumerate(zip(network.get_ordered_ops(), again.get_ordered_ops(), strict=True)):
        if operator.get_friendly_name() != other.get_friendly_name():
            operator.set_friendly_name(f"{operator.get_type_name()}/{place}")


def _plain_arithmetic(network: Any) -> None:
    """Write differences and quotients as compiling does: as sums and products, which then carry the marks."""
    import openvino as ov
    from openvino import opset13 as opset
    from openvino.passes import ConstantFolding

    for operator in network.get_ordered_ops():
        kind: str = operator.get_type_name()
        if kind not in _REWRITTEN or operator.output(0).get_element_type() != ov.Type.f32:
            continue
        left, right = operator.input_value(0), operator.input_value(1)
        minus_one = opset.constant(-1.0, ov.Type.f32)
        if kind == "Subtract":
            made: Any = opset.add(left, opset.multiply(right, minus_one))
        else:
            made = opset.multiply(left, opset.power(right, minus_one))
        made.set_friendly_name(operator.get_friendly_name())
        ov.utils.replace_node(operator, made)
    ConstantFolding().run_on_model(network)


def _sites(network: Any) -> dict[str, Any]:
    """Operators that compute in f32, by site: their own names may hold numbers that differ from reading to reading."""
    import openvino as ov

    seen: Counter[str] = Counter()
    sites: dict[str, Any] = {}
    for operator in network.get_ordered_ops():
        kind: str = operator.get_type_name()
        if kind in _NOT_COMPUTED or all(port.get_element_type() != ov.Type.f32 for port in operator.outputs()):
            continue
        seen[kind] += 1
        if not _is_dense(operator):
            sites[f"{kind} {seen[kind]}"] = operator
    return sites


def _is_dense(operator: Any) -> bool:
    """A matrix product with fixed weights becomes another operator when it is compiled, and follows the hint."""
    if operator.get_type_name() != "MatMul":
        return False
    return any(port.get_node().get_type_name() == "Constant" for port in operator.input_values())
