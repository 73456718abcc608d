"""What `hasten serve` makes of flags, variables and serve.toml. How it serves is tested in tests/serve."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ADMIN = "admin-token-of-a-test"


def check(folder: Path, *words: str, status: int = 0, **variables: str) -> str:
    """Run `hasten serve --check` and return what it says."""
    command = [sys.executable, "-m", "hasten.cli", "serve", "--check", *words]
    environment = {**os.environ, **variables}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def test_check_says_what_would_be_served_and_serves_nothing(tmp_path: Path, small_bundle: Path) -> None:
    (tmp_path / "serve.toml").write_text(f'bundles = ["{small_bundle}"]\n[http]\naddress = "127.0.0.1:1"\n')
    assert "good: would serve linear" in check(tmp_path, "--config", "serve.toml")
    assert json.loads(check(tmp_path, "--json", HASTEN_CONFIG="serve.toml"))["models"] == ["linear"]


def test_check_tells_lanes_ladder_and_instances_and_what_does_not_fit(tmp_path: Path, small_bundle: Path) -> None:
    lanes = '[[lanes]]\nname = "high"\n[[lanes]]\nname = "low"\n'
    text = f'bundles = ["{small_bundle}"]\n{lanes}[scheduling]\nladder = true\n[models.linear]\nmax_instances = 2\n'
    (tmp_path / "serve.toml").write_text(text + 'variants = ["reference", "none-of-it"]\n')
    known = check(tmp_path, "--config", "serve.toml", status=2)
    picked = known.partition("Name some of: ")[2].partition(",")[0]
    assert picked.startswith("openvino"), known
    (tmp_path / "serve.toml").write_text(text + f'variants = ["reference", "{picked}"]\n')
    said = check(tmp_path, "--config", "serve.toml")
    assert "linear: lanes high, low; requests that name none go in low" in said
    assert f"linear: ladder reference, then {picked}, all loaded in each instance" in said
    assert "linear: 1 to 2 instances" in said
    (tmp_path / "serve.toml").write_text(text)
    assert "warning: linear: the ladder has no step" in check(tmp_path, "--config", "serve.toml")
    told = json.loads(check(tmp_path, "--config", "serve.toml", "--json"))
    assert told["plans"]["linear"]["default_lane"] == "low"
    (tmp_path / "serve.toml").write_text(f'bundles = ["{small_bundle}"]\n[models.other]\nqueue_capacity = 1\n')
    assert "[models.other] is for a model that is not served" in check(tmp_path, "--config", "serve.toml", status=2)


def test_flags_stand_over_variables_and_variables_over_the_file(tmp_path: Path, small_bundle: Path) -> None:
    (tmp_path / "serve.toml").write_text('[http]\naddress = "from-the-file"\n')
    words = [str(small_bundle), "--config", "serve.toml"]
    assert "'from-the-file' is not HOST:PORT" in check(tmp_path, *words, status=2)
    assert "'from-a-variable'" in check(tmp_path, *words, status=2, HASTEN_HTTP="from-a-variable")
    flag = check(tmp_path, *words, "--http", "from-a-flag", status=2, HASTEN_HTTP="from-a-variable")
    assert "'from-a-flag'" in flag


def test_flags_choose_where_engines_run_and_how_often_a_token_may_ask(tmp_path: Path, small_bundle: Path) -> None:
    words = [str(small_bundle), "--load-timeout", "60", "--run-timeout", "5", "--rate", "10"]
    assert "good" in check(tmp_path, *words, "--worker-memory", "4096")
    assert "--isolation process" in check(tmp_path, *words, "--worker-memory", "4096", "--isolation", "none", status=2)
    assert "requests_per_s" in check(tmp_path, str(small_bundle), "--rate", "-1", status=2)


def test_a_token_in_a_variable_stands_over_the_file_that_serve_toml_names(tmp_path: Path, small_bundle: Path) -> None:
    (tmp_path / "serve.toml").write_text('repository_control = true\n[tokens]\nadmin = "nowhere"\n')
    words = [str(small_bundle), "--config", "serve.toml"]
    assert "nowhere cannot be read" in check(tmp_path, *words, status=2)
    assert "good" in check(tmp_path, *words, HASTEN_ADMIN_TOKEN=ADMIN)
    flag = check(tmp_path, *words, "--admin-tokens", "no-such-file", status=2, HASTEN_ADMIN_TOKEN=ADMIN)
    assert "no-such-file cannot be read" in flag


def test_a_token_opens_an_address_that_others_reach(tmp_path: Path, small_bundle: Path) -> None:
    refused = check(tmp_path, str(small_bundle), "--http", "0.0.0.0:0", status=2)
    assert "--infer-tokens" in refused and "--client-ca" in refused and "--insecure" in refused
    assert "good" in check(tmp_path, str(small_bundle), "--http", "0.0.0.0:0", HASTEN_INFER_TOKEN=ADMIN)
    assert "good" in check(tmp_path, str(small_bundle), "--http", "0.0.0.0:0", "--insecure")


@pytest.mark.parametrize("words", [["--infer-token", ADMIN], ["--token", ADMIN]])
def test_no_flag_takes_a_token_itself(tmp_path: Path, small_bundle: Path, words: list[str]) -> None:
    said = check(tmp_path, str(small_bundle), *words, status=2)
    assert "No such option" in said or "cannot be read" in said


def test_without_a_bundle_there_is_nothing_to_serve(tmp_path: Path) -> None:
    assert "hasten serve fast.bundle" in check(tmp_path, status=2)


def test_the_log_on_standard_error_is_json_lines_from_start_to_end(tmp_path: Path, small_bundle: Path) -> None:
    command = [sys.executable, "-m", "hasten.cli", "serve", str(small_bundle), "--http", "127.0.0.1:0"]
    words = ["--log", "-", "--log-requests", "--drain-delay", "0"]
    with subprocess.Popen([*command, *words], stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        ready = {}
        while ready.get("event") != "ready":
            ready = json.loads(server.stderr.readline())
        with urllib.request.urlopen(f"{ready['url']}/metrics", timeout=60) as answer:
            assert b"hasten_model_ready" in answer.read()
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"{ready['url']}/v2/models/nobody", timeout=60)
        server.send_signal(signal.SIGTERM)
        records = [json.loads(line) for line in server.stderr]
    assert server.returncode == 0
    assert [record["model"] for record in records if record["event"] == "refused"] == ["_unknown"]


def test_a_log_that_cannot_be_written_is_known_before_anything_is_loaded(tmp_path: Path, small_bundle: Path) -> None:
    command = [sys.executable, "-m", "hasten.cli", "serve", str(small_bundle), "--http", "127.0.0.1:0"]
    done = subprocess.run(
        [*command, "--log", str(tmp_path / "no" / "log")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert "--log FILE" in done.stderr


def test_grpc_has_an_address_of_its_own_and_needs_the_same_guard(tmp_path: Path, small_bundle: Path) -> None:
    bundle = str(small_bundle)
    assert "good" in check(tmp_path, bundle, "--grpc", "127.0.0.1:0")
    assert "'nowhere' is not HOST:PORT" in check(tmp_path, bundle, status=2, HASTEN_GRPC="nowhere")
    assert "--infer-tokens" in check(tmp_path, bundle, "--grpc", "0.0.0.0:0", status=2)
