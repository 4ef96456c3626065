"""The commands as a user types them: what they print, write and refuse, and the exit code."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer

from helpers.commands import Result
from helpers.sessions import market_file
from tickrt.cli.app import app
from tickrt.errors import ConfigError
from tickrt.market.event_file import load_events
from tickrt.market.instrument import KNOWN
from tickrt.risk.limits import RiskLimits
from tickrt.strategy.params import MakerParams, TakerParams

COMMANDS = [
    [name] if isinstance(command, typer.core.TyperCommand) else [name, verb]
    for name, command in typer.main.get_command(app).commands.items()
    for verb in getattr(command, "commands", [""])
]
STAGES = ("tick_to_order", "book", "features", "engine", "decision")


Tickrt = Callable[..., Result]


def arguments(session: Path, out: Path) -> list[object]:
    spec = session / "tiny4.toml"
    data = ["--data", session / "btc.npz", "--model", session / "tiny.onnx", "--spec", spec]
    eager = ["--param", "enter_threshold=0.05", "--param", "exit_threshold=0"]
    return [*data, *eager, "--out", out]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_teaches_with_examples(tickrt: Tickrt, command: list[str]) -> None:
    result = tickrt(*command, "--help")
    assert result.code == 0
    assert "Examples" in result.out
    assert f"tickrt {' '.join(command)}" in result.out
    assert "--json" in result.out


def test_help_of_run_names_every_parameter_and_limit(tickrt: Tickrt) -> None:
    words = set(re.findall(r"\w+", tickrt("run", "--help").out))
    for kind in (TakerParams, MakerParams, RiskLimits):
        names = {field.name for field in dataclasses.fields(kind)} - {"symbols"}
        assert names <= words


def test_version(tickrt: Tickrt) -> None:
    assert re.fullmatch(r"tickrt \d+\.\d+\.\d+\n", tickrt("--version").out)


def test_run_prints_what_was_promised_as_json(
    tickrt: Tickrt, session: Path, tmp_path: Path
) -> None:
    report = tickrt("run", *arguments(session, tmp_path / "out"), "--json").json()
    for key in ("events", "rows", "orders", "risk_rejects", "latency_us", "engine", "feature_hash"):
        assert key in report
    assert report["rows"] == 300
    assert report["orders"] > 0
    for stage in STAGES:
        assert {"count", "mean", "p50", "p99", "p999", "max"} <= set(report["latency_us"][stage])
    assert report["engine"]["backend"] == "native"
    assert re.fullmatch(r"[0-9a-f]{64}", report["engine"]["model_sha256"])
    assert re.fullmatch(r"[0-9a-f]{64}", report["feature_hash"])
    assert "series" not in report
    full = json.loads((tmp_path / "out" / "report.json").read_text())
    assert full["series"][0]["mid"]
    assert "<svg" in (tmp_path / "out" / "report.html").read_text()


def test_run_prints_a_table(tickrt: Tickrt, session: Path, tmp_path: Path) -> None:
    result = tickrt("run", *arguments(session, tmp_path / "out"))
    assert result.code == 0
    for text in ("tick-to-order", "BTCUSDT", "what was assumed", "what went wrong", "report.html"):
        assert text in result.out


def test_backtest_charges_the_latency_given_and_reports_money(
    tickrt: Tickrt, session: Path, tmp_path: Path
) -> None:
    given = [*arguments(session, tmp_path / "out"), "--latency-us", 30]
    report = tickrt("backtest", *given, "--json").json()
    assert report["kind"] == "backtest"
    assert report["backtest"]["inference_latency_us"]["p50"] == 30
    for key in ("pnl_gross", "pnl_net", "fees", "sharpe", "max_drawdown", "fill_ratio"):
        assert key in report["backtest"]


def test_a_backtest_can_charge_what_a_run_measured(
    tickrt: Tickrt, session: Path, tmp_path: Path
) -> None:
    ran = tickrt("run", *arguments(session, tmp_path / "run"), "--json").json()
    given = [*arguments(session, tmp_path / "out"), "--latency-us", ran["report"]]
    report = tickrt("backtest", *given, "--json").json()
    charged = report["backtest"]["inference_latency_us"]["p50"]
    assert 0 < charged <= ran["latency_us"]["tick_to_decision"]["max"]


def test_strategies_and_symbols_multiply(tickrt: Tickrt, session: Path, tmp_path: Path) -> None:
    eth = market_file(tmp_path / "eth.npz", 200, seed=3, instrument=KNOWN["ETHUSDT"])
    more = ["--data", eth, "--strategy", "taker", "--strategy", "maker", "--json"]
    report = tickrt("run", *arguments(session, tmp_path / "out"), *more).json()
    assert report["symbols"] == ["BTCUSDT", "ETHUSDT"]
    assert sorted(report["strategies"]) == [
        "maker BTCUSDT",
        "maker ETHUSDT",
        "taker BTCUSDT",
        "taker ETHUSDT",
    ]


@pytest.mark.parametrize("command", ["run", "backtest"])
def test_a_file_of_hftbacktests_own_plays_as_the_symbol_named(
    tickrt: Tickrt, session: Path, tmp_path: Path, command: str
) -> None:
    foreign = tmp_path / "foreign.npz"
    np.savez(foreign, data=load_events(session / "btc.npz").data)
    given = [*arguments(session, tmp_path / "out"), "--json"]
    given[given.index(session / "btc.npz")] = foreign
    report = tickrt(command, *given, "--symbol", "BTCUSDT").json()
    assert report["symbols"] == ["BTCUSDT"]
    assert report["rows"] > 0
    refused = tickrt(command, *given, "--force")
    assert refused.code == 2
    assert "foreign.npz" in refused.err
    assert "--symbol" in refused.err


def test_risk_limits_reach_the_risk_checks(tickrt: Tickrt, session: Path, tmp_path: Path) -> None:
    tight = ["--risk", "max_order_notional=0.01", "--json"]
    report = tickrt("run", *arguments(session, tmp_path / "out"), *tight).json()
    assert report["orders"] == 0
    assert report["risk_rejects"]["notional"] > 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--data", "nowhere.npz"], "nowhere.npz"),
        (["--model", "nowhere.onnx"], "nowhere.onnx"),
        (["--spec", "nowhere.toml"], "nowhere.toml"),
        (["--symbol", "XRP"], "XRP"),
        (["--param", "speed=3"], "speed"),
        (["--param", "enter_threshold"], "NAME=VALUE"),
        (["--param", "enter_threshold=high"], "a number"),
        (["--param", "enter_threshold=7"], "enter_threshold"),
        (["--risk", "max_messages=0"], "max_messages"),
        (["--pace", "fast"], "--pace"),
        (["--strategy", "poet"], "--strategy"),
        (["--pin", "4095"], "4095"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(
    tickrt: Tickrt, session: Path, tmp_path: Path, wrong: list[str], said: str
) -> None:
    result = tickrt("run", *arguments(session, tmp_path / "out"), *wrong)
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("error: ")
    assert said in result.err
    assert result.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_latency_option_is_checked(tickrt: Tickrt, session: Path, tmp_path: Path) -> None:
    for text in ("quick", "-1", "nan"):
        result = tickrt("backtest", *arguments(session, tmp_path / "out"), f"--latency-us={text}")
        assert result.code == 2
        assert "--latency-us" in result.err


def test_unknown_commands_and_options_are_usage_errors(tickrt: Tickrt) -> None:
    for wrong in (["fly"], ["run", "--fly"], ["run"]):
        result = tickrt(*wrong)
        assert result.code == 2
        assert "Traceback" not in result.err


@pytest.mark.parametrize("command", ["run", "backtest"])
def test_a_folder_that_cannot_be_written_is_refused_before_the_work(
    tickrt: Tickrt,
    session: Path,
    tmp_path: Path,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tickrt.runtime.session.Session.__init__", pytest.fail)
    monkeypatch.setattr("tickrt.backtest.run.Backtest.__init__", pytest.fail)
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        result = tickrt(command, *arguments(session, out))
        assert result.code == 2
        assert f"--out {out}: cannot write there" in result.err.replace("\n", "")


def test_bugs_are_not_hidden(tickrt: Tickrt, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("tickrt.feeds.captures.describe.describe", broken)
    with pytest.raises(ZeroDivisionError):
        tickrt("data", "info", "x.npz")


def test_data_info_describes_a_file(tickrt: Tickrt, session: Path) -> None:
    facts = tickrt("data", "info", session / "btc.npz", "--json").json()
    assert facts["batches"] == 300
    assert facts["instrument"]["symbol"] == "BTCUSDT"
    assert facts["book"]["crossed_batches"] == 0
    shown = tickrt("data", "info", session / "btc.npz").out
    assert "BTCUSDT" in shown
    assert f"{facts['price']['last_mid']:,}" in shown


def test_data_convert_reads_a_gdax_snapshot_and_updates(tickrt: Tickrt, tmp_path: Path) -> None:
    (tmp_path / "garbage.csv").write_text("not,a,capture\n1,2,3\n")
    result = tickrt("data", "convert", tmp_path / "garbage.csv", "-o", tmp_path / "x.npz")
    assert result.code == 2
    assert "garbage.csv" in result.err
    assert not (tmp_path / "x.npz").exists()


def test_simulated_data_is_the_same_for_the_same_seed(tickrt: Tickrt, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.npz", "b.npz", "c.npz")]
    for path, seed in zip(files, (5, 5, 6), strict=True):
        made = tickrt(
            "data", "simulate", "-o", path, "--events", 3000, "--seed", seed, "--json"
        ).json()
        assert made["events"] >= 3000
    first, same, other = (path.read_bytes() for path in files)
    assert first == same
    assert first != other
    assert tickrt("data", "simulate", "-o", files[0], "--events", 5, "--seconds", 1).code == 2


def test_models_are_listed_and_described(tickrt: Tickrt) -> None:
    listed = tickrt("model", "list", "--json").json()
    assert "seed_lstm" in [model["name"] for model in listed]
    for model in listed:
        assert re.fullmatch(r"[0-9a-f]{64}", model["sha256"])
        assert tickrt("model", "show", model["name"]).code == 0
        assert tickrt("model", "show", model["name"], "--json").json() == model
        assert model["name"] in tickrt("model", "list").out
    assert tickrt("model", "show", "nowhere").code == 2


def test_demo_goes_from_nothing_to_two_reports(tickrt: Tickrt, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    made = tickrt("demo", "--out", out, "--seconds", 10, "--model", "light_lstm", "--json").json()
    assert made["run"]["rows"] > 100
    assert made["backtest"]["pnl_net"] is not None
    assert [Path(path).is_file() for path in made["reports"]] == [True, True]


def test_bench_measures_the_spec_asked_for(tickrt: Tickrt, session: Path) -> None:
    results = tickrt(
        "bench", "pipeline", "--data", session / "btc.npz", "--spec", "light", "--json"
    ).json()
    assert [r["spec"] for r in results] == ["light"]
    assert results[0]["orders"] > 200
    assert results[0]["latency_us"]["tick_to_order"]["count"] == results[0]["orders"]


@pytest.mark.parametrize("backend", ["onnxruntime", "reference"])
def test_bench_pipeline_with_a_model(
    backend: str, tickrt: Callable[..., Result], session: Path
) -> None:
    command = ["bench", "pipeline", "--data", session / "btc.npz", "--backend", backend]
    command += ["--model", "light_lstm", "--repeat", "1"]
    (result,) = tickrt(*command, "--json").json()
    assert (result["model"], result["backend"]) == ("light_lstm", backend)
    assert result["engine"]["backend"] == backend
    assert result["faults"] == 0
    assert result["orders"] > 100
    assert result["latency_us"]["engine"]["count"] > 100
    shown = tickrt(*command)
    assert shown.code == 0
    assert f"with the {backend} backend at pace max" in shown.out
    assert "light_lstm" in shown.out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "light_lstm"], "--model: the null backend runs no model"),
        (["--pace", "2x"], "--pace: the null backend runs no model"),
        (["--backend", "native", "--spec", "light"], "--spec: a model has its own"),
        (["--backend", "native", "--pace", "fast"], "--pace: expected max, realtime"),
        (["--backend", "tensorrt"], "backend 'tensorrt' cannot run a model here"),
        (["--backend", "nativ"], "did you mean native?"),
    ],
)
def test_bench_pipeline_refuses_what_it_would_ignore(
    options: list[str], words: str, tickrt: Callable[..., Result], session: Path
) -> None:
    done = tickrt("bench", "pipeline", "--data", session / "btc.npz", *options)
    assert done.code == 2
    assert words in " ".join(done.err.split())


def test_the_errors_that_pydantic_finds_become_ours() -> None:
    from tickrt.cli.errors import validated
    from tickrt.config import SessionConfig

    with pytest.raises(ConfigError, match="threads"), validated():
        SessionConfig(data=(Path("x"),), threads=0)


@pytest.mark.parametrize("pace", ["1e-12x", "1e-300x", "0x", "1e9x", "nanx", "walk"])
def test_a_pace_that_no_clock_can_keep_is_refused(
    tickrt: Callable[..., Result], session: Path, tmp_path: Path, pace: str
) -> None:
    done = tickrt("run", "--data", str(session), "--pace", pace, "--out", str(tmp_path / "out"))
    assert done.code == 2
    assert "--pace" in done.err
