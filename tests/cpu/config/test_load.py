"""Session files: what they may say, what is refused, and how the error names it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tickrt.config import HftbacktestSettings, PaperSettings, SessionConfig, load_config
from tickrt.errors import ConfigError
from tickrt.risk.limits import RiskLimits
from tickrt.strategy.params import FallbackParams, MakerParams, TakerParams

EVERYTHING = """
data = ["btc.npz", "/far/eth.npz"]
out = "results"
pace = "10x"
pin_cpu = 3
lock_memory = true
realtime_priority = 50
backend = "null"
engine_python = "/opt/trt/bin/python3.9"
allow_time_slicing = true
max_batch = 16
threads = 2
weights = "bf16"
split = false
stateful = true
deadline_us = 500
healthy_needed = 5
trust = ["file:desk.pub", "env:DESK"]
bundle_key = "file:/keys/aes"
allow_unsigned = true

[gateway]
kind = "hftbacktest"
queue_model = "power_prob2"
queue_power = 3
exchange = "partial"
entry_latency_ns = 1
response_latency_ns = 2
latency_file = "latency.npz"
inference_latency_us = 7.5

[[strategies]]
name = "a"
symbol = "BTCUSDT"
model = "my.onnx"
spec = "light"
shadow = true
policy = {kind = "maker", half_spread_ticks = 2, qty_lots = 2}
fallback = {imbalance_weight = 0.1}
risk = {max_loss = inf, symbols = [0, 2], max_order_lots = 7}

[[strategies]]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "session.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_everything_can_be_set(tmp_path: Path) -> None:
    (tmp_path / "latency.npz").touch()
    config = load_config(written(tmp_path, EVERYTHING))
    assert config.data == (tmp_path / "btc.npz", Path("/far/eth.npz"))
    assert config.out == tmp_path / "results"
    assert (config.pace, config.pin_cpu, config.backend, config.threads) == (10.0, 3, "null", 2)
    assert (config.lock_memory, config.realtime_priority) == (True, 50)
    assert config.engine_python == "/opt/trt/bin/python3.9"
    assert config.allow_time_slicing
    assert config.max_batch == 16
    assert config.weights == "bf16"
    assert (config.split, config.stateful, config.deadline_us) == (False, True, 500)
    assert config.trust == (f"file:{tmp_path}/desk.pub", "env:DESK")
    assert config.bundle_key == "file:/keys/aes"
    assert config.allow_unsigned is True
    assert config.healthy_needed == 5
    assert config.gateway == HftbacktestSettings(
        queue_model="power_prob2",
        queue_power=3,
        exchange="partial",
        entry_latency_ns=1,
        response_latency_ns=2,
        latency_file=tmp_path / "latency.npz",
        inference_latency_us=7.5,
    )
    first, second = config.strategies
    assert (first.name, first.symbol, first.spec, first.shadow) == ("a", "BTCUSDT", "light", True)
    assert first.model == str(tmp_path / "my.onnx")
    assert first.policy == MakerParams(half_spread_ticks=2, qty_lots=2)
    assert first.fallback == FallbackParams(imbalance_weight=0.1)
    assert first.risk == RiskLimits(max_loss=math.inf, symbols=(0, 2), max_order_lots=7)
    assert second.policy == TakerParams()
    # Every setting of the session is in the file above, so that none is forgotten here.
    assert config.model_fields_set == set(SessionConfig.model_fields)


def test_a_file_needs_only_its_data(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, 'data = "btc.npz"'))
    assert config == SessionConfig(data=(tmp_path / "btc.npz",))
    assert config.gateway == PaperSettings()


@pytest.mark.parametrize("name", ["light_lstm", "mine"])
def test_a_models_name_is_a_path_where_there_is_such_a_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine").touch()
    config = load_config(written(tmp_path, f'data = []\n[[strategies]]\nmodel = "{name}"'.replace(
        "[]", '["x.npz"]'
    )))  # fmt: skip
    expected = name if name == "light_lstm" else str(tmp_path / "mine")
    assert config.strategies[0].model == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data = []", "$.data: expected at least 1 in the list, got []"),
        ("threads = 1", "$.data: missing"),
        ("threads = 0", "$.threads: expected at least 1, got 0"),
        ('threads = "2"', "$.threads: expected a whole number, got '2'"),
        ("threads = 2.0", "$.threads: expected a whole number, got 2.0"),
        ("threads = true", "$.threads: expected a whole number, got True"),
        ("split = 1", "$.split: expected true or false, got 1"),
        ("deadline_us = true", "$.deadline_us: expected a number, got True"),
        ("deadline_us = 0", "$.deadline_us: expected more than 0.0, got 0"),
        ("backend = 3", "$.backend: expected a text, got 3"),
        ('pace = "quick"', "$.pace: expected max, realtime or a speed"),
        ("thread = 1", "$.thread: unknown; did you mean threads?"),
        ("zzz = 1", "$.zzz: unknown; there are data, out,"),
        ("strategies = 3", "$.strategies: expected a list, got 3"),
        ("strategies = [3]", "$.strategies[0]: expected a table, got 3"),
        ('gateway = "paper"', "$.gateway: expected a table, got 'paper'"),
        (
            'gateway = {kind = "nyse"}',
            "$.gateway.kind: expected paper or null or hftbacktest, got 'nyse'",
        ),
        (
            '[[strategies]]\nname = "a"\n[[strategies]]\nname = "a"',
            "$.strategies[1].name: 'a' is strategies[0]'s already",
        ),
        ('engine_python = " "', "$.engine_python: name an interpreter, or leave engine_python out"),
        ("max_batch = 129", "$.max_batch: expected at most 128, got 129"),
        ("realtime_priority = 0", "$.realtime_priority: expected at least 1, got 0"),
        ("realtime_priority = 100", "$.realtime_priority: expected at most 99, got 100"),
        ("lock_memory = 1", "$.lock_memory: expected true or false, got 1"),
        ("pace = 1e-12", "$.pace: expected 0 (max) or a speed of 0.001x"),
        ("gateway = {queue_power = 2.0}", "$.gateway.queue_power: unknown; there are kind"),
        (
            'gateway = {kind = "hftbacktest", queue_model = "x"}',
            "$.gateway.queue_model: expected risk_adverse, log_prob",
        ),
        (
            'gateway = {kind = "hftbacktest", queue_model = 1}',
            "$.gateway.queue_model: expected a name, got 1",
        ),
        (
            'gateway = {kind = "hftbacktest", entry_latency_ns = 1.5}',
            "$.gateway.entry_latency_ns: expected a whole number, got 1.5",
        ),
        (
            'gateway = {kind = "hftbacktest", inference_latency_us = -1}',
            "$.gateway.inference_latency_us: expected 0 … 1e9",
        ),
        (
            'gateway = {kind = "hftbacktest", latency_file = "none.npz"}',
            "none.npz: no such file",
        ),
        (
            "strategies = [{}, {risk = {max_order_lots = 0}}]",
            "$.strategies[1].risk.max_order_lots: expected more than 0, got 0",
        ),
        (
            "strategies = [{risk = {max_ordr_lots = 1}}]",
            "$.strategies[0].risk.max_ordr_lots: unknown; did you mean max_order_lots?",
        ),
        (
            "strategies = [{risk = {max_data_age_ns = 1.5}}]",
            "$.strategies[0].risk.max_data_age_ns: expected a whole number, got 1.5",
        ),
        (
            "strategies = [{risk = {symbols = [true]}}]",
            "$.strategies[0].risk.symbols[0]: expected a whole number, got True",
        ),
        (
            "strategies = [{risk = {symbols = 1}}]",
            "$.strategies[0].risk.symbols: expected a list, got 1",
        ),
        (
            'strategies = [{policy = {enter_threshold = "0.5"}}]',
            "$.strategies[0].policy.enter_threshold: expected a number, got '0.5'",
        ),
        (
            'strategies = [{policy = {kind = "poet"}}]',
            "$.strategies[0].policy.kind: expected taker or maker, got 'poet'",
        ),
        (
            'strategies = [{policy = {kind = "maker", enter_threshold = 0.5}}]',
            "$.strategies[0].policy.enter_threshold: unknown; there are kind, qty_lots",
        ),
        (
            "strategies = [{fallback = {imbalance_weight = 0.9}}]",
            "$.strategies[0].fallback: expected weights that add up to at most 1, got 1.4",
        ),
        ("data = [", "not a TOML file"),
    ],
)
def test_what_is_wrong_is_named_with_its_path(tmp_path: Path, text: str, said: str) -> None:
    complete = text if text.startswith("data") or "missing" in said else f'data = ["x"]\n{text}'
    path = written(tmp_path, complete)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)
    assert str(caught.value).count(f"{path}: ") == 1  # one mistake, one complaint


def test_every_mistake_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(written(tmp_path, 'data = ["x"]\nthreads = 0\npin_cpu = -1'))
    assert "$.threads" in str(caught.value)
    assert "$.pin_cpu" in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot read it"):
        load_config(tmp_path / "nowhere.toml")


def test_charging_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="got both"):
        HftbacktestSettings(inference_latency_us=1.0, inference_latency_report=Path("r.json"))
