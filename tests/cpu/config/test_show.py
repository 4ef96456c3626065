"""A configuration printed as TOML is complete, explained, and reads back as the same."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickrt.config import (
    GATEWAYS,
    POLICIES,
    HftbacktestSettings,
    SessionConfig,
    StrategySettings,
    load_config,
    to_toml,
)
from tickrt.config.show import described
from tickrt.risk.limits import RiskLimits
from tickrt.strategy.params import FallbackParams, MakerParams, TakerParams

DATA = (Path("/data/btc.npz"),)


def back(config: SessionConfig, path: Path) -> SessionConfig:
    path.write_text(to_toml(config), encoding="utf-8")
    return load_config(path)


@pytest.mark.parametrize("gateway", GATEWAYS.values())
@pytest.mark.parametrize("policy", POLICIES.values())
def test_reads_back_as_the_same(gateway: type, policy: type, tmp_path: Path) -> None:
    strategies = (StrategySettings(), StrategySettings(name='a "b" \\ ü', policy=policy()))
    config = SessionConfig(data=DATA, strategies=strategies, gateway=gateway(), pace=12.5)
    assert back(config, tmp_path / "s.toml") == config


@given(
    loss=st.floats(min_value=1e-300, allow_nan=False),
    age=st.integers(1, 2**53),
    share=st.floats(min_value=-1.0, max_value=0.6),
    name=st.text(st.characters(exclude_categories=("Cs", "Cc"))),
)
def test_numbers_and_texts_survive(loss: float, age: int, share: float, name: str) -> None:
    settings = StrategySettings(
        name=name,
        policy=TakerParams(exit_threshold=share),
        risk=RiskLimits(max_loss=loss, max_data_age_ns=age),
    )
    document = tomllib.loads(to_toml(SessionConfig(data=DATA, strategies=(settings,))))
    assert SessionConfig.model_validate(document).strategies == (settings,)


@pytest.mark.parametrize(
    "kind",
    [
        SessionConfig,
        StrategySettings,
        HftbacktestSettings,
        TakerParams,
        MakerParams,
        FallbackParams,
        RiskLimits,
    ],
)
def test_every_setting_is_explained(kind: type) -> None:
    names = (
        set(kind.model_fields)
        if hasattr(kind, "model_fields")
        else {f.name for f in dataclasses.fields(kind)} - {"kind"}
    )
    assert names <= set(described(kind))


def test_what_has_no_value_is_shown_as_a_comment() -> None:
    text = to_toml(SessionConfig(data=DATA))
    assert "\n# pin_cpu =\n" in text
    assert "\nmax_loss = inf\n" in text
    assert f"\ncooldown_ns = {100_000_000:_}\n" in text
    assert math.isinf(tomllib.loads(text)["strategies"][0]["risk"]["max_loss"])
