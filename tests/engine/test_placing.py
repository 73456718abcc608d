"""Outputs are written where their reader will find them, if that is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hasten.engine.base import Tensors, engines
from hasten.engine.frames import read_frame
from hasten.engine.placing import Placing
from hasten.errors import EngineRunError
from hasten.spec.target import Runtime, Target

LARGE, SMALL = 20_000, 20


class Doubling:
    """A session that doubles, and writes where it is told unless it is `unable`."""

    def __init__(self, *, unable: bool = False) -> None:
        self.ran = 0
        self.written = 0
        self.unable = unable

    def run(self, inputs: Tensors) -> dict[str, Any]:
        self.ran += 1
        return {"y": inputs["x"] * 2}

    def run_into(self, inputs: Tensors, places: Tensors) -> bool:
        self.written += 1
        places["y"][...] = -1.0 if self.unable else inputs["x"] * 2
        return not self.unable


class Room:
    """Memory for one answer at a time."""

    def __init__(self) -> None:
        self.memory = bytearray(2**20)

    def __call__(self, size: int) -> bytearray:
        assert size <= len(self.memory)
        return self.memory


def asked(placing: Placing, room: Room, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What a reader finds after the answer was sent."""
    layout = placing.run({"x": x}).layout()
    layout.write(room(layout.size))
    return np.array(read_frame(room.memory).tensors["y"])


def numbers(size: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(1, size)).astype(np.float32)


def placing(session: Any, room: Room | None) -> Placing:
    return Placing(session, room)


@pytest.mark.parametrize(("size", "ran", "written"), [(LARGE, 1, 3), (SMALL, 4, 0)])
def test_large_outputs_are_written_in_place_from_the_second_time_on_and_small_ones_copied(
    size: int, ran: int, written: int
) -> None:
    session, room = Doubling(), Room()
    one = placing(session, room)
    for seed in range(4):
        np.testing.assert_array_equal(asked(one, room, numbers(size, seed)), numbers(size, seed) * 2)
    assert (session.ran, session.written) == (ran, written)


def test_other_shapes_are_learned_beside_those_that_are_known() -> None:
    session, room = Doubling(), Room()
    one = placing(session, room)
    for size in (LARGE, 2 * LARGE, LARGE, 2 * LARGE, LARGE + 1):
        np.testing.assert_array_equal(asked(one, room, numbers(size)), numbers(size) * 2)
    assert (session.ran, session.written) == (3, 2)


def test_a_session_that_cannot_is_asked_once_and_its_answers_are_right() -> None:
    session, room = Doubling(unable=True), Room()
    one = placing(session, room)
    for seed in range(4):
        np.testing.assert_array_equal(asked(one, room, numbers(LARGE, seed)), numbers(LARGE, seed) * 2)
    assert (session.ran, session.written) == (4, 1)


def test_inputs_that_fail_say_nothing_about_shapes() -> None:
    class Picky(Doubling):
        def run(self, inputs: Tensors) -> dict[str, Any]:
            if inputs["x"][0, 0] < 0:
                raise EngineRunError("below 0")
            return super().run(inputs)

        def run_into(self, inputs: Tensors, places: Tensors) -> bool:
            return inputs["x"][0, 0] >= 0 and super().run_into(inputs, places)

    session, room = Picky(), Room()
    one, good = placing(session, room), np.abs(numbers(LARGE))
    asked(one, room, good)
    with pytest.raises(EngineRunError):
        one.run({"x": -good})
    np.testing.assert_array_equal(asked(one, room, good), good * 2)
    assert (session.ran, session.written) == (1, 1)


def test_without_room_outputs_are_as_ever() -> None:
    session = Doubling()
    one = placing(session, None)
    for seed in range(3):
        np.testing.assert_array_equal(one.run({"x": numbers(LARGE, seed)}).tensors["y"], numbers(LARGE, seed) * 2)
    assert session.written == 0


def test_however_many_shapes_come_few_are_remembered() -> None:
    session, room = Doubling(), Room()
    one = placing(session, room)
    for size in range(SMALL, SMALL + 1000):
        asked(one, room, numbers(size))
    assert len(vars(one)["_expected"]) <= 256


def test_no_room_is_an_error() -> None:
    def full(size: int) -> bytearray:
        raise MemoryError

    one = Placing(Doubling(), full)  # pyright: ignore[reportArgumentType]
    one.run({"x": numbers(LARGE)})
    with pytest.raises(MemoryError):
        one.run({"x": numbers(LARGE)})


def chosen(path: Path) -> Path:
    """A model whose output has as many rows as its input has numbers above 0."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["m"])
    zero = helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0])
    nodes = [helper.make_node("Greater", ["x", "zero"], ["some"]), helper.make_node("Compress", ["x", "some"], ["y"])]
    graph = helper.make_graph(nodes, "chosen", [x], [y], [zero])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


@pytest.mark.parametrize("knobs", [Runtime(), Runtime(io_binding=True), Runtime(flush_denormals=True)])
def test_shapes_that_depend_on_data_come_out_right(tmp_path: Path, knobs: Runtime) -> None:
    session = engines.get("onnxruntime").load(
        chosen(tmp_path / "chosen.onnx"), Target(engine="onnxruntime", threads=1, runtime=knobs)
    )
    room = Room()
    one = Placing(session, room)
    for some in (LARGE, LARGE, LARGE - 1, LARGE, 1, 0):
        x = np.where(np.arange(LARGE) < some, np.arange(1, LARGE + 1), -1).astype(np.float32)
        np.testing.assert_array_equal(asked(one, room, x), x[:some])
    session.close()


def test_what_is_wrong_with_inputs_is_told_as_ever(tmp_path: Path) -> None:
    session = engines.get("onnxruntime").load(chosen(tmp_path / "chosen.onnx"), Target(engine="onnxruntime", threads=1))
    room = Room()
    one = Placing(session, room)
    x = np.ones(LARGE, np.float32)
    for _ in range(2):
        asked(one, room, x)
    with pytest.raises(EngineRunError):
        one.run({"x": x.astype(np.float64)})
    session.close()
