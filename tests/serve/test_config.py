from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from hasten.engine.confine import WorkerLimits
from hasten.errors import ConfigError, RequestError, UserError
from hasten.serve.access import NOBODY, Caller, Operation
from hasten.serve.config import LaneTable, ModelTable, ServeConfig, read_config
from hasten.serve.options import front_of, limits_of, workers_of
from hasten.serve.plan import default_lane, lanes_of
from hasten.serve.rate import Rate
from hasten.serve.server import Front

ROOT = Path(__file__).parent.parent.parent
ADMIN, INFER = "admin-token-of-a-test", "infer-token-of-a-test"


def config(folder: Path, text: str, **overrides: Any) -> ServeConfig:
    path = folder / "serve.toml"
    path.write_text(text)
    return read_config(path, {tuple(place.split("__")): value for place, value in overrides.items()})


def test_without_a_file_the_defaults_are_those_of_the_documentation(tmp_path: Path) -> None:
    documented, _ = _documented()
    every_key = {line.split(" = ")[0] for line in documented.splitlines() if " = " in line}
    known = {field for table in (ServeConfig(), *_tables()) for field in table.__struct_fields__}
    tables = {"http", "grpc", "tls", "tokens", "size", "times", "log", "drain", "scheduling", "workers", "limits"}
    # Without a default: they stand in the example of scheduling.
    assert every_key == known - tables - {"lanes", "models", "tenant_capacity", "tenants", "nice"}
    written = config(tmp_path, documented)
    assert written == read_config(None, {})


def test_the_example_of_scheduling_in_the_documentation_has_every_key_of_lanes_and_models(tmp_path: Path) -> None:
    _, example = _documented()
    assert all(key in example for key in (*LaneTable.__struct_fields__, *ModelTable.__struct_fields__))
    found = config(tmp_path, example)
    assert [lane.priority for lane in lanes_of(found.lanes)] == [1, 2, 3]
    assert default_lane(lanes_of(found.lanes), "") == "standard"


def _documented() -> list[str]:
    return re.findall(r"```toml\n(.*?)```", (ROOT / "docs/serve.md").read_text(), re.DOTALL)


def _tables() -> list[Any]:
    whole = ServeConfig()
    several = [whole.http, whole.grpc, whole.tls, whole.tokens, whole.size, whole.times, whole.log, whole.drain]
    return [*several, whole.scheduling, whole.workers, whole.limits]


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
        ("[workers]\nnice = -1\n", r">= 0.*\$\.workers\.nice"),
        ("[workers]\nmemory = 1\n", "Did you mean 'memory_mb'"),
        ("queue_capacity = 0\n", r"Expected `int` >= 1.*queue_capacity"),
        ("http = 3\n", "Expected `object`"),
        ("[tls]\nkey = 1\n", "Expected `str`"),
        ("bundles = 'a'\n", "Expected `array`"),
        ("a = 1\na = 2\n", "not TOML"),
        ("[[http]]\n", "Expected `object`"),
        ("[[lanes]]\nname = 'a'\nwait = 1\n", r"`wait`.*\$\.lanes\[0\].*Did you mean 'weight'"),
        ("[[lanes]]\nname = 'a b'\n", r"matching regex.*\$\.lanes\[0\]\.name"),
        ("[[lanes]]\nname = 'a'\nmin_share = 1.0\n", r"< 1\.0.*\$\.lanes\[0\]\.min_share"),
        ("[[lanes]]\npriority = 1\n", "missing required field `name`"),
        ("[scheduling]\ncompany = 'any'\n", r"'any'.*\$\.scheduling\.company"),
        ("[models.tiny]\nqueue = 1\n", "`queue`.*Known keys there: queue_capacity, min_instances"),
        ("lanes = [" + "{name = 'a'}, " * 33 + "]\n", r"length <= 32.*\$\.lanes"),
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


def test_bounds_on_unread_answers_reach_the_server(tmp_path: Path) -> None:
    text = "[grpc]\nstream_hold_bytes = 10\nstream_end_bytes = 20\n[size]\nunread_bytes = 15\n"
    front = front_of(config(tmp_path, text), {})
    assert (front.grpc_limits.stream_hold, front.grpc_limits.stream_end, front.unread) == (10, 20, 15)
    assert front_of(ServeConfig(), {}).unread == Front().unread


def test_streams_that_would_end_before_they_are_held_back_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least stream_hold_bytes"):
        front_of(config(tmp_path, "[grpc]\nstream_end_bytes = 1000\n"), {})


def test_a_tenant_s_own_rate_reaches_the_server(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(f"{INFER} tenant=acme\n")
    text = "[limits]\nrequests_per_s = 5\n[limits.tenants.acme]\nrequests_per_s = 50\nburst = 7\n"
    front = front_of(config(tmp_path, text + '[tokens]\ninfer = "tokens"\n'), {})
    assert (front.rate, front.tenant_rates) == (
        Rate(requests_per_s=5),
        {"acme": Rate(requests_per_s=50, burst=7)},
    )
    with pytest.raises(UserError, match=r"tenant 'acne'.*tenant=acne"):
        front_of(config(tmp_path, '[limits.tenants.acne]\n[tokens]\ninfer = "tokens"\n'), {})


def test_where_engines_run_and_what_they_may_take_reach_the_server(tmp_path: Path) -> None:
    text = "[workers]\nmemory_mb = 512\nload_s = 5\nnice = 3\n"
    assert workers_of(config(tmp_path, text)) == ("process", WorkerLimits(memory_mb=512, load_s=5.0, nice=3))
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


def test_a_token_says_whose_it_is_and_in_which_lane_its_requests_go(tmp_path: Path) -> None:
    lines = f"{INFER} tenant=acme lane=low\nanother-token-of-acme tenant=acme\na-token-of-nobody lane=low\n"
    (tmp_path / "tokens").write_text(lines + "a-token-of-nobody-else\n")
    text = '[tokens]\ninfer = "tokens"\n[[lanes]]\nname = "high"\n[[lanes]]\nname = "low"\n'
    access = front_of(config(tmp_path, text), {}).access
    first, second, third, fourth = (
        access.decide(Operation.INFER, f"Bearer {line.split()[0]}")
        for line in (tmp_path / "tokens").read_text().splitlines()
    )
    assert (first, second) == (Caller(tenant="acme", lane="low"), Caller(tenant="acme"))
    assert (third.lane, fourth.lane) == ("low", "")
    assert len({"", "acme", third.tenant, fourth.tenant}) == 4
    assert access.decide(Operation.LIVE, None) == NOBODY


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("repository_control = true\n", "--admin-tokens"),
        ('[tokens]\ninfer = "none"\n', "cannot be read"),
        ('[tokens]\ninfer = "serve.toml"\n', "token 2: what stands behind it is not understood"),
        ('[tokens]\ninfer = "short"\n', "shorter than 16"),
        ('[tokens]\ninfer = "empty"\n', "is empty"),
        ('[tokens]\ninfer = "odd"\n', "odd, token 1: what stands behind it is not understood"),
        ('[tokens]\ninfer = "laned"\n', "laned, token 1: there is no lane 'high'. Name one of: default"),
        ('[tokens]\ninfer = "one"\nadmin = "two"\n', "stands elsewhere for another tenant"),
        ('[[lanes]]\nname = "a"\n[[lanes]]\nname = "b"\nmin_share = 2\n', "Expected `float` < 1.0"),
        ('[[lanes]]\nname = "a"\npriority = 3\n[[lanes]]\nname = "b"\n', "'b' has priority 2 and stands after 'a'"),
        ('[tls]\nkey = "key.pem"\n', "--tls-cert"),
        ('[tls]\nkey = "none.pem"\ncertificate = "none.pem"\n', "does not exist"),
    ],
)
def test_what_would_not_work_is_said_before_anything_is_loaded(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "short").write_text("short\n")
    (tmp_path / "odd").write_text(f"{INFER} acme\n")
    (tmp_path / "laned").write_text(f"{INFER} lane=high\n")
    (tmp_path / "one").write_text(f"{INFER} tenant=one\n")
    (tmp_path / "two").write_text(f"{INFER} tenant=two\n")
    with pytest.raises(UserError, match=words):
        front_of(config(tmp_path, text), {})


def test_without_tokens_strange_hosts_are_refused_and_named_ones_are_not(tmp_path: Path) -> None:
    access = front_of(config(tmp_path, '[http]\nallow_hosts = ["models.example"]\n'), {}).access
    access.admit_page({"host": "models.example:8000"})
    with pytest.raises(RequestError):
        access.admit_page({"host": "evil.test"})
