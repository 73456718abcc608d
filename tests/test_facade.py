"""What people write in slo.toml and price files is read as meant, or refused before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from hasten import facade
from hasten.errors import ConfigError
from hasten.facade import load_goal, load_prices
from hasten.measure.power import Absent

ENERGY = '[objective]\nminimize = "energy_per_prediction_j"\n'


def written(folder: Path, text: str) -> Path:
    (folder / "f.toml").write_text(text)
    return folder / "f.toml"


def test_energy_is_not_minimized_where_it_can_be_neither_measured_nor_estimated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facade, "why_no_energy", lambda prices: Absent("no counter", "state [prices] processor_tdp_w"))
    with pytest.raises(ConfigError, match=r"no counter") as refused:
        load_goal(written(tmp_path, ENERGY))
    assert refused.value.remedy.startswith("State [prices] processor_tdp_w; or minimize")


def test_energy_is_minimized_where_the_processors_power_is_stated(tmp_path: Path) -> None:
    goal = load_goal(written(tmp_path, ENERGY + "[prices]\nprocessor_tdp_w = 65\n"))
    assert goal.objective.minimize == "energy_per_prediction_j"


def test_prices_are_read_from_a_file_of_their_own_and_from_an_slo_toml(tmp_path: Path) -> None:
    table = "[prices]\nmachine_hour_usd = 0.2\n"
    assert load_prices(written(tmp_path, table)).machine_hour_usd == 0.2
    assert load_prices(written(tmp_path, "[slo]\nlatency_p50_ms = 5\n" + table)).machine_hour_usd == 0.2


@pytest.mark.parametrize("text", ["", "[slo]\nlatency_p50_ms = 5\n", "[prices]\n"])
def test_a_price_file_without_a_price_says_how_to_write_one(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="no price") as refused:
        load_prices(written(tmp_path, text))
    assert "machine_hour_usd" in refused.value.remedy


@pytest.mark.parametrize("text", ["[prices]\nmachine_hour_usd = 0\n", "[prices]\nprocessor_tdp_w = -1\n", "[prices"])
def test_a_price_that_is_none_is_refused_with_its_place(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"f\.toml"):
        load_prices(written(tmp_path, text))
