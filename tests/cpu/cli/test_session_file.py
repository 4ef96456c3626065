"""``tickrt run session.toml``: the file says what runs, options beside it win."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.commands import Result
from helpers.sessions import market_file
from tickrt.cli.backtest import VenueOptions, parse_latency
from tickrt.cli.options import SessionOptions, session_config
from tickrt.config import (
    HftbacktestSettings,
    NullSettings,
    SessionConfig,
    StrategySettings,
    load_config,
)
from tickrt.errors import ConfigError
from tickrt.market.instrument import KNOWN
from tickrt.risk.limits import RiskLimits
from tickrt.strategy.params import MakerParams, TakerParams

Tickrt = Callable[..., Result]

TEXT = """
data = ["btc.npz"]
out = "results"

[gateway]
kind = "hftbacktest"
inference_latency_us = 30.0

[[strategies]]
name = "eager"
model = "tiny.onnx"
spec = "tiny4.toml"
policy = {enter_threshold = 0.05, exit_threshold = 0.0}
risk = {max_order_notional = 1e9}

[[strategies]]
name = "quoting"
model = "tiny.onnx"
spec = "tiny4.toml"
policy = {kind = "maker"}
"""


@pytest.fixture
def file(session: Path, tmp_path: Path) -> Path:
    """A session file in a folder of its own, beside what it names."""
    folder = tmp_path / "desk"
    folder.mkdir()
    for name in ("btc.npz", "tiny.onnx", "tiny4.toml"):
        (folder / name).write_bytes((session / name).read_bytes())
    (folder / "session.toml").write_text(TEXT)
    return folder / "session.toml"


def made(file: Path | None, **options: Any) -> SessionConfig:
    return session_config(SessionOptions(session=file, **options))


def test_a_file_runs_and_is_backtested(tickrt: Tickrt, file: Path) -> None:
    ran = tickrt("--quiet", "run", file, "--json").json()
    assert sorted(ran["strategies"]) == ["eager", "quoting"]
    assert Path(ran["report"]) == file.parent / "results" / "report.json"
    again = tickrt("backtest", file, "--json")
    assert again.code == 2  # the run's report is there
    assert "--force" in again.err
    tested = tickrt("backtest", file, "--json", "--force").json()
    assert tested["kind"] == "backtest"
    assert tested["backtest"]["inference_latency_us"]["p50"] == 30
    charged = tickrt("backtest", file, "--json", "--force", "--latency-us", 50).json()
    assert charged["backtest"]["inference_latency_us"]["p50"] == 50


def test_run_says_that_it_answers_on_paper(tickrt: Tickrt, file: Path) -> None:
    result = tickrt("run", file)
    assert result.code == 0
    assert result.err.startswith("warning: gateway hftbacktest")


def test_a_venue_that_answers_nobody(tickrt: Tickrt, file: Path) -> None:
    shown = tickrt("config", "show", file, "--gateway", "null")
    assert 'kind = "null"' in shown.out
    file.write_text(shown.out)
    assert load_config(file).gateway == NullSettings()
    ran = tickrt("run", file, "--json")
    assert ran.err == ""
    assert ran.json()["config"]["gateway"] == {"kind": "null"}
    assert (ran.json()["orders"] > 0, ran.json()["fills"]) == (True, 0)
    tested = tickrt("backtest", file, "--force")
    assert tested.code == 0
    assert tested.err.startswith("warning: gateway null is for `tickrt run`")


def test_what_is_asked_of_the_system_is_in_the_report(tickrt: Tickrt, file: Path) -> None:
    core = min(os.sched_getaffinity(0))
    options = ("--pin", core, "--lock-memory", "--realtime-priority", 5)
    ran = tickrt("--quiet", "run", file, "--json", *options).json()
    came = {one["what"]: one for one in ran["hot_thread"]}
    assert set(came) == {"pin_cpu", "lock_memory", "realtime_priority"}
    assert came["pin_cpu"] == {"what": "pin_cpu", "done": True, "detail": f"core {core}"}
    assert all(one["done"] or one["fix"] for one in came.values())
    again = tickrt("--quiet", "run", file, "--json", "--force", "--no-lock-memory").json()
    assert "hot_thread" not in again
    assert tickrt("run", file, "--realtime-priority", 100).code == 2


def test_errors_name_the_file_and_the_path(tickrt: Tickrt, file: Path) -> None:
    file.write_text(TEXT.replace("max_order_notional = 1e9", "max_order_lots = 0"))
    result = tickrt("run", file)
    assert result.code == 2
    said = "$.strategies[0].risk.max_order_lots: expected more than 0, got 0"
    assert result.err == f"error: {file}: {said}\n"


def test_without_options_the_file_counts(file: Path) -> None:
    assert made(file) == load_config(file)


def test_options_beside_the_file_win(file: Path) -> None:
    config = made(
        file,
        model="light_lstm",
        spec="light",
        threads=3,
        split=False,
        allow_unsigned=True,
        out=Path("x"),
        param=["enter_threshold=0.5", "max_position_lots=4", "half_spread_ticks=3"],
        risk=["max_order_lots=2"],
    )
    assert (config.threads, config.split, config.allow_unsigned) == (3, False, True)
    assert config.out == Path("x")
    taker, maker = config.strategies
    assert taker.policy == TakerParams(enter_threshold=0.5, exit_threshold=0.0, max_position_lots=4)
    assert maker.policy == MakerParams(half_spread_ticks=3, max_position_lots=4)
    assert {s.model for s in config.strategies} == {"light_lstm"}
    assert {s.spec for s in config.strategies} == {"light"}
    assert taker.risk == RiskLimits(max_order_notional=1e9, max_order_lots=2)
    assert config.gateway == load_config(file).gateway
    assert [s.name for s in config.strategies] == ["eager", "quoting"]


def test_strategies_named_by_options_start_from_the_files(file: Path) -> None:
    config = made(file, strategy=["maker", "taker"], symbol=["BTCUSDT"])
    assert [s.name for s in config.strategies] == ["maker", "taker"]
    assert {s.symbol for s in config.strategies} == {"BTCUSDT"}
    assert config.strategies[0].policy == MakerParams()
    assert config.strategies[1].policy == TakerParams(enter_threshold=0.05, exit_threshold=0.0)
    assert {s.risk.max_order_notional for s in config.strategies} == {1e9}


def test_without_a_file_there_is_a_strategy_per_symbol(session: Path, tmp_path: Path) -> None:
    eth = market_file(tmp_path / "eth.npz", 20, instrument=KNOWN["ETHUSDT"])
    config = made(None, data=[session / "btc.npz", eth])
    assert [(s.name, s.symbol) for s in config.strategies] == [
        ("taker BTCUSDT", "BTCUSDT"),
        ("taker ETHUSDT", "ETHUSDT"),
    ]
    assert made(None, data=[eth]) == SessionConfig(
        data=(eth,), strategies=(StrategySettings(name="taker"),)
    )


def test_something_must_be_played() -> None:
    with pytest.raises(ConfigError, match="session file or, by --data"):
        made(None)


def test_an_option_that_nothing_has_is_refused(file: Path) -> None:
    with pytest.raises(ConfigError, match="--param speed: unknown"):
        made(file, param=["speed=3"])
    with pytest.raises(ConfigError, match="--strategy: expected taker or maker, got 'poet'"):
        made(file, strategy=["poet"])
    with pytest.raises(ConfigError, match="threads: expected at most 256, got 500"):
        made(file, threads=500)


def test_options_of_the_venue(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{}")
    given = VenueOptions(str(tmp_path / "report.json"), 5.0, "log_prob", "partial").changes()
    assert HftbacktestSettings(**given) == HftbacktestSettings(
        queue_model="log_prob",
        exchange="partial",
        entry_latency_ns=5000,
        response_latency_ns=5000,
        inference_latency_report=tmp_path / "report.json",
    )
    assert VenueOptions().changes() == {}
    assert set(parse_latency("measured").values()) == {None}


@pytest.mark.parametrize("command", ["run", "backtest"])
def test_defaults_shown_are_the_configurations(tickrt: Tickrt, command: str) -> None:
    text = " ".join(tickrt(command, "--help").out.replace("│", " ").split())
    usual = SessionConfig(data=("x",))
    venue = HftbacktestSettings()
    shown = [usual.strategies[0].model, usual.backend, str(usual.threads), "taker"]
    shown += ["split" if usual.split else "no-split", "signed-only", "stateless"]
    if command == "run":
        shown += [f"{usual.deadline_us:.0f}", "max"]
        shown += ["lock-memory" if usual.lock_memory else "no-lock-memory"]
    else:
        shown += [venue.queue_model, venue.exchange, str(venue.entry_latency_ns // 1000)]
    for value in shown:
        assert f"[default: ({value})]" in text, value


def test_what_config_show_prints_is_a_session_file(tickrt: Tickrt, file: Path) -> None:
    shown = tickrt("config", "show", file)
    assert shown.code == 0
    copy = file.with_name("copy.toml")
    copy.write_text(shown.out)
    assert load_config(copy) == load_config(file)
    assert json.loads(tickrt("config", "show", file, "--json").out)["gateway"]["kind"] == (
        "hftbacktest"
    )


def test_config_show_starts_a_file_of_any_kind(tickrt: Tickrt, tmp_path: Path) -> None:
    out = tickrt("config", "show", "--strategy", "maker", "--gateway", "hftbacktest").out
    (tmp_path / "s.toml").write_text(out)
    config = load_config(tmp_path / "s.toml")
    assert config.strategies[0].policy == MakerParams()
    assert config.gateway == HftbacktestSettings()
    assert "half_spread_ticks" in out
    assert "# from our decision to the venue" in out
