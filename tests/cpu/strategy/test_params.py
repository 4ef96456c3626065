"""The policies' parameters are checked, and laid out as the kernels read them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from helpers.desk import INVERSE, LINEAR
from tickrt.compile import codes
from tickrt.errors import ConfigError
from tickrt.memory.records import DTYPES, EVENT_DTYPE, RECORD_DTYPE
from tickrt.risk import kernels as risk_kernels
from tickrt.risk.limits import RiskLimits
from tickrt.strategy import kernels
from tickrt.strategy.params import FALLBACK_AT, FallbackParams, MakerParams, TakerParams
from tickrt.strategy.state import StrategyConfig, new_strategies


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (TakerParams, {"enter_threshold": 0.0}, "TakerParams.enter_threshold: expected more than"),
        (TakerParams, {"enter_threshold": 1.5}, "enter_threshold"),
        (TakerParams, {"enter_threshold": float("nan")}, "enter_threshold: expected a finite"),
        (TakerParams, {"exit_threshold": 0.9}, "TakerParams.exit_threshold: expected -1…0.6"),
        (TakerParams, {"qty_lots": 0}, "TakerParams.qty_lots: expected at least 1, got 0"),
        (TakerParams, {"qty_lots": 1.5}, "whole lots"),
        (TakerParams, {"qty_lots": 11}, "max_position_lots: expected at least qty_lots"),
        (TakerParams, {"cooldown_ns": -1}, "cooldown_ns"),
        (TakerParams, {"qty_lots": True}, "qty_lots: expected a finite number, got True"),
        (MakerParams, {"half_spread_ticks": 0.0}, "half_spread_ticks: expected more than 0"),
        (MakerParams, {"signal_skew_ticks": -1.0}, "signal_skew_ticks"),
        (MakerParams, {"requote_ticks": "2"}, "requote_ticks: expected a finite number, got '2'"),
        (FallbackParams, {"imbalance_weight": 0.7}, "weights that add up"),
        (FallbackParams, {"microprice_weight": -0.1}, "microprice_weight: expected 0…1"),
    ],
)
def test_wrong_parameters_are_named(kind: Any, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**change)


def test_a_row_holds_the_fields_in_order_then_the_fallback() -> None:
    row = TakerParams(qty_lots=3).row(FallbackParams(0.25, 0.5))
    assert row.shape == (16,)
    assert list(row[:7]) == [0.6, 0.2, 3.0, 10.0, 1e8, 10.0, 0.0]
    assert list(row[FALLBACK_AT : FALLBACK_AT + 2]) == [0.25, 0.5]


@pytest.mark.parametrize(("kind", "prefix"), [(TakerParams, "T_"), (MakerParams, "M_")])
def test_kernels_number_the_fields_as_they_are_declared(kind: Any, prefix: str) -> None:
    numbers = [value for name, value in vars(kernels).items() if name.startswith(prefix)]
    assert sorted(numbers) == list(range(len(fields(kind))))
    assert len(numbers) <= FALLBACK_AT
    assert kernels.F_IMBALANCE == FALLBACK_AT


def test_kernels_number_limits_as_they_are_declared() -> None:
    limits = [value for name, value in vars(risk_kernels).items() if name.startswith("L_")]
    assert sorted(limits) == list(range(len(fields(RiskLimits)) - 1))


def test_records_have_no_hidden_bytes() -> None:
    for dtype in (EVENT_DTYPE, RECORD_DTYPE, *DTYPES.values()):
        assert dtype.itemsize == 64
        assert sum(dtype[name].itemsize for name in dtype.names or ()) == 64


def test_new_strategies_know_their_instrument_and_own_ids() -> None:
    st = new_strategies([StrategyConfig(LINEAR), StrategyConfig(INVERSE, symbol=1, engine=2)])
    assert list(st.next_id) == [1, (1 << 40) + 1]
    assert list(st.symbol) == [0, 1]
    assert list(st.engine) == [0, 2]
    assert st.instrument[1, codes.TICK] == 0.1
    assert st.instrument[1, codes.INVERSE] == 1.0
    assert st.instrument[1, codes.CONTRACT] == 100.0
    assert np.all(st.position == 0)


def test_no_strategy_is_an_error() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        new_strategies([])
    with pytest.raises(ConfigError, match="indices from 0"):
        new_strategies([StrategyConfig(LINEAR, symbol=-1)])


@pytest.mark.parametrize("huge", [(1 << 53) + 1, 1 << 63, 10**20])
def test_numbers_that_a_kernel_cannot_hold_are_refused(huge: int) -> None:
    with pytest.raises(ConfigError, match="at most 9,007,199,254,740,992"):
        TakerParams(qty_lots=huge, max_position_lots=huge)
    with pytest.raises(ConfigError, match="max_order_lots: expected at most"):
        RiskLimits(max_order_lots=huge)
