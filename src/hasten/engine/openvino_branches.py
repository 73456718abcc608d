"""Graphs of fixed shape as branches of one graph, which hold their weights in common.

The CPU plugin lays weights out for its kernels, and keeps what comes of it by where they come from, within one compiled
graph. Graphs that are compiled apart hold a layout each: memory grows with the number of lengths, and when lengths
change from sentence to sentence, the caches never hold the weights that are needed next. So the lengths are branches
(`If`) of one graph, whose constants are the same memory.

Not for all: quantized models lose their answers in branches (NNCF's int8 of a sentence encoder: relative error 1.06 in
place of 0.07, OpenVINO 2026.4), and counters do not see into branches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["branching", "may_branch", "turn_weights"]

# What quantized models are made of, and what has branches itself.
_NARROW = {"i8", "u8", "i4", "u4", "i2", "u2", "u1", "nf4", "f8e4m3", "f8e5m2", "f4e2m1", "f8e8m0"}
_APART = {"FakeQuantize", "FakeConvert", "If", "Loop", "TensorIterator"}


def may_branch(network: Any) -> bool:
    """Whether the network answers in a branch as it does alone."""
    return not any(
        node.get_type_name() in _APART or any(port.get_element_type().to_string() in _NARROW for port in node.outputs())
        for node in network.get_ordered_ops()
    )


def turn_weights(network: Any) -> None:
    """Turn weights of matrix products to [outputs, inputs] in place, as kernels take them: else each branch turns them,
    and holds what comes of it for itself. Before the network is copied.
    """
    import openvino as ov
    from openvino import opset13 as opset

    for weights in network.get_ordered_ops():
        if weights.get_type_name() != "Constant" or len(weights.shape) != 2:
            continue
        takers = [port.get_node() for port in weights.output(0).get_target_inputs() if port.get_index() == 1]
        products = [node for node in takers if _takes_as_stored(node)]
        if not products:
            continue
        # Once for all products that take them.
        turned = opset.constant(np.ascontiguousarray(weights.data.T))
        for node in products:
            product: Any = opset.matmul(node.input_value(0), turned, node.get_attributes()["transpose_a"], True)
            product.set_friendly_name(node.get_friendly_name())
            ov.utils.replace_node(node, product)


def _takes_as_stored(node: Any) -> bool:
    return node.get_type_name() == "MatMul" and not node.get_attributes()["transpose_b"]


def branching(copies: Sequence[Any], lengths: Sequence[int]) -> Any:
    """Return one network with the inputs and outputs of `copies`, which runs the one whose length its inputs have.

    Each copy takes inputs of shape [1, its length] and answers in the same shapes; `lengths` ascend. The copies become
    parts of the network.
    """
    for copy, length in zip(copies, lengths, strict=True):
        _open(copy, length)
    return _choice(list(copies), list(lengths))


def _open(copy: Any, length: int) -> None:
    """Let a copy take its inputs as of open length, as whoever holds it as a branch hands them on."""
    from openvino import opset13 as opset

    for node in copy.get_ordered_ops():
        # The plugin knows some of what it keeps by name alone, and that may be of another length.
        node.set_friendly_name(f"{node.get_friendly_name()}#{length}")
    for own in list(copy.get_parameters()):
        given = opset.parameter([1, -1], own.get_element_type())
        fixed: Any = opset.reshape(given, opset.constant(np.array([1, length], np.int64)), False)
        for user in own.output(0).get_target_inputs():
            user.replace_source_output(fixed.output(0))
        copy.replace_parameter(copy.get_parameter_index(own), given)
    copy.validate_nodes_and_infer_types()


def _choice(copies: list[Any], lengths: list[int]) -> Any:
    """Halve the copies until one is left."""
    import openvino as ov
    from openvino import opset13 as opset

    if len(copies) == 1:
        return copies[0]
    half = len(copies) // 2
    shorter = _choice(copies[:half], lengths[:half])
    longer = _choice(copies[half:], lengths[half:])
    given: list[Any] = [opset.parameter([1, -1], own.get_element_type()) for own in shorter.get_parameters()]
    size = opset.gather(opset.shape_of(given[0]), opset.constant(1), opset.constant(0))
    fits: Any = opset.less_equal(size, opset.constant(np.int64(lengths[half - 1])))
    choice: Any = opset.if_op(fits.output(0))
    choice.set_then_body(shorter)
    choice.set_else_body(longer)
    for outer, one, other in zip(given, shorter.get_parameters(), longer.get_parameters(), strict=True):
        choice.set_input(outer.output(0), one, other)
    pairs = list(zip(shorter.get_results(), longer.get_results(), strict=True))
    outputs = [opset.result(choice.set_output(one, other)) for one, other in pairs]
    model: Any = ov.Model
    return model(outputs, given, "lengths")
