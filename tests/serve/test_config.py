from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from hasten.engine.confine import WorkerLimits
from hasten.errors import ConfigError, RequestError, UserError
from hasten.serve.access import Operation
from hasten.serve.config import ServeConfig, read_config
from hasten.serve.options import front_of, limits_of, workers_of

ROOT = Path(__file__).parent.parent.parent
ADMIN, INFER = "admin-token-of-a-test", "infer-token-of-a-test"


def config(folder: Path, text: str, **overrides: Any) -> ServeConfig:
    path = folder / "serve.toml"
    path.write_text(text)
    return read_config(path, {tuple(place.split("__")): value for place, value in overrides.items()})


def test_without_a_file_the_defaults_are_those_of_the_documentation(tmp_path: Path) -> None:
    [documented] = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/serve.md").read_text(), re.DOTALL)
    every_key = {line.split(" = ")[0] for line in documented.splitlines() if " = " in line}
    known = {field for table in (ServeConfig(), *_tables()) for field in table.__struct_fields__}
    assert every_key == known - {"http", "grpc", "tls", "tokens", "size", "times", "log", "drain", "workers", "limits"}
    written = config(tmp_path, documented)
    assert written == read_config(None, {})


def _tables() -> list[Any]:
    whole = ServeConfig()
    return [
        whole.workers,
        whole.limits,
        whole.http,
        whole.grpc,
        whole.tls,
        whole.tokens,
        whole.size,
        whole.times,
        whole.log,
        whole.drain,
    ]


def test_the_published_schema_is_that_of_the_types() -> None:
    made = runpy.run_path(str(ROOT / "docs/make_serve.py"))["text"]()
    assert (ROOT / "docs/serve.schema.json").read_text() == made
    assert json.loads(made)["$defs"]["Http"]["additionalProperties"] is False


def test_what_stands_in_the_file_is_read_and_an_override_stands_over_it(tmp_path: Path) -> None:
    text = 'queue_capacity = 3\n[http]\naddress = "127.0.0.1:1"\n[drain]\ndelay_s = 5\n'
    found = config(tmp_path, text, http__address="127.0.0.1:2", drain__delay_s=None)
    assert (found.queue_capacity, found.http.address, found.drain.delay_s) == (3, "127.0.0.1:2", 5.0)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    found = config(tmp_path, 'bundles = ["a", "/b"]\n[tokens]\nadmin = "secret"\n')
    assert found.bundles == (str(tmp_path / "a"), "/b")
    assert found.tokens.admin == str(tmp_path / "secret")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[http]\nadress = '127.0.0.1:1'\n", r"`adress`.*\$\.http.*Did you mean 'address'"),
        ("[htp]\n", "`htp`.*Did you mean 'http'"),
        ("[drain]\nfoo = 1\n", "Known keys there: delay_s, grace_s"),
        ("[http]\naddress = 1\n", r"Expected `str`, got `int`.*\$\.http\.address"),
        ("[workers]\nisolation = 'thread'\n", r"Invalid enum value 'thread'.*\$\.workers\.isolation"),
        ("[workers]\nrun_s = 0\n", r"> 0.*\$\.workers\.run_s"),
        ("[workers]\nmemory = 1\n", "Did you mean 'memory_mb'"),
        ("queue_capacity = 0\n", r"Expected `int` >= 1.*queue_capacity"),
        ("http = 3\n", "Expected `object`"),
        ("[tls]\nkey = 1\n", "Expected `str`"),
        ("bundles = 'a'\n", "Expected `array`"),
        ("a = 1\na = 2\n", "not TOML"),
        ("[[http]]\n", "Expected `object`"),
    ],
)
def test_what_is_wrong_is_named_with_its_place_and_what_may_be_meant(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(tmp_path, text)
    assert re.search(words, str(caught.value), re.DOTALL), str(caught.value)
    assert "serve.toml" in caught.value.message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml"):
        read_config(tmp_path / "none.toml", {})


def test_bounds_and_times_reach_the_server(tmp_path: Path) -> None:
    found = config(tmp_path, "[size]\nbody_bytes = 10\njson_depth = 5\nchunks = 7\n[times]\nheader_s = 2\n")
    front = front_of(found, {})
    assert (limits_of(found).body, limits_of(found).depth) == (10, 5)
    assert (front.limits.chunks, front.limits.header_s) == (7, 2.0)


def test_where_engines_run_and_what_they_may_take_reach_the_server(tmp_path: Path) -> None:
    text = "[workers]\nmemory_mb = 512\nload_s = 5\n"
    assert workers_of(config(tmp_path, text)) == ("process", WorkerLimits(memory_mb=512, load_s=5.0))
    assert workers_of(config(tmp_path, text, workers__memory_mb=0, workers__isolation="none"))[0] == "none"


def test_a_memory_bound_that_nothing_would_keep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--isolation process"):
        workers_of(config(tmp_path, '[workers]\nisolation = "none"\nmemory_mb = 512\n'))


def test_tokens_come_from_files_one_a_line_or_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(f"{ADMIN}\n\n  another-token-of-a-test \r\n")
    access = front_of(
        config(tmp_path, 'repository_control = true\n[tokens]\nadmin = "tokens"\n'), {"HASTEN_INFER_TOKEN": INFER}
    ).access
    access.decide(Operation.LOAD, f"Bearer {ADMIN}")
    access.decide(Operation.LOAD, "Bearer another-token-of-a-test")
    access.decide(Operation.INFER, f"Bearer {INFER}")
    access.admit_page({"host": "any.example"})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("repository_control = true\n", "--admin-tokens"),
        ('[tokens]\ninfer = "none"\n', "cannot be read"),
        ('[tokens]\ninfer = "serve.toml"\n', "shorter than 16"),
        ('[tokens]\ninfer = "empty"\n', "is empty"),
        ('[tls]\nkey = "key.pem"\n', "--tls-cert"),
        ('[tls]\nkey = "none.pem"\ncertificate = "none.pem"\n', "does not exist"),
    ],
)
def test_what_would_not_work_is_said_before_anything_is_loaded(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(UserError, match=words):
        front_of(config(tmp_path, text), {})


def test_without_tokens_strange_hosts_are_refused_and_named_ones_are_not(tmp_path: Path) -> None:
    access = front_of(config(tmp_path, '[http]\nallow_hosts = ["models.example"]\n'), {}).access
    access.admit_page({"host": "models.example:8000"})
    with pytest.raises(RequestError):
        access.admit_page({"host": "evil.test"})
