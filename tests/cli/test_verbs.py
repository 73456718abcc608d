"""The verbs on real files, as a user would type them: answers, exit statuses, messages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FIGURE = {"value", "low", "high", "n"}


def hasten(*words: str | Path, cwd: Path, check: int | None = 0, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hasten.cli", *map(str, words)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=280, **options)
    if check is not None:
        assert done.returncode == check, done.stdout + done.stderr
    return done


@pytest.mark.slow
def test_a_users_own_model_and_data_from_first_look_to_served_answer(
    make_linear: Callable[..., Path], tmp_path: Path
) -> None:
    make_linear("mine.onnx", features=64, classes=8)
    (tmp_path / "mydata.py").write_text(
        "import numpy as np\nfrom hasten.data import Dataset\n"
        "def rows():\n"
        "    x = np.random.default_rng(0).normal(size=(500, 64)).astype(np.float32)\n"
        "    return Dataset(inputs={'x': x}, name='rows')\n"
    )
    (tmp_path / "slo.toml").write_text("[slo]\naccuracy_drop_max = 0.02\n")
    command = ["optimize", "mine.onnx", "--data", "mydata:rows", "--slo", "slo.toml", "--out", "b", "--json"]
    document = json.loads(hasten(*command, "--budget", "15s", cwd=tmp_path).stdout)
    assert next(iter(document)) == "schema"
    assert document["verdict"] in ("accepted", "keep_reference")
    assert document["picked"]["metric"] == "agreement"
    assert set(document["picked"]["speedup"]) >= FIGURE
    assert set(document["environment"]) >= {"processor", "features", "packages"}
    verified = json.loads(hasten("verify", "b", "--json", cwd=tmp_path).stdout)
    assert verified == {"schema": "hasten.verify/1", "ok": True, "problems": []}
    assert Path(hasten("report", "b", "--out", "r.html", cwd=tmp_path).stdout.strip()).name == "r.html"
    bench = json.loads(
        hasten(
            "bench", "b", "--vs", "mine.onnx", "--data", "mydata:rows", "--duration", "1s", "--json", cwd=tmp_path
        ).stdout
    )
    assert bench["verdict"] in ("faster", "slower", "no_difference")
    place = json.loads((tmp_path / "b" / "manifest.json").read_text())["variants"]["reference"]["model"]
    assert place.endswith("/mine.onnx")
    with (tmp_path / "b" / place).open("r+b") as stream:
        stream.seek(20)
        stream.write(b"\x00")
    broken = hasten("verify", "b", "--json", cwd=tmp_path, check=1)
    assert place in json.loads(broken.stdout)["problems"][0]
    assert "altered" in hasten("serve", "b", cwd=tmp_path, check=2).stderr


def test_serve_answers_is_ready_when_it_says_so_and_ends_with_status_0(small_bundle: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hasten.cli", "serve", str(small_bundle), "--http", "127.0.0.1:0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stderr is not None
        url = process.stderr.readline().split("ready: ")[1].strip()
        body = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]})
        with urllib.request.urlopen(url + "/infer", body.encode()) as answer:
            assert json.loads(answer.read())["outputs"][0]["shape"] == [1, 3]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


@pytest.mark.zoo
@pytest.mark.slow
def test_magika_is_optimized_on_files_of_this_machine(zoo_file: Callable[[str], Path], tmp_path: Path) -> None:
    zoo_file("magika")
    (tmp_path / "slo.toml").write_text("[slo]\naccuracy_drop_max = 0.02\n")
    done = hasten(
        "optimize", "zoo:magika", "--slo", "slo.toml", "--out", "m", "--budget", "20s", "--json", cwd=tmp_path
    )
    document = json.loads(done.stdout)
    assert document["verdict"] in ("accepted", "keep_reference")
    assert document["reference"]["accuracy"]["value"] > 0.85
    assert len(document["tuning"]) + len(document["rejected"]) >= 8


@pytest.mark.zoo
def test_inspect_sees_the_weights_that_stand_in_constant_nodes(zoo_file: Callable[[str], Path], tmp_path: Path) -> None:
    document = json.loads(hasten("inspect", zoo_file("ppocr-rec"), "--json", cwd=tmp_path).stdout)
    assert document["parameters"] == pytest.approx(2.69e6, rel=0.01)
    assert "weights-in-constants" in [item["code"] for item in document["findings"]]
    assert document["signature"]["outputs"][0]["shape"][-1] == 6625


def test_devices_and_zoo_list_give_json(tmp_path: Path) -> None:
    devices = json.loads(hasten("devices", "--json", cwd=tmp_path).stdout)["devices"]
    assert {"CPU", "GPU", "TPU", "NPU", "FPGA", "ASIC", "edge"} <= {row["class"] for row in devices}
    names = [m["name"] for m in json.loads(hasten("zoo", "list", "--json", cwd=tmp_path).stdout)["models"]]
    assert {"ppocr-rec", "magika", "face-detector", "efficientnet-lite0", "minilm", "fashion-mnist"} <= set(names)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["inspect", "none.onnx"], "none.onnx does not exist"),
        (["inspect", "zoo:nothing"], "Choose one of: ppocr-rec, magika"),
        (["optimize", "m.onnx", "--out", "b"], "No data was given"),
        (["optimize", "m.onnx", "--data", "none.npz", "--out", "b"], "none.npz cannot be read|does not exist"),
        (["optimize", "m.onnx", "--data", "d.npz", "--slo", "bad.toml", "--out", "b"], r"latency_p99.*Known keys"),
        (["optimize", "m.onnx", "--data", "d.npz", "--slo", "broken.toml", "--out", "b"], "broken.toml"),
        (["optimize", "m.onnx", "--data", "few.npz", "--out", "b"], "at least 30"),
        (["optimize", "m.onnx", "--data", "empty.npz", "--out", "b"], "no samples"),
        (["optimize", "m.onnx", "--data", "wide.npz", "--out", "b"], "has 9 at axis 1"),
        (["optimize", "m.onnx", "--data", "d.npz", "--out", "b", "--budget", "soon"], "no time"),
        (["optimize", "cut.onnx", "--data", "d.npz", "--out", "b"], "cut.onnx"),
        (["optimize", "m.onnx", "--data", "d.npz", "--out", "d.npz/b"], "cannot be written|Not a directory"),
        (["verify", "m.onnx"], "is a file, not a bundle"),
        (["report", "."], "has no manifest.json"),
        (["serve", "nowhere"], "does not exist"),
        (["bench", "m.onnx"], "No data was given"),
        (["bench", "http://127.0.0.1:9/x"], "names no model"),
        (["optimise"], "No such command"),
    ],
)
def test_bad_input_is_one_clear_error_with_status_2(
    make_linear: Callable[..., Path], tmp_path: Path, words: list[str], message: str
) -> None:
    import re

    path = make_linear("m.onnx")
    (tmp_path / "cut.onnx").write_bytes(path.read_bytes()[:60])
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32))
    np.savez(tmp_path / "few.npz", x=np.ones((100, 4), np.float32))
    np.savez(tmp_path / "empty.npz", x=np.ones((0, 4), np.float32))
    np.savez(tmp_path / "wide.npz", x=np.ones((100, 9), np.float32))
    (tmp_path / "bad.toml").write_text("[slo]\nlatency_p99 = 20\n")
    (tmp_path / "broken.toml").write_text("[slo\n")
    before = set(os.listdir(tmp_path))
    done = hasten(*words, cwd=tmp_path, check=2)
    assert done.stdout == ""
    assert done.stderr.count("error: ") == 1
    assert "Traceback" not in done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert set(os.listdir(tmp_path)) == before, "nothing half-written"


def test_a_missing_extra_says_what_to_type_with_status_3(tmp_path: Path, small_bundle: Path) -> None:
    (tmp_path / "httptools.py").write_text("raise ModuleNotFoundError('httptools', name='httptools')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = hasten("serve", small_bundle, "--http", "127.0.0.1:0", cwd=tmp_path, check=3, env=environment)
    assert "pip install 'hasten[serve]'" in done.stderr


def test_an_address_that_others_reach_is_refused_without_insecure(tmp_path: Path, small_bundle: Path) -> None:
    assert "--insecure" in hasten("serve", small_bundle, "--http", "0.0.0.0:0", cwd=tmp_path, check=2).stderr


@pytest.mark.slow
def test_ctrl_c_keeps_finished_trials_and_resume_uses_them(make_linear: Callable[..., Path], tmp_path: Path) -> None:
    make_linear("m.onnx", features=64)
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).normal(size=(300, 64)).astype(np.float32))
    command = ["optimize", "m.onnx", "--data", "d.npz", "--out", "b", "--budget", "20s", "--no-rehearse"]
    # As from a terminal: where these tests run in the background, a shell has them ignore it, and so what they start.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "hasten.cli", *command], cwd=tmp_path, stderr=subprocess.PIPE, text=True
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert process.stderr is not None
    for line in process.stderr:
        if line.strip().startswith("reference:"):
            process.send_signal(signal.SIGINT)
            break
    rest = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=30) == 130
    assert "--resume" in rest
    assert not (tmp_path / "b").exists()
    assert (tmp_path / ".b.work" / "trials.sqlite").exists()
    done = hasten(*command, "--resume", cwd=tmp_path)
    assert "bundle: b" in done.stdout
    assert not (tmp_path / ".b.work").exists()
