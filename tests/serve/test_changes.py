"""Models that come, go and are replaced while they are asked (R19, R20). Engines run in the server, which is quick;
that engine processes come and go without residue is tested in test_crashes.py and test_management.py.
"""

from __future__ import annotations

import http.client
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np
import onnx
import psutil
import pytest
from onnx import numpy_helper

from hasten.bundle.manifest import MANIFEST, encode_manifest
from hasten.bundle.read import Bundle, open_bundle, sha256_of
from hasten.serve.access import Access, Scope
from hasten.serve.server import Front, Options, Running, serve_bundle

ADMIN, INFER = "admin-token-of-a-test", "infer-token-of-a-test"
X = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}


@pytest.fixture
def own_bundle(bundle: Bundle, tmp_path: Path) -> Bundle:
    """A copy that a test may replace."""
    shutil.copytree(bundle.path, tmp_path / "tiny")
    return open_bundle(tmp_path / "tiny")


@pytest.fixture
def server(own_bundle: Bundle) -> Iterator[Running]:
    access = Access({Scope.ADMIN: [ADMIN], Scope.INFER: [INFER]}, off=())
    with serve_bundle(
        own_bundle, Options(isolation="none", front=Front(access=access, grpc=("127.0.0.1", 0)))
    ) as running:
        yield running


def call(server: Running, path: str, body: Any, token: str) -> tuple[int, Any]:
    client = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    try:
        client.request("POST", path, json.dumps(body), {"Authorization": f"Bearer {token}"})
        answer = client.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        client.close()


def change(server: Running, what: str) -> int:
    return call(server, f"/v2/repository/models/tiny/{what}", {}, ADMIN)[0]


def ask(server: Running) -> tuple[int, Any]:
    status, answer = call(server, "/v2/models/tiny/infer", {"inputs": [X]}, INFER)
    if status != 200:
        return status, answer["code"]
    return status, (answer["parameters"]["bundle"], *answer["outputs"][0]["data"])


def meanwhile(work: Callable[[], None], server: Running) -> set[tuple[int, Any]]:
    """What four clients are told while the work is done."""
    over, told = threading.Event(), set[tuple[int, Any]]()

    def client() -> None:
        while not over.is_set():
            told.add(ask(server))

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        work()
    finally:
        over.set()
        for thread in threads:
            thread.join()
    return told


def other_than(bundle: Bundle, folder: Path) -> Path:
    """The bundle with a bias that is 1 more."""
    shutil.copytree(bundle.path, folder)
    entry = bundle.entry(bundle.manifest.picked)
    model = onnx.load(folder / entry.model)
    [bias] = [one for one in model.graph.initializer if one.name == "b"]
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 1, "b"))
    onnx.save(model, folder / entry.model)
    golden = folder / f"golden/{bundle.manifest.picked}.npz"
    with np.load(golden) as archive:
        np.savez(golden, allow_pickle=False, **{name: archive[name] + 1 for name in archive.files})
    files = tuple(
        type(one)(path=one.path, size=size, sha256=digest)
        for one in bundle.manifest.files
        for size, digest in [sha256_of(folder / one.path)]
    )
    (folder / MANIFEST).write_bytes(encode_manifest(msgspec.structs.replace(bundle.manifest, files=files)))
    return folder


def test_r19_swaps_under_load_fail_no_request_and_every_answer_is_of_the_bundle_that_it_names(
    server: Running, own_bundle: Bundle, tmp_path: Path, expected: Any
) -> None:
    place, aside, other = own_bundle.path, tmp_path / "aside", other_than(own_bundle, tmp_path / "other")

    def swaps() -> None:
        lying = other
        for _ in range(12):
            place.rename(aside)
            lying.rename(place)
            aside.rename(lying)
            assert change(server, "load") == 200

    one = expected([[1, 2, 3, 4]]).ravel()
    labels = own_bundle.digest, open_bundle(other).digest
    told = meanwhile(swaps, server)
    assert told == {(200, (labels[0], *one.tolist())), (200, (labels[1], *(one + 1).tolist()))}


def test_r20_many_who_load_and_unload_at_once_leave_the_model_whole(
    server: Running, own_bundle: Bundle, expected: Any
) -> None:
    triton = pytest.importorskip("tritonclient.grpc", reason="an independent client judges the server")
    own, statuses = psutil.Process(), list[int]()

    def over_grpc(load: bool) -> None:
        with triton.InferenceServerClient(server.grpc) as client:
            change = client.load_model if load else client.unload_model
            change("tiny", headers={"authorization": f"Bearer {ADMIN}"})

    def stress(number: int) -> None:
        for turn in range(8):
            load = (number + turn) % 2 == 0
            if turn % 4 == 3:
                over_grpc(load)
            else:
                statuses.append(change(server, "load" if load else "unload"))

    def all_of_them() -> None:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(stress, range(8)))

    all_of_them()
    assert change(server, "load") == 200
    files = own.num_fds()
    told = meanwhile(all_of_them, server)
    assert set(statuses) == {200}
    right = (200, (own_bundle.digest, *expected([[1, 2, 3, 4]]).ravel().tolist()))
    # A model that is unloaded between a request's header and its body is unavailable rather than unknown.
    assert told <= {right, (404, "not_found"), (503, "unavailable")}
    assert change(server, "load") == 200 and ask(server) == right
    engines = [thread for thread in threading.enumerate() if thread.name == "hasten-engine"]
    assert len(engines) <= 2, "each engine that went took its thread with it"
    assert own.num_fds() <= files + 2
