"""`hasten top` against a real server."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hasten.bundle.read import open_bundle
from hasten.cli.top import command
from hasten.errors import RequestError
from hasten.observe.prometheus import Metrics
from hasten.observe.scrape import Scrape, Scraper
from hasten.serve.access import Access, Scope
from hasten.serve.server import Front, Options, Running, serve_bundle
from hasten.serve.telemetry import Telemetry
from hasten.spec.event import Refused

TOKEN = "metrics-token-of-a-test"


@pytest.fixture(scope="module")
def server(small_bundle: Path) -> Generator[Running]:
    metrics = Metrics()
    metrics(Refused(model="\x1b[2J[red]evil", code="overloaded"))
    front = Front(access=Access({Scope.METRICS: [TOKEN]}))
    telemetry = Telemetry(sink=metrics, page=metrics.page)
    with serve_bundle(open_bundle(small_bundle), Options(front=front, telemetry=telemetry)) as running:
        yield running


def top(*words: str, **variables: str) -> Result:
    return CliRunner().invoke(command, [*words, "--interval", "0.05s"], env={"HASTEN_METRICS_TOKEN": None, **variables})


def test_once_shows_each_model_and_moves_no_cursor(server: Running) -> None:
    done = top(server.url, "--once", HASTEN_METRICS_TOKEN=TOKEN, COLUMNS="200")
    assert done.exit_code == 0, done.output
    assert "linear" in done.output
    assert "1/1" in done.output
    assert "[2J[red]evil" in done.output
    assert "\x1b" not in done.output


def test_json_gives_figures_that_a_script_can_read(server: Running, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    done = top(server.url, "--json", "--token-file", str(tmp_path / "token"))
    assert done.exit_code == 0, done.output
    document = json.loads(done.output)
    assert document["schema"] == "hasten.top/1"
    assert document["interval_s"] >= 0.05
    model = next(model for model in document["models"] if model["model"] == "linear")
    assert (model["ready"], model["rps"], model["latency_p50_ms"], model["workers_up"]) == (True, 0.0, None, 1)


def test_without_a_token_it_says_what_to_give(server: Running) -> None:
    done = top(server.url, "--once")
    assert done.exit_code == 1
    assert "--token-file" in done.output


def test_a_token_is_never_taken_from_the_command_line() -> None:
    done = top("--token", TOKEN)
    assert done.exit_code == 2
    assert "No such option" in done.output


def test_the_live_view_goes_on_where_the_server_is_gone_for_a_while_until_ctrl_c(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    scrape, pauses = Scraper.scrape, iter(["good", "gone", "good"])

    def now_and_then(self: Scraper) -> Scrape:
        if state == "gone":
            raise RequestError("It gives no answer.", code="connection")
        return scrape(self)

    def pause(seconds: float) -> None:
        nonlocal state
        state = next(pauses, "")
        if not state:
            raise KeyboardInterrupt

    state = "good"
    monkeypatch.setattr(Scraper, "scrape", now_and_then)
    monkeypatch.setattr("hasten.cli.top.time.sleep", pause)
    done = top(server.url, HASTEN_METRICS_TOKEN=TOKEN, COLUMNS="200")
    assert done.exit_code == 130
    assert "linear" in done.output, "the last view stays"
