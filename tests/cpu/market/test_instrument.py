"""Instruments: checked when made, the same after a trip through JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tickrt.errors import ConfigError
from tickrt.market.instrument import KNOWN, Instrument


@pytest.mark.parametrize("symbol", sorted(KNOWN))
def test_known_instruments_survive_json(symbol: str) -> None:
    known = KNOWN[symbol]
    assert known.symbol == symbol
    assert Instrument.from_dict(json.loads(json.dumps(known.to_dict()))) == known


def test_the_perpetuals_in_coin_are_inverse() -> None:
    assert KNOWN["BTCUSD_PERP"].inverse
    assert KNOWN["BTCUSD_PERP"].contract_size == 100.0
    assert KNOWN["ETHUSD_PERP"].contract_size == 10.0
    assert not KNOWN["BTCUSDT"].inverse


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tick_size": 0.0}, "instrument.tick_size: expected a number above 0, got 0.0"),
        ({"lot_size": -1.0}, "instrument.lot_size: expected a number above 0"),
        ({"tick_size": float("nan")}, "instrument.tick_size: expected a finite number, got nan"),
        ({"tick_size": "0.1"}, "instrument.tick_size: expected a finite number, got '0.1'"),
        ({"contract": "quanto"}, "expected 'linear' or 'inverse', got 'quanto'"),
        ({"taker_fee": 5.0}, "instrument.taker_fee: expected a share of the traded value"),
        ({"symbol": ""}, "instrument.symbol: expected a name, got ''"),
        ({"colour": "red"}, "instrument.colour: unknown field; expected some of symbol"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Instrument.from_dict(KNOWN["BTCUSDT"].to_dict() | change)
    assert message in str(caught.value)


def test_a_missing_field_is_named() -> None:
    with pytest.raises(ConfigError, match=r"instrument\.lot_size: missing"):
        Instrument.from_dict({"symbol": "X", "tick_size": 0.1})
