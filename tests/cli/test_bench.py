"""`hasten bench` as a user types it, on models, bundles and a real server over loopback, in any mixture."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.cli.test_verbs import FIGURE, hasten

from hasten.bundle.read import open_bundle
from hasten.serve.server import serve_bundle

QUICK = ("--duration", "1s", "--warmup", "0", "--patience", "0", "--json")


@pytest.fixture(scope="module")
def url(small_bundle: Path) -> Generator[str]:
    with serve_bundle(open_bundle(small_bundle)) as running:
        yield f"{running.url}/v2/models/linear"


@pytest.fixture
def place(make_linear: Callable[..., Path], tmp_path: Path) -> Path:
    make_linear("m.onnx")
    make_linear("wide.onnx", features=9)
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32))
    (tmp_path / "prices.toml").write_text("[prices]\nmachine_hour_usd = 0.36\n")
    return tmp_path


def bench(*words: str | Path, cwd: Path) -> dict[str, Any]:
    return json.loads(hasten("bench", *words, *QUICK, cwd=cwd).stdout)


def rounds_for(asked: int, *, repeated: int, contended: int) -> int:
    """How many rounds must count: those that were asked for, all of them quiet; or every one that was made, where the
    machine that runs this test did not give enough quiet ones.
    """
    return asked + repeated if contended else asked


@pytest.mark.parametrize("sides", [("url", "bundle"), ("url", "url"), ("bundle", "m.onnx"), ("m.onnx", "url")])
def test_any_two_targets_are_compared_on_the_same_samples(
    sides: tuple[str, str], url: str, small_bundle: Path, place: Path
) -> None:
    known = {"url": url, "bundle": str(small_bundle)}
    names = [known.get(side, side) for side in sides]
    document = bench(names[0], "--vs", names[1], "--data", "d.npz", "--rounds", "8", cwd=place)
    assert document["verdict"] in ("faster", "slower", "no_difference")
    found = document["circumstances"]
    assert document["ratio"]["n"] == found["rounds"]
    assert [document[key]["target"] for key in "ab"] == names
    assert [document[key]["failed"] for key in "ab"] == [0, 0]
    assert document["data"] == {"name": "d", "samples": 32}
    assert found["rounds"] == rounds_for(8, repeated=found["rounds_repeated"], contended=found["rounds_contended"])


def test_a_bundles_golden_samples_serve_the_url_beside_it(url: str, small_bundle: Path, place: Path) -> None:
    document = bench(url, "--vs", small_bundle, "--rounds", "6", cwd=place)
    assert document["data"]["samples"] == 3
    assert "golden samples" in document["data"]["name"]


def test_the_document_has_every_figure_with_its_interval_or_its_reason(url: str, place: Path) -> None:
    words = (url, "--data", "d.npz", "--load", "poisson:200", "--deadline-ms", "50", "--prices", "prices.toml")
    document = bench(*words, cwd=place)
    assert list(document)[:2] == ["schema", "a"]
    side = document["a"]
    figures = ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "throughput_rps", "attainment", "goodput_rps")
    for name in (*figures, "cost_per_million_usd"):
        assert set(side[name]) >= FIGURE, name
        assert (side[name]["value"] is None) == ("reason" in side[name]), name
    assert side["attainment"]["n"] == side["requests"]
    assert side["cost_per_million_usd"]["value"] == pytest.approx(100 / side["throughput_rps"]["value"])
    assert side["requests"] == side["latency_p50_ms"]["n"] + side["failed"] + side["unanswered"] + side["unsent"]
    assert {"steal_share", "cores_busy_with_others", "frequency_mhz", "waited_s"} <= set(document["circumstances"])
    assert document["load"]["kind"] == "poisson"
    assert set(document["environment"]) >= {"processor", "features", "packages"}


@pytest.mark.parametrize("load", ["gamma:50:4", "step:20,80:0.5", "trace:arrivals", "closed:3"])
def test_every_kind_of_load_can_be_put_on_a_server(url: str, place: Path, load: str) -> None:
    (place / "arrivals").write_text("\n".join(str(i / 20) for i in range(20)))
    assert bench(url, "--data", "d.npz", "--load", load, cwd=place)["a"]["failed"] == 0


def test_people_are_told_the_verdict_and_what_the_machine_was_doing(place: Path, small_bundle: Path) -> None:
    words = ("bench", "m.onnx", "--vs", small_bundle, "--data", "d.npz", "--rounds", "8", *QUICK[:-1])
    told = hasten(*words, "--deadline-ms", "1000", "--prices", "prices.toml", cwd=place).stdout
    assert "times as fast" in told
    assert "% answered in time; goodput" in told
    assert "USD per million predictions" in told
    last = re.search(r"(\d+) rounds, (\d+) repeated, (\d+) contended", told.splitlines()[-1])
    assert last is not None
    rounds, repeated, contended = (int(word) for word in last.groups())
    assert rounds == rounds_for(8, repeated=repeated, contended=contended)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["m.onnx", "--data", "d.npz", "--load", "gamma:5"], "gamma:RPS:CV"),
        (["m.onnx", "--data", "d.npz", "--load", "trace:none"], "none cannot be read"),
        (["m.onnx", "--data", "d.npz", "--vs", "m.onnx", "--load", "poisson:5"], "paired with one caller"),
        (["m.onnx", "--data", "d.npz", "--vs", "m.onnx", "--rounds", "5"], "at least 6 rounds"),
        (["m.onnx", "--data", "d.npz", "--deadline-ms", "0"], "--deadline-ms 20"),
        (["m.onnx", "--data", "d.npz", "--deadline-ms", "nan"], "--deadline-ms 20"),
        (["m.onnx", "--data", "d.npz", "--prices", "none.toml"], "none.toml cannot be read"),
        (["m.onnx", "--data", "d.npz", "--prices", "empty.toml"], "no price"),
        (["m.onnx", "--data", "d.npz", "--prices", "wrong.toml"], r"machine_hour.*Known keys"),
        (["m.onnx", "--data", "d.npz", "--seed", "-1"], "whole number from 0"),
        (["m.onnx", "--data", "d.npz", "--warmup", "soon"], "no time"),
        (["m.onnx", "--data", "d.npz", "--vs", "wide.onnx"], "does not fit the model"),
        (["http://127.0.0.1:9/v2/models/m", "--data", "d.npz"], "cannot be reached"),
        (["http:///v2/models/m", "--data", "d.npz"], "names no model"),
    ],
)
def test_bad_input_is_refused_with_the_remedy(place: Path, words: list[str], message: str) -> None:
    (place / "empty.toml").write_text("")
    (place / "wrong.toml").write_text("[prices]\nmachine_hour = 1\n")
    done = hasten("bench", *words, cwd=place, check=2)
    assert done.stdout == ""
    assert done.stderr.count("error: ") == 1
    assert re.search(message, done.stderr), done.stderr


def test_golden_samples_that_do_not_fit_the_other_side_ask_for_data(place: Path, small_bundle: Path) -> None:
    done = hasten("bench", small_bundle, "--vs", "wide.onnx", cwd=place, check=2)
    assert "--data" in done.stderr
