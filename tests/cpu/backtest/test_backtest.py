"""Backtests on markets small enough to say beforehand what must happen. Times are in ms.

Every batch is received 1 ms after the exchange made it. The engine answers "up" to every row once
four rows are there: a taker decides first at the batch of 30 ms, received at 31 ms.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import sessions
from tickrt.backtest.latency import InferenceLatency
from tickrt.backtest.run import Backtest, run_backtest
from tickrt.compile.codes import (
    BATCH_END,
    BUY,
    CANCEL,
    DEPTH,
    EXCH,
    LOCAL,
    NEW,
    SELL,
    SNAPSHOT,
    TRADE,
)
from tickrt.config import SessionConfig, StrategySettings
from tickrt.errors import ConfigError, DataError
from tickrt.execution.gateways.hftbacktest import CALLS, VenueConfig
from tickrt.execution.gateways.hftbacktest_kernels import CALLS_USED
from tickrt.execution.state_machine import OrderState
from tickrt.market.event_file import save_events
from tickrt.market.instrument import KNOWN
from tickrt.memory.records import EVENT_DTYPE
from tickrt.report.report import write_report
from tickrt.runtime.results import counter
from tickrt.strategy.params import MakerParams, TakerParams

MS = 1_000_000
START = 1_700_000_000_000_000_000
LOT = 0.001
BID, ASK = 600_000, 600_002
TAKER = TakerParams(qty_lots=2, max_position_lots=2, through_ticks=20, max_spread_ticks=50)
MAKER = MakerParams(
    qty_lots=2, max_position_lots=2, signal_skew_ticks=0.0, position_skew_ticks=0.0,
    requote_ticks=0, min_rest_ns=0,
)  # fmt: skip

Change = tuple[int, int, float]  # kind and side, tick, lots


def tape(path: Path, changes: dict[int, Sequence[Change]], batches: int = 20) -> Path:
    """A BTCUSDT file with a batch each 10 ms; bid 5 lots, ask 4, then 3 and 50 lots behind it."""
    book = [
        (SNAPSHOT | BUY, BID, 5), (SNAPSHOT | BUY, BID - 1, 9), (SNAPSHOT | SELL, ASK, 4),
        (SNAPSHOT | SELL, ASK + 1, 3), (SNAPSHOT | SELL, ASK + 4, 50),
    ]  # fmt: skip
    rows: list[tuple[Any, ...]] = []
    for b in range(batches):
        # A level far from the market changes in each batch.
        batch = [*(book if b == 0 else []), (DEPTH | BUY, BID - 50, 1 + b), *changes.get(b, [])]
        for i, (ev, tick, lots) in enumerate(batch):
            flags = EXCH | LOCAL | (BATCH_END if i == len(batch) - 1 else 0)
            made = START + b * 10 * MS
            rows.append((ev | flags, made, made + MS, tick * 0.1, lots * LOT, 0, 0, 0.0))
    meta = {"instrument": KNOWN["BTCUSDT"].to_dict()}
    return save_events(path, np.array(rows, EVENT_DTYPE), meta)


def config(folder: Path, data: Path, *policies: TakerParams | MakerParams) -> SessionConfig:
    sessions.tiny_spec(folder)
    spec = str(folder / "tiny4.toml")
    settings = tuple(
        StrategySettings(name=f"s{i}", spec=spec, policy=policy)
        for i, policy in enumerate(policies)
    )
    return SessionConfig(data=(data,), backend="null", strategies=settings)


def play(
    folder: Path,
    changes: dict[int, Sequence[Change]],
    policy: TakerParams | MakerParams = TAKER,
    *,
    charge_ms: float = 0.0,
    **venue: Any,
) -> Backtest:
    """A finished backtest; order latency 2 ms each way."""
    data = tape(folder / "market.npz", changes)
    latency = InferenceLatency.constant(int(charge_ms * MS))
    made = Backtest(config(folder, data, policy), VenueConfig(**venue), latency)
    made.run()
    return made


def fills(made: Backtest) -> list[tuple[float, int, int, int]]:
    """(ms when we learnt of it, tick, lots, maker)."""
    return [
        ((int(f["ts_ns"]) - START) / MS, int(f["px_tick"]), int(f["qty_lots"]), int(f["maker"]))
        for f in made.fills()
    ]


def states(made: Backtest) -> list[OrderState]:
    orders = made.assembly.loop.orders
    return [OrderState(int(s)) for s in orders.state[0, : orders.sent[0]]]


ASK_GONE = {6: [(DEPTH | SELL, ASK, 0.0), (DEPTH | SELL, ASK + 1, 0.0)]}  # at 60 ms


@pytest.mark.parametrize(
    ("charge_ms", "px", "seen_ms"),
    [
        (0.0, ASK, 41.0),  # decided at 31, there at 33, answered at 35, read with the next batch
        (26.9, ASK, 71.0),  # decided at 57.9, at the venue at 59.9: before the ask goes
        (27.1, ASK + 4, 71.0),
    ],
)
def test_inference_time_decides_which_market_the_order_meets(
    tmp_path: Path, charge_ms: float, px: int, seen_ms: float
) -> None:
    with play(tmp_path, ASK_GONE, charge_ms=charge_ms) as made:
        ((when, tick, lots, maker),) = fills(made)
        assert (tick, lots, maker) == (px, 2, 0)
        assert when >= seen_ms
        intents = made.intents()
        assert list(intents["kind"]) == [NEW]
        assert intents["ts_ns"][0] == START + 31 * MS


def test_order_latency_counts_too(tmp_path: Path) -> None:
    with play(tmp_path, ASK_GONE, entry_latency_ns=30 * MS) as made:
        assert [tick for _, tick, _, _ in fills(made)] == [ASK + 4]


def test_a_slow_engine_falls_behind(tmp_path: Path) -> None:
    """Inferences of 25 ms begin at 31, 56 … 181 ms: the data ends at 191 ms."""
    with play(tmp_path, {}, charge_ms=25.0) as made:
        assert list(made.charged_ns()) == [25 * MS] * 7
        assert made.clock.state[0] == START + (31 + 7 * 25) * MS


def test_charged_times_are_used_in_turn(tmp_path: Path) -> None:
    data = tape(tmp_path / "m.npz", {})
    latency = InferenceLatency.per_row([MS, 2 * MS, 3 * MS])
    with Backtest(config(tmp_path, data, TAKER), latency=latency) as made:
        made.run()
        assert list(made.charged_ns()[:5]) == [MS, 2 * MS, 3 * MS, MS, 2 * MS]


def test_measured_times_are_charged_and_noted(tmp_path: Path) -> None:
    data = tape(tmp_path / "m.npz", {})
    with Backtest(config(tmp_path, data, TAKER)) as made:
        report = made.run()
        assert len(made.charged_ns()) == 16  # the batch that ends the data is not decided on
        assert all(made.charged_ns() > 0)
        assert report.config["inference_latency"] == "measured in this backtest"


def sells(lots: float, tick: int = BID) -> Change:
    return (TRADE | SELL, tick, lots)


def test_a_quote_waits_for_the_queue_before_it(tmp_path: Path) -> None:
    """Quoted at 31 ms behind 5 lots; trades of 3, 3 and 9 lots at 60, 80 and 100 ms."""
    changes = {6: [sells(3)], 8: [sells(3)], 10: [sells(9)]}
    with play(tmp_path, changes, MAKER) as made:
        assert [fill[1:] for fill in fills(made)] == [(BID, 1, 1), (BID, 1, 1)]
        assert [fill[0] for fill in fills(made)] == [91.0, 111.0]
        assert made.assembly.loop.strategies.position[0] == 2


def test_the_whole_exchange_fills_at_once(tmp_path: Path) -> None:
    changes = {6: [sells(3)], 8: [sells(3)]}
    with play(tmp_path, changes, MAKER, exchange="whole") as made:
        assert [fill[1:] for fill in fills(made)] == [(BID, 2, 1)]


def test_a_taker_that_finds_too_little_keeps_what_it_got(tmp_path: Path) -> None:
    taker = TakerParams(qty_lots=9, max_position_lots=9, through_ticks=1)
    with play(tmp_path, {}, taker) as made:
        assert fills(made)[0][1:] == (ASK + 1, 7, 0)  # 4 + 3 lots, booked at the last price
        assert states(made)[0] == OrderState.EXPIRED


def test_an_exact_fill_does_not_stop_the_exchange(tmp_path: Path) -> None:
    """hftbacktest's issue #312: a fill of exactly what is left, then another trade there."""
    changes = {6: [sells(7)], 7: [sells(1)], 8: [sells(1)]}
    with play(tmp_path, changes, MAKER) as made:
        assert [fill[1:] for fill in fills(made)] == [(BID, 2, 1)]


def test_a_cancel_waits_for_the_answer_to_its_order(tmp_path: Path) -> None:
    """Answers take 30 ms; the market moves up 10 ms after the quotes were sent."""
    up = [
        (DEPTH | BUY, BID + 5, 5.0), (DEPTH | SELL, ASK, 0.0), (DEPTH | SELL, ASK + 1, 0.0),
        (DEPTH | SELL, ASK + 4, 0.0), (DEPTH | SELL, ASK + 7, 5.0),
    ]  # fmt: skip
    latency = {"entry_latency_ns": 15 * MS, "response_latency_ns": 15 * MS}
    with play(tmp_path, {4: up}, MAKER, **latency) as made:
        intents = made.intents()
        cancelled = intents["order_id"][intents["kind"] == CANCEL]
        assert set(cancelled) >= {1, 2}
        assert states(made)[0] == OrderState.CANCELLED
        assert states(made)[1] == OrderState.EXPIRED  # the market had moved over it
        assert made.venue.refused == 0  # the venue refused nothing
        assert made.assembly.loop.orders.live[0] == 2


def test_a_post_only_quote_that_would_take_when_it_arrives_expires(tmp_path: Path) -> None:
    """Decided at 31 ms, at the venue at 51 ms; the market falls at 50 ms."""
    down = [(DEPTH | BUY, BID, 0.0), (DEPTH | SELL, BID, 5.0)]
    with play(tmp_path, {5: down}, MAKER, entry_latency_ns=20 * MS) as made:
        assert states(made)[0] == OrderState.EXPIRED
        assert fills(made) == []


@pytest.mark.parametrize("symbol", ["BTCUSDT", "BTCUSD_PERP"])
def test_our_account_is_the_venues(tmp_path: Path, symbol: str) -> None:
    from hftbacktest import binding
    from hftbacktest.types import state_values_dtype

    data = sessions.market_file(tmp_path / "m.npz", 1500, instrument=KNOWN[symbol])
    maker = MakerParams(qty_lots=1, max_position_lots=5, signal_skew_ticks=0.0, min_rest_ns=0)
    venue = VenueConfig(exchange="whole")
    free = InferenceLatency.constant(1000)
    with Backtest(config(tmp_path, data, maker), venue, free) as made:
        report = made.run()
        address = binding.hashmapbt_state_values(int(made.venue.state.pointer[0]), 0)
        raw = ctypes.string_at(address, state_values_dtype.itemsize)
        theirs = np.frombuffer(raw, state_values_dtype)[0]
        st = made.assembly.loop.strategies
        assert report.fills > 50
        assert theirs["position"] == pytest.approx(st.position[0] * KNOWN[symbol].lot_size)
        sign = -1 if KNOWN[symbol].inverse else 1  # hftbacktest's inverse balance is negated
        assert theirs["balance"] == pytest.approx(sign * st.cash[0])
        assert theirs["fee"] == pytest.approx(st.fees[0])
        assert theirs["trading_value"] == pytest.approx(st.turnover[0])
        assert theirs["num_trades"] == report.fills


def test_marks_are_taken_each_second_and_at_the_end(tmp_path: Path) -> None:
    data = sessions.market_file(tmp_path / "m.npz", 351)  # 3.5 s
    with Backtest(config(tmp_path, data, TAKER), latency=InferenceLatency.constant(0)) as made:
        made.run()
        marks = made.marks()
        assert marks.shape == (5, 4)
        assert np.all(marks[0, :3] == 0)
        decisions = made.signals()
        at = decisions["ts_ns"] <= made.events["local_ts"][0] + 2_000_000_000
        assert marks[2, 3] == pytest.approx(0.05 * decisions["mid2_tick"][at][-1])


def test_several_strategies_have_accounts_of_their_own(tmp_path: Path) -> None:
    data = sessions.market_file(tmp_path / "m.npz", 400)
    both = config(tmp_path, data, TAKER, MAKER)
    free = InferenceLatency.constant(0)
    report = run_backtest(both, latency=free)
    alone = run_backtest(config(tmp_path, data, MAKER), latency=free)
    figures = report.backtest_by_strategy
    assert [f.strategy for f in figures] == ["s0", "s1"]
    assert figures[1].pnl_net == alone.backtest.pnl_net
    assert figures[1].trades == alone.backtest.trades
    assert figures[0].trades > 0


def test_it_runs_once(tmp_path: Path) -> None:
    data = sessions.market_file(tmp_path / "m.npz", 100)
    with Backtest(config(tmp_path, data, TAKER)) as test:
        rows = test.run().rows
        with pytest.raises(ConfigError, match="files are played once: make a new session"):
            test.run()
        assert counter(test.assembly, "rows") == rows > 0


def test_the_report_can_be_written(tmp_path: Path) -> None:
    data = sessions.market_file(tmp_path / "m.npz", 400)
    seen: list[tuple[int, int]] = []
    report = run_backtest(
        config(tmp_path, data, TAKER), progress=lambda done, of: seen.append((done, of))
    )
    assert report.kind == "backtest"
    assert report.backtest.currency == "quote"
    assert len(report.series[0].equity_gross) == len(report.series[0].equity)
    assert seen[-1][0] == seen[-1][1] == len(np.load(data)["data"])
    write_report(report, tmp_path / "out")


def digest(folder: Path) -> str:
    """SHA-256 over everything that a backtest with both policies decided and earned."""
    data = sessions.market_file(folder / "m.npz", 600, clear_at=300)
    latency = InferenceLatency.resampled([100_000, 3_000_000, 12_000_000], seed=5)
    with Backtest(config(folder, data, TAKER, MAKER), VenueConfig(), latency) as made:
        made.run()
        parts = (made.intents(), made.fills(), made.marks(0), made.marks(1), made.charged_ns())
        assert all(len(part) for part in parts)
        return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def test_two_backtests_are_equal_byte_by_byte_and_plain_python_agrees(tmp_path: Path) -> None:
    first = digest(tmp_path)
    assert digest(tmp_path) == first
    script = (
        "import sys; from pathlib import Path; import test_backtest as t; "
        "print(t.digest(Path(sys.argv[1])))"
    )
    here = Path(__file__).resolve().parent
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env={
            **os.environ,
            "NUMBA_DISABLE_JIT": "1",
            "PYTHONPATH": os.pathsep.join([str(here), os.environ["PYTHONPATH"]]),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == first


def test_kernels_number_calls_as_they_are_declared() -> None:
    assert tuple(range(len(CALLS))) == CALLS_USED


def test_a_file_without_an_exchange_side_is_refused(tmp_path: Path) -> None:
    events = sessions.market(10)
    events["ev"] &= ~np.uint64(EXCH)
    meta = {"instrument": KNOWN["BTCUSDT"].to_dict()}
    data = save_events(tmp_path / "local.npz", events, meta)
    with pytest.raises(DataError, match="no event carries the EXCH flag"):
        Backtest(config(tmp_path, data, TAKER))


def test_a_file_without_an_instrument_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "foreign.npz"
    np.savez(data, data=sessions.market(10))
    with pytest.raises(ConfigError, match="which instrument"):
        Backtest(config(tmp_path, data, TAKER))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queue_model": "fifo"}, "venue.queue_model: expected risk_adverse"),
        ({"exchange": "some"}, "venue.exchange"),
        ({"queue_power": 0.0}, "venue.queue_power"),
        ({"entry_latency_ns": -1}, "venue.entry_latency_ns: expected 0 … 1 h"),
    ],
)
def test_wrong_venues_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        VenueConfig(**change)


def test_a_missing_latency_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        VenueConfig(latency_file=tmp_path / "none.npz")
