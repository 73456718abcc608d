"""Good requests beside the bad ones: is the server alive, and right?"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request

from tritonclient.grpc import service_pb2 as pb

from conformance.http_probes import BLOB
from conformance.probe import HttpProbe
from servers.process import Server

__all__ = ["BODY", "METHOD", "SERVICE", "TOKEN", "VALUES", "Good"]

SERVICE = "inference.GRPCInferenceService"
METHOD = f"/{SERVICE}/ModelInfer"
TOKEN = "a-token-of-the-soak"
VALUES = [1.0, 2.5, -3.0, 400.0]
BODY = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": VALUES}]}).encode()


class Good:
    """Requests to the identity model `tiny` whose answers are known."""

    def __init__(self, server: Server, token: str = "") -> None:
        self._server = server
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4]}
        self.message = pb.ModelInferRequest(
            model_name="tiny", inputs=[tensor], raw_input_contents=[BLOB]
        ).SerializeToString()

    def check(self) -> None:
        """Raise unless a good request gets the right answer."""
        request = urllib.request.Request(f"{self._server.url}/v2/models/tiny/infer", BODY, self.headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.load(answer)["outputs"][0]["data"] == VALUES

    def until_right(self, within_s: float) -> None:
        """Wait until it does; while an engine comes back, 503 is right too."""
        until = time.monotonic() + within_s
        while True:
            try:
                self.check()
                return
            except urllib.error.HTTPError as error:
                assert error.code == 503, error.code
                assert time.monotonic() < until, f"not back within {within_s:g} s"
                time.sleep(0.05)

    @staticmethod
    def http_request(probe: HttpProbe) -> bytes:
        """A probe as bytes."""
        body = probe.body or b""
        fields = {"Host": "localhost", **probe.headers, "Content-Length": str(len(body))}
        lines = [f"{probe.verb} {probe.path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        return "\r\n".join([*lines, "", ""]).encode() + body
