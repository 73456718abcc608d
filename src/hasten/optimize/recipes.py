"""Which techniques are worth trying for a model, an engine and a precision: wishes, not verdicts.

The order inside a recipe matters: operator sets are raised and constants folded first, because later techniques look
for weights and patterns; fusion comes before layout, which moves what fusion looks for; numbers come last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from hasten.engine.host import environment, has_dot_products
from hasten.model.base import Model
from hasten.model.node_work import work_graph
from hasten.model.onnx_file import OnnxModel
from hasten.optimize.wish import Want
from hasten.spec.target import Precision
from hasten.spec.variant import Step
from hasten.transform.base import transforms

__all__ = ["Recipe", "may_be_padded", "recipes_for"]

# Name of the recipe in a variant's id ("" is the model as it is), and what it wants.
Recipe = tuple[str, tuple[Want, ...]]

# The newest operator set that the engines of today all know well, with LayerNormalization (17) in it.
_OPSET = 17
_MATRIX = {"MatMul", "Gemm", "Attention", "LSTM", "GRU"}
# Quantizing what stands between these too saves conversions, and ruins some models.
_ARITHMETIC = "Conv,MatMul,Gemm,ConvTranspose"
# Histograms of so many samples settle; more take time that the search can use better.
_SAMPLES = 32
# Weight-only quantization saves memory traffic: below this many bytes the weights stay in the caches anyway.
_LARGE_WEIGHTS = 16 * 2**20


def recipes_for(model: Model, engine: str, precision: Precision) -> Iterator[Recipe]:
    """Yield the recipes to try for `model` on `engine` in `precision`, the most promising first."""
    if model.format == "onnx":
        yield from _for_onnx(model, engine, precision)
    elif precision == "int8":
        if engine == "openvino":
            yield "nncf", (_need("quantize_nncf"),)
            if _saturates():
                yield "nncf7", (_need("quantize_nncf", reduce_range=True),)
    else:
        yield "", ()


def _for_onnx(model: Model, engine: str, precision: Precision) -> Iterator[Recipe]:
    operators = model.operators()
    if precision == "int8":
        yield from _int8(model, engine, operators)
    elif precision == "int4":
        if engine == "onnxruntime" and _weighs_matrices(model, operators):
            yield "weights", (*_prepared(model), _need("quantize_weights", bits=4))
    elif precision == "f32" and engine == "onnxruntime":
        yield "graph", _graph(model, fused=True)
        if _weighs_matrices(model, operators):
            yield "weights8", (*_prepared(model), _need("quantize_weights", bits=8))
    elif precision == "f16" and engine == "onnxruntime":
        yield "cast", (*_prepared(model), _need("cast_f16"))
    else:
        yield "", ()
        if precision == "f32":
            yield "graph", _graph(model, fused=False)
        elif may_be_padded(model):
            yield "trim", _prepared(model)


def _int8(model: Model, engine: str, operators: Counter[str]) -> Iterator[Recipe]:
    dynamic = (*_prepared(model), _need("quantize_dynamic", reduce_range=_saturates()))
    is_matrices = engine == "onnxruntime" and any(name in _MATRIX for name in operators)
    if is_matrices and "Conv" not in operators:
        yield "dynamic", dynamic
    yield "static", (*_prepared(model), _static(operators=_ARITHMETIC))
    if engine == "openvino":
        # NNCF's own model of the kernels fits OpenVINO's format; what it writes as ONNX, OpenVINO computes otherwise.
        options: dict[str, str | bool] = {"result": "openvino"}
        if _is_transformer(operators):
            options["transformer"] = True
        yield "nncf", (*_prepared(model), _need("quantize_nncf", **options))
        if _saturates():
            yield "nncf7", (*_prepared(model), _need("quantize_nncf", **options, reduce_range=True))
        return
    yield "all", (*_prepared(model), _static())
    if is_matrices and "Conv" in operators and _computes_matrices(model):
        yield "dynamic", dynamic


def _computes_matrices(model: Model) -> bool:
    """Whether matrix products do more of the work than convolutions, which dynamic quantization leaves alone."""
    if not isinstance(model, OnnxModel):
        return True
    nodes = work_graph(model, {}).nodes
    products = sum(node.flops or 0 for node in nodes if node.kind in _MATRIX)
    return products >= sum(node.flops or 0 for node in nodes if node.kind.startswith("Conv"))


def _is_transformer(operators: Counter[str]) -> bool:
    """Attention without convolutions: activations with outliers, which NNCF treats in a way of its own."""
    return "Softmax" in operators and "MatMul" in operators and "Conv" not in operators


def _static(**options: str) -> Want:
    """Ranges without their tails: minimum and maximum leave too few levels for most values."""
    return _need("quantize_static", method="percentile", samples=_SAMPLES, reduce_range=_saturates(), **options)


def _graph(model: Model, *, fused: bool) -> tuple[Want, ...]:
    """Every technique that promises the same answers. Engines other than ONNX Runtime fuse better by themselves."""
    return (
        *_prepared(model),
        *((_may("fuse"),) if fused else ()),
        _may("layout"),
        _may("replace_operators"),
        _may("deduplicate"),
    )


def _prepared(model: Model) -> tuple[Want, ...]:
    raised = (_may("raise_opset", to=_OPSET),) if model.opset < _OPSET else ()
    trimmed = (_may("trim_padding"),) if may_be_padded(model) else ()
    return (*raised, _may("fold"), *trimmed, _may("flush_subnormals"))


def may_be_padded(model: Model) -> bool:
    """Whether the interface allows for padding that could be cut off; whether there is any, the samples tell."""
    technique = transforms.get("trim_padding")
    reason = technique.requires(model, technique.defaults)
    return reason is None or "raise_opset" in reason


def _weighs_matrices(model: Model, operators: Counter[str]) -> bool:
    return any(name in _MATRIX for name in operators) and model.bytes_on_disk >= _LARGE_WEIGHTS


def _saturates() -> bool:
    """Whether products of u8 and s8 overflow here: on x86 without VNNI, sums of two products are cut to 16 bits."""
    host = environment()
    return host.architecture in ("x86_64", "AMD64") and not has_dot_products(host)


def _need(transform: str, **options: str | int | float | bool) -> Want:
    return Want(step=Step(transform=transform, options=options))


def _may(transform: str, **options: str | int | float | bool) -> Want:
    return Want(step=Step(transform=transform, options=options), required=False)
