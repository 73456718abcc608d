"""Each lint rule sees what it is for, and keeps silent where there is nothing to see."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from hasten.model.lint import RULES, findings
from hasten.model.lint_base import Finding
from hasten.model.onnx_file import open_onnx
from hasten.transform.base import transforms

PAGE = Path(__file__).parent.parent.parent / "docs" / "inspect.md"
HEAVY = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
OTHER = HEAVY + 1
KERNEL = np.ones((16, 3, 3, 3), np.float32)
SCALE, ZERO = np.array(0.1, np.float32), np.array(0, np.int8)


@dataclass
class Graph:
    """A model in ONNX's own text format, its large weights, and its operator set."""

    text: str
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    opset: int = 17
    domain: str = ""

    def save(self, folder: Path) -> Path:
        imports = f'"" : {self.opset}' + (f', "{self.domain}" : 1' if self.domain else "")
        proto = parser.parse_model(f"<ir_version: 8, opset_import: [{imports}]> g {self.text}")
        proto.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in self.weights.items())
        onnx.save(proto, str(folder / "m.onnx"))
        return folder / "m.onnx"


def look(graph: Graph, folder: Path, features: tuple[str, ...] = ()) -> dict[str, Finding]:
    return {item.code: item for item in findings(open_onnx(graph.save(folder)), features)}


def simple(
    body: str, *, inputs: str = "float[N, 64] x", outputs: str = "float[N, 64] y", **weights: np.ndarray
) -> Graph:
    return Graph(f"({inputs}) => ({outputs}) {{ {body} }}", weights)


def picture(body: str, outputs: str = "float[N, C, H, W] y", **weights: np.ndarray) -> Graph:
    return simple(body, inputs="float[N, 3, 8, 8] x", outputs=outputs, **weights)


def opset(version: int, graph: Graph) -> Graph:
    graph.opset = version
    return graph


def constants(*, first: bool) -> Graph:
    """The weights in a Constant node, or in an initializer."""
    graph = simple("y = MatMul(x, W)" if not first else "y = MatMul(x, C)")
    if not first:
        graph.weights = {"W": HEAVY}
        return graph
    values = ", ".join(map(str, range(64 * 64)))
    graph.text = graph.text.replace("{ y", f"{{ C = Constant <value = float[64, 64] {{{values}}}> () y")
    return graph


def subnormal(count: int) -> np.ndarray:
    weights = HEAVY.copy()
    weights.flat[:count] = 1e-40
    weights.flat[count] = 0.0
    return weights


PLAIN = simple("y = MatMul(x, W)", W=HEAVY)
QUANTIZED = {"s": SCALE, "z": ZERO, "q": HEAVY.astype(np.int8)}
FUSED = simple(
    "a = QuantizeLinear(x, s, z) b = DequantizeLinear(a, s, z) w = DequantizeLinear(q, s, z) y = MatMul(b, w)",
    **QUANTIZED,
)
TWO_CONVS = "h = Conv(x, V) r = Relu(h) y = Conv(r, W)"

# For each code: models in which it is found, and one in which it must not be.
CASES: dict[str, tuple[Graph, Graph]] = {
    "weights-in-constants": (constants(first=True), constants(first=False)),
    "subnormal-weights": (simple("y = MatMul(x, W)", W=subnormal(3)), simple("y = MatMul(x, W)", W=subnormal(0))),
    "duplicated-initializers": (
        simple("h = MatMul(x, V) y = MatMul(h, W)", V=HEAVY, W=HEAVY),
        simple("h = MatMul(x, V) y = MatMul(h, W)", V=HEAVY, W=OTHER),
    ),
    "unused-initializers": (simple("y = MatMul(x, W)", W=HEAVY, V=OTHER), PLAIN),
    "fp16-weights": (
        simple("w = Cast <to = 1> (W) y = MatMul(x, w)", W=HEAVY.astype(np.float16)),
        PLAIN,
    ),
    "misaligned-channels": (
        picture(TWO_CONVS, V=KERNEL[:5], W=np.ones((7, 5, 3, 3), np.float32)),
        # The last layer, whose width is the number of classes, and depthwise layers are what they must be.
        picture("d = Conv <group = 3> (x, D) h = Conv(d, V) y = Conv(h, W)", D=np.ones((3, 1, 1, 1), np.float32),
                V=KERNEL, W=np.ones((7, 16, 3, 3), np.float32)),
    ),
    "old-opset": (opset(9, simple("y = Relu(x)")), opset(13, simple("y = Relu(x)"))),
    "dead-nodes": (simple("h = Relu(x) y = Sigmoid(x)"), simple("h = Relu(x) y = Sigmoid(h)")),
    "unused-outputs": (
        picture("y, i = MaxPool <kernel_shape = [2, 2]> (x)"),
        picture("y, i = MaxPool <kernel_shape = [2, 2]> (x)", outputs="float[N, C, H, W] y, int64[N, C, H, W] i"),
    ),
    "redundant-outputs": (
        simple("y = Relu(x) z = Identity(y)", outputs="float[N, 64] y, float[N, 64] z"),
        simple("y = Relu(x) z = Sigmoid(y)", outputs="float[N, 64] y, float[N, 64] z"),
    ),
    "no-op-nodes": (
        simple("a = Add(x, zero) b = Cast <to = 1> (a) y = Transpose <perm = [0, 1]> (b)",
               zero=np.zeros(64, np.float32)),
        # Adding zeros that broadcast, and multiplying by what is not 1, change the tensor.
        simple("a = Add(x, zero) y = Mul(a, two)", inputs="float[N, 1] x", zero=np.zeros(64, np.float32),
               two=np.full(64, 2, np.float32)),
    ),
    "training-leftovers": (
        simple("y = Dropout(x, r, t)", r=np.array(0.5, np.float32), t=np.array(True)),
        simple("y = Dropout(x, r, t)", r=np.array(0.5, np.float32), t=np.array(False)),
    ),
    "cancelling-transposes": (
        picture("a = Transpose <perm = [0, 2, 3, 1]> (x) b = Relu(a) y = Transpose <perm = [0, 3, 1, 2]> (b)"),
        picture("a = Transpose <perm = [0, 2, 3, 1]> (x) b = Relu(a) y = Transpose <perm = [0, 2, 3, 1]> (b)"),
    ),
    "unfused-qdq": (simple("a = QuantizeLinear(x, s, z) y = MatMul(x, W)", W=HEAVY, s=SCALE, z=ZERO), FUSED),
    "per-channel-activations": (
        simple("a = QuantizeLinear <axis = 1> (x, t, u) b = DequantizeLinear <axis = 1> (a, t, u) y = MatMul(b, W)",
               W=HEAVY, t=np.full(64, 0.1, np.float32), u=np.zeros(64, np.int8)),
        FUSED,
    ),
    "half-quantized-operators": (
        simple("a = QuantizeLinear(x, s, z) b = DequantizeLinear(a, s, z) y = MatMul(b, W)", W=HEAVY, s=SCALE, z=ZERO),
        FUSED,
    ),
    "interrupted-qdq": (
        simple("a = QuantizeLinear(x, s, z) b = DequantizeLinear(a, s, z) c = Sin(b) w = DequantizeLinear(q, s, z) "
               "y = MatMul(c, w)", **QUANTIZED),
        FUSED,
    ),
    "quantization-round-trips": (
        simple("a = QuantizeLinear(x, s, z) b = DequantizeLinear(a, s, z) c = QuantizeLinear(b, s, z) "
               "y = DequantizeLinear(c, s, z)", s=SCALE, z=ZERO),
        FUSED,
    ),
    "dynamic-convolutions": (
        picture("a, s, z = DynamicQuantizeLinear(x) y = ConvInteger(a, W, z)", outputs="int32[N, C, H, W] y",
                W=KERNEL.astype(np.uint8)),
        picture("y = Conv(x, W)", W=KERNEL),
    ),
    "quantized-transposed-convolutions": (
        picture("a = QuantizeLinear(x, s, z) b = DequantizeLinear(a, s, z) w = DequantizeLinear(q, s, z) "
                "y = ConvTranspose(b, w)", s=SCALE, z=ZERO, q=np.ones((3, 4, 2, 2), np.int8)),
        picture("y = ConvTranspose(x, W)", W=np.ones((3, 4, 2, 2), np.float32)),
    ),
    "free-axes": (simple("y = Relu(x)", inputs="float[N, T] x", outputs="float[N, T] y"), simple("y = Relu(x)")),
    "unknown-shapes": (
        simple("r = Reshape(x, t) y = MatMul(r, W)", inputs="float[N, 64] x, int64[2] t", W=HEAVY),
        PLAIN,
    ),
    "data-dependent-shapes": (simple("y = NonZero(x)", outputs="int64[2, M] y"), simple("y = Relu(x)")),
    "no-free-batch-axis": (
        simple("y = Relu(x)", inputs="float[1, 64] x", outputs="float[1, 64] y"),
        simple("y = Relu(x)"),
    ),
    "double-precision": (
        simple("y = MatMul(x, W)", inputs="double[N, 64] x", outputs="double[N, 64] y", W=HEAVY.astype(np.float64)),
        PLAIN,
    ),
    "wide-integers": (
        simple("y = Add(x, x)", inputs="int64[N, 64] x", outputs="int64[N, 64] y"),
        simple("y = Add(x, x)", inputs="int64[N, 2] x", outputs="int64[N, 2] y"),
    ),
    "text-tensors": (
        simple("y = Identity(x)", inputs="string[N] x", outputs="string[N] y"),
        simple("y = Relu(x)"),
    ),
    "bf16-tensors": (simple("a = Cast <to = 16> (x) y = Cast <to = 1> (a)"), simple("y = Relu(x)")),
    "half-precision-compute": (
        simple("a = Cast <to = 10> (x) b = MatMul(a, W) y = Cast <to = 1> (b)", W=HEAVY.astype(np.float16)),
        PLAIN,
    ),
    "cast-storm": (
        simple("a = Cast <to = 10> (x) b = Cast <to = 1> (a) c = Cast <to = 10> (b) d = Cast <to = 1> (c) "
               "y = MatMul(d, W)", W=HEAVY),
        PLAIN,
    ),
    "cubic-resize": (
        picture('y = Resize <mode = "cubic"> (x, , r)', r=np.array([1, 1, 2, 2], np.float32)),
        picture('y = Resize <mode = "linear"> (x, , r)', r=np.array([1, 1, 2, 2], np.float32)),
    ),
    "three-dimensional-convolutions": (
        simple("y = Conv(x, W)", inputs="float[N, 1, 4, 4, 4] x", outputs="float[N, C, D, H, W] y",
               W=np.ones((16, 1, 2, 2, 2), np.float32)),
        picture("y = Conv(x, W)", W=KERNEL),
    ),
    "decomposed-group-norm": (
        simple("a = Reshape(x, g) b = InstanceNormalization(a, o, n) y = Reshape(b, f)",
               g=np.array([0, 4, -1]), f=np.array([0, 64]), o=np.ones(4, np.float32), n=np.zeros(4, np.float32)),
        picture("y = InstanceNormalization(x, o, n)", o=np.ones(3, np.float32), n=np.zeros(3, np.float32)),
    ),
    "einsum-nodes": (simple('y = Einsum <equation = "ij,jk->ik"> (x, W)', W=HEAVY), PLAIN),
    "control-flow": (
        simple("y = If (c) <then_branch = t () => (float[N, 64] p) { p = Relu(x) }, "
               "else_branch = e () => (float[N, 64] q) { q = Sigmoid(x) }>", inputs="float[N, 64] x, bool c"),
        simple("y = Relu(x)"),
    ),
    "recurrent-layers": (
        simple("y, h = GRU <hidden_size = 2> (x, W, R)", inputs="float[S, N, 3] x", outputs="float[S, D, N, 2] y",
               W=np.ones((1, 6, 3), np.float32), R=np.ones((1, 6, 2), np.float32)),
        PLAIN,
    ),
    "engine-specific-operators": (
        Graph("(float[N, 64] x) => (float[N, 64] y) { y = com.microsoft.QuickGelu(x) }", domain="com.microsoft"),
        simple("y = Relu(x)"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("code", CASES)
def test_a_rule_finds_what_it_is_for(code: str, tmp_path: Path) -> None:
    found = look(CASES[code][0], tmp_path)
    assert code in found, list(found)


@pytest.mark.parametrize("code", CASES)
def test_a_rule_keeps_silent_where_there_is_nothing_to_see(code: str, tmp_path: Path) -> None:
    assert code not in look(CASES[code][1], tmp_path)


def test_openvinos_silent_bf16_is_told_on_processors_that_have_it(tmp_path: Path) -> None:
    assert "silent-bf16" in look(PLAIN, tmp_path, ("avx2", "avx512_bf16"))
    assert "silent-bf16" not in look(PLAIN, tmp_path, ("avx2",))
    assert "silent-bf16" not in look(simple("y = Relu(x)"), tmp_path, ("amx_bf16",))


def test_every_rule_has_its_two_tests_and_a_line_in_the_page() -> None:
    codes = [rule.code for rule in RULES]
    assert len(set(codes)) == len(codes)
    assert set(codes) == {*CASES, "silent-bf16"}
    assert re.findall(r"^\| `([a-z0-9-]+)` \|", PAGE.read_text(), re.MULTILINE) == codes


def test_a_rule_names_only_transforms_that_hasten_has() -> None:
    assert {rule.transform for rule in RULES if rule.transform} <= set(transforms.names())


def test_a_finding_names_its_places_and_at_most_a_few(tmp_path: Path) -> None:
    body = " ".join(f"h{i} = Relu(x)" for i in range(9)) + " y = Relu(x)"
    found = look(simple(body), tmp_path)["dead-nodes"]
    assert found.count == 9
    assert found.nodes == ("Relu → h0", "Relu → h1", "Relu → h2", "Relu → h3")
    assert found.message == "9 nodes lead to no output."


def test_warnings_come_before_notes(tmp_path: Path) -> None:
    found = look(opset(9, simple("h = Relu(x) y = MatMul(x, W)", W=subnormal(2))), tmp_path)
    assert list(found) == ["subnormal-weights", "old-opset", "dead-nodes"]


def test_subnormal_weights_in_another_file_are_found(tmp_path: Path) -> None:
    proto = onnx.load(simple("y = MatMul(x, W)", W=subnormal(5)).save(tmp_path))
    onnx.save_model(proto, str(tmp_path / "e.onnx"), save_as_external_data=True, location="w", size_threshold=0)
    [found] = [item for item in findings(open_onnx(tmp_path / "e.onnx")) if item.code == "subnormal-weights"]
    assert found.message.startswith("5 of the weights")
    assert found.nodes == ("W",)


def test_duplicates_in_another_file_are_found(tmp_path: Path) -> None:
    proto = onnx.load(simple("h = MatMul(x, V) y = MatMul(h, W)", V=HEAVY, W=HEAVY).save(tmp_path))
    onnx.save_model(proto, str(tmp_path / "e.onnx"), save_as_external_data=True, location="w", size_threshold=0)
    [found] = [item for item in findings(open_onnx(tmp_path / "e.onnx")) if item.code == "duplicated-initializers"]
    assert "0.0164 MB" in found.message
