"""`hasten bench` opens every kind of model, each on the usual engine of its format."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import linear_model
from tests.engine.tflite import fully_connected

from hasten.errors import ModelError, RequestError, UsageError
from hasten.model.torch_export import export_module
from hasten.targets import UrlTarget, open_target, open_targets

Make = Callable[[Path], Path]


def onnx_model(folder: Path) -> Path:
    return linear_model(folder / "m.onnx")


def tflite_model(folder: Path) -> Path:
    return fully_connected(folder / "m.tflite", np.ones((4, 3), np.float32), np.zeros(3, np.float32))


def openvino_model(folder: Path) -> Path:
    import openvino

    openvino.save_model(openvino.convert_model(str(onnx_model(folder))), str(folder / "m.xml"), compress_to_fp16=False)
    return folder / "m.xml"


def torch_model(folder: Path) -> Path:
    class Double(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

    export_module(Double(), [{"x": np.ones(4, np.float32)}], folder / "m.pt2")
    return folder / "m.pt2"


@pytest.mark.parametrize("make", [onnx_model, tflite_model, openvino_model, torch_model])
def test_a_model_of_every_format_answers_samples(tmp_path: Path, make: Make) -> None:
    np.savez(tmp_path / "data.npz", x=np.ones((8, 4), np.float32))
    with open_target(str(make(tmp_path)), str(tmp_path / "data.npz")) as target:
        target.call(0)
        target.call(9)


def test_a_file_that_is_no_model_is_named_before_an_engine_sees_it(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x80\x04pickle")
    with pytest.raises(ModelError, match="Python pickle"), open_target(str(tmp_path / "m.onnx"), None):
        pass


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"), open_target(str(tmp_path / "none.onnx"), None):
        pass


class Answers(BaseHTTPRequestHandler):
    """A server that answers what the test tells it to, and may hang up after an answer without a word."""

    protocol_version = "HTTP/1.1"
    status, body, hang_up = 200, b"{}", False

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(self.status)
        self.send_header("content-length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)
        # As servers do with connections that have rested for too long: no header announces it.
        self.close_connection = self.hang_up

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(**answers: object) -> Generator[UrlTarget]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Told", (Answers,), answers))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    target = UrlTarget(f"127.0.0.1:{server.server_port}", "/v2/models/m", [(b"{}", {})])
    try:
        yield target
    finally:
        target.close()
        server.shutdown()
        server.server_close()


def test_a_connection_that_the_server_closed_meanwhile_is_no_failure() -> None:
    with serving(hang_up=True) as target:
        for index in range(3):
            target.call(index)


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (429, b'{"error": "full", "code": "overloaded"}', "overloaded"),
        (500, b'{"error": "late", "code": "deadline"}', "deadline"),
        (503, b'{"error": "no code"}', "unavailable"),
        (502, b"<html>bad gateway</html>", "http_502"),
        (429, b'{"code": "made up"}', "rate_limited"),
    ],
)
def test_a_failure_is_of_the_kind_that_the_server_says(status: int, body: bytes, code: str) -> None:
    with serving(status=status, body=body) as target, pytest.raises(RequestError) as failed:
        target.call(0)
    assert failed.value.code == code


def test_a_server_that_is_gone_is_a_failed_connection() -> None:
    with serving() as target:
        pass
    with pytest.raises(RequestError, match="does not answer") as failed:
        target.call(0)
    assert failed.value.code == "connection"


def test_samples_are_spread_over_the_data_and_shaped_for_each_side(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.arange(400, dtype=np.float32).reshape(100, 4))
    with open_targets([str(onnx_model(tmp_path)), str(openvino_model(tmp_path))], str(tmp_path / "data.npz")) as opened:
        assert (opened.samples, opened.data) == (32, "data")
        for target in opened.targets:
            target.call(31)
