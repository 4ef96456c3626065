"""On the recorded market a split model gives the whole model's signals, and the same orders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tickrt.compile.codes import BATCH_END, LOCAL
from tickrt.config import SessionConfig, StrategySettings
from tickrt.feeds.captures.convert import convert
from tickrt.market.event_file import load_events, save_events
from tickrt.runtime.session import Session
from tickrt.strategy.params import MakerParams, TakerParams

BATCHES = 2500


@pytest.fixture(scope="module")
def capture(market_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first `BATCHES` messages of the BTC capture as an event file."""
    folder = tmp_path_factory.mktemp("capture")
    convert([market_data / "binance_cm" / "btcusd_perp_20240808.gz"], folder / "whole.npz")
    file = load_events(folder / "whole.npz")
    last = np.flatnonzero((file.data["ev"] & (LOCAL | BATCH_END)) == (LOCAL | BATCH_END))[BATCHES]
    return save_events(folder / "part.npz", file.data[: last + 1], file.meta)


@pytest.mark.data
@pytest.mark.parametrize("model", ["seed_lstm", "light_lstm"])
def test_signals_to_tolerance_and_identical_orders(model: str, capture: Path) -> None:
    strategies = (
        StrategySettings(name="taker", model=model, policy=TakerParams(enter_threshold=0.3)),
        StrategySettings(name="maker", model=model, policy=MakerParams()),
    )
    signals, orders = [], []
    for split in (True, False):
        config = SessionConfig(data=(capture,), strategies=strategies, split=split)
        with Session(config) as session:
            report = session.run()
            done = session.signals()
            signals.append(np.stack([done[name] for name in ("p_down", "p_flat", "p_up")]))
            intents = session.intents()
            intents["signal"] = 0.0
            orders.append(intents.tobytes())
            assert report.orders > 20
            assert report.faults == 0
            assert (report.engine.split is not None) is split
    np.testing.assert_allclose(signals[0], signals[1], rtol=0, atol=2e-6)
    assert orders[0] == orders[1]
