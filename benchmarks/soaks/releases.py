"""Bundles that are replaced and bundles that are written: nothing in between is ever seen (R19, R22)."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from servers.bundle import MODEL, complete_bundle
from servers.identity import MAX_BATCH
from servers.process import Server
from soaks.good import BODY, TOKEN, VALUES, Good
from soaks.pack import packed

__all__ = ["kills", "swaps"]

CLIENTS = 8
# What the rows ask for; a form of less than a minute is a rehearsal.
SWAPS, KILLS, REHEARSED = 50, 50, 3
# Says when it begins, and when it is done.
WRITER = """\
import sys
from soaks.pack import rewritten
source, out = sys.argv[1:]
rewrite = rewritten(source, out)
print("begin", flush=True)
rewrite()
print("done", flush=True)
"""


def swaps(server: Server, seconds: float, rng: random.Random, bundle: Path) -> str:
    """R19: eight clients ask while two bundles take turns. No request fails, and each answer is that of the bundle that
    it names.
    """
    from hasten.bundle.read import open_bundle

    good, over, other = Good(server, TOKEN), threading.Event(), bundle.with_name("other")
    _write_plus_one(bundle, other)
    right = {
        open_bundle(bundle).digest: VALUES,
        open_bundle(other).digest: [value + 1 for value in VALUES],
    }

    def ask(_: int) -> dict[str, int]:
        counts = dict.fromkeys(right, 0)
        while not over.is_set():
            label, values = _asked(good, server)
            assert values == right[label], (label, values)
            counts[label] += 1
        return counts

    swapped, until = 0, time.monotonic() + seconds
    with ThreadPoolExecutor(CLIENTS) as threads:
        asked = [threads.submit(ask, number) for number in range(CLIENTS)]
        try:
            # An even number of them leaves the bundle that was there.
            while time.monotonic() < until or swapped < _fewest(SWAPS, seconds) or swapped % 2:
                _swap(bundle, other)
                _load(good, server)
                swapped += 1
        finally:
            over.set()
    counts = [one.result() for one in asked]
    by_label = {label: sum(count[label] for count in counts) for label in right}
    assert all(by_label.values()), by_label
    return f"{swapped} swaps, {sum(by_label.values())} answers, each of the bundle that it names"


def kills(server: Server, seconds: float, rng: random.Random, bundle: Path) -> str:
    """R22: the process that writes a bundle is killed at random moments. What is there then verifies or is not there,
    and the next attempt succeeds and clears up.
    """
    from hasten.bundle.read import open_bundle

    work = bundle.with_name("packs")
    work.mkdir()
    source, out = packed(bundle / MODEL, bundle.with_name("source")), work / "out.bundle"
    # The first writes are slower than those to be killed.
    takes_s = min(_write(source, out) for _ in range(5))
    found = {"absent": 0, "whole": 0}
    killed, until = 0, time.monotonic() + seconds
    while time.monotonic() < until or killed < _fewest(KILLS, seconds):
        # Over an older bundle half of the time, which is replaced then.
        if out.exists() and rng.random() < 0.5:
            out.rename(work / "old")
            shutil.rmtree(work / "old")
        _write(source, out, kill_after_s=rng.uniform(0, 1.2 * takes_s))
        killed += 1
        if out.exists():
            open_bundle(out)
        found["whole" if out.exists() else "absent"] += 1
    _write(source, out)
    open_bundle(out)
    assert [path.name for path in work.iterdir()] == [out.name], "an attempt leaves something behind"
    return f"killed {killed} times within {1e3 * takes_s:.0f} ms, {found['absent']} absent and {found['whole']} whole"


def _fewest(asked: int, seconds: float) -> int:
    return asked if seconds >= 60 else REHEARSED


def _swap(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def _write(source: Path, out: Path, kill_after_s: float | None = None) -> float:
    """Write the bundle anew in a process of its own, which may be killed; returns the seconds that it wrote."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(source), str(out)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert writer.stdout is not None
    with writer, writer.stdout as said:
        assert said.readline() == "begin\n"
        began = time.monotonic()
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            writer.kill()
        assert said.readline() == "done\n" or kill_after_s is not None
        return time.monotonic() - began


def _write_plus_one(bundle: Path, folder: Path) -> None:
    """The same bundle with a model that adds 1."""
    from hasten.bundle.read import open_bundle

    manifest = open_bundle(bundle).manifest
    model = onnx.load(bundle / MODEL)
    [tensor] = manifest.signature.inputs
    [given] = manifest.signature.outputs
    del model.graph.node[:]
    model.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "one"))
    model.graph.node.append(helper.make_node("Add", [tensor.name, "one"], [given.name]))
    folder.mkdir()
    onnx.save(model, folder / MODEL)
    sample = np.ones((1, 4), np.float32)
    complete_bundle(
        folder, manifest.name, manifest.signature, {tensor.name: sample}, {given.name: sample + 1}, MAX_BATCH
    )


def _asked(good: Good, server: Server) -> tuple[str, list[float]]:
    request = urllib.request.Request(f"{server.url}/v2/models/tiny/infer", BODY, good.headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        document = json.load(answer)
    return document["parameters"]["bundle"], document["outputs"][0]["data"]


def _load(good: Good, server: Server) -> None:
    request = urllib.request.Request(f"{server.url}/v2/repository/models/tiny/load", b"{}", good.headers)
    with urllib.request.urlopen(request, timeout=300) as answer:
        assert answer.status == 200
