"""The Arrow tables of a run say what its records and its report say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from helpers.sessions import BTC, config, market_file, settings
from tickrt.backtest.latency import InferenceLatency
from tickrt.backtest.run import Backtest
from tickrt.config import SessionConfig
from tickrt.errors import ConfigError
from tickrt.risk.limits import RiskLimits
from tickrt.runtime.session import Session
from tickrt.strategy.params import MakerParams


@pytest.fixture
def made(tmp_path: Path) -> SessionConfig:
    tight = settings(tmp_path, name="tight", risk=RiskLimits(max_position_lots=1))
    maker = settings(tmp_path, name="maker", policy=MakerParams())
    return config(tmp_path, market_file(tmp_path / "m.npz", 400), tight, maker)


def test_tables_and_report_agree(made: SessionConfig) -> None:
    with Session(made) as session:
        report, tables = session.run(), session.tables
        fills, orders, signals = tables.fills, tables.orders, tables.signals
        assert len(fills) == report.fills == len(report.fill_list) > 0
        rows = fills.select(["px", "qty", "fee", "maker", "side"]).to_pylist()
        for row, shown in zip(rows, report.fill_list, strict=True):
            assert row == {name: getattr(shown, name) for name in row}
        passed = orders.filter(pc.is_null(orders["refused_by"]))
        assert len(passed) == report.orders
        assert passed["tick_to_order_us"].null_count == 0
        refused = pc.sum(pc.is_valid(orders["refused_by"])).as_py()
        assert refused == sum(report.risk_rejects.values()) > 0
        assert len(signals) == 2 * report.signals
        assert set(signals["strategy"].to_pylist()) == {"tight", "maker"}
        stage = tables.latency.filter(pc.equal(tables.latency["stage"], "tick_to_order"))
        assert stage["count"].to_pylist() == [report.orders + report.cancels]


def test_what_became_of_an_order(made: SessionConfig) -> None:
    with Session(made) as session:
        session.run()
        orders, fills = session.tables.orders, session.tables.fills
        table = session.assembly.loop.orders
        known = {
            int(order): state
            for row, states in zip(table.order_id, table.state, strict=True)
            for order, state in zip(row, states, strict=True)
            if order
        }
    states = dict(zip(orders["order_id"].to_pylist(), orders["state"].to_pylist(), strict=True))
    assert {"filled", "cancelled", "not sent"} <= set(states.values())
    from tickrt.execution.state_machine import OrderState

    names = {order: OrderState(int(state)).name.lower() for order, state in known.items()}
    names = {order: "working" if n == "pending_cancel" else n for order, n in names.items()}
    assert all(states[order] == name for order, name in names.items())
    total = pc.sum(orders["filled"]).as_py()
    assert total == pytest.approx(pc.sum(fills["qty"]).as_py())


def test_prices_are_in_the_instruments_units(made: SessionConfig) -> None:
    free = InferenceLatency.constant(1000)
    with Backtest(made, latency=free) as test:
        test.run()
        fills = test.tables.fills
        records = test.fills()
    np.testing.assert_allclose(fills["px"].to_numpy(), records["px_tick"] * BTC.tick_size)
    np.testing.assert_allclose(fills["position"].to_numpy(), records["position"] * BTC.lot_size)
    assert fills["time"].to_numpy()[0] == records["ts_ns"][0].astype("datetime64[ns]")
    assert np.all(np.abs(fills["mid"].to_numpy() / fills["px"].to_numpy() - 1) < 0.01)


def test_what_is_gone_or_was_not_kept_says_so(made: SessionConfig) -> None:
    with Session(made, keep_records=False) as session:
        session.run()
        with pytest.raises(ConfigError, match="keep_records=True"):
            _ = session.tables.fills
        with pytest.raises(ConfigError, match="files are played once"):
            session.run()
    with Session(made) as session:
        session.run()
        tables = session.tables
    with pytest.raises(ConfigError, match="the session is closed"):
        _ = tables.fills
