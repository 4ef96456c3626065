"""`describe` and `verify_best` on synthetic files, and all recorded captures through both."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tickrt.compile.jit import JIT
from tickrt.errors import DataError
from tickrt.feeds.captures.convert import convert
from tickrt.feeds.captures.describe import describe
from tickrt.feeds.captures.replay import guess_tick_size, replay_book
from tickrt.feeds.captures.verify import read_tickers, verify_best
from tickrt.market.event_file import load_events, save_events


@pytest.fixture
def files(whole_session, tmp_path):
    """The converted session and its capture."""
    whole_session.ticker("99.9", "100.1")
    capture, out = whole_session.write(tmp_path / "a.gz"), tmp_path / "a.npz"
    convert(capture, out)
    return out, capture


def test_describe(files):
    info = describe(files[0])
    json.dumps(info, allow_nan=False)
    assert (info["symbol"], info["rows"], info["events"], info["batches"]) == ("BTCUSDT", 10, 10, 4)
    assert info["kinds"] == {
        "depth": 4,
        "trade": 1,
        "clear": 1,
        "snapshot": 4,
        "bbo": 0,
        "other": 0,
    }
    assert info["time"]["first_utc"] == "2024-08-08T23:54:16Z"
    assert info["time"]["span_s"] == pytest.approx(0.04)
    price = info["price"]
    assert (price["lowest_bid"], price["highest_ask"]) == (99.9, 100.2)
    assert (price["first_mid"], price["last_mid"]) == (100.1, 100.0)
    assert (price["lowest_trade"], price["median_spread_ticks"]) == (100.1, 2.0)
    assert not price["tick_size_guessed"]
    assert info["levels"]["bid"] == {"min": 1, "max": 2, "last": 1}
    assert info["book"]["crossed_batches"] == info["book"]["refused_events"] == 0
    assert info["rates"]["events_per_s"] == pytest.approx(250)
    assert info["rates"]["peak_1s"] == 10
    assert info["gaps"] == []
    assert info["dropped_messages"] == 0


def test_describe_finds_crossed_batches(session, tmp_path):
    session.snapshot()
    session.diff([["100.2", "1"]], [])
    session.diff([["100.2", "0"]], [])
    convert(session.write(tmp_path / "a.gz"), tmp_path / "a.npz")
    book = describe(tmp_path / "a.npz")["book"]
    assert (book["crossed_batches"], book["first_crossed_row"]) == (1, 5)


def test_describe_a_foreign_file(files, tmp_path):
    data = load_events(files[0]).data
    np.savez_compressed(tmp_path / "foreign.npz", data=data)
    info = describe(tmp_path / "foreign.npz")
    assert (info["symbol"], info["gaps"], info["dropped_events"]) == (None, None, None)
    assert info["price"]["tick_size_guessed"]
    assert info["price"]["tick_size"] == 0.1
    assert info["price"]["lowest_bid"] == 99.9


def test_describe_a_file_that_is_none(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"")
    with pytest.raises(DataError):
        describe(tmp_path / "x.npz")


def test_tick_size_from_prices(files):
    data = load_events(files[0]).data
    for scale, tick_size in ((1.0, 0.1), (0.01, 0.001), (10.0, 1.0), (1 / 3, 1e-8)):
        scaled = data.copy()
        scaled["px"] *= scale
        assert guess_tick_size(scaled) == pytest.approx(tick_size)


def test_replay_without_compilation(files):
    code = (
        "import json, sys; from tickrt.feeds.captures.describe import describe\n"
        "print(json.dumps(describe(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(files[0])],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1" if JIT else "0"},
        capture_output=True,
        check=True,
        text=True,
    )
    assert json.loads(done.stdout) == describe(files[0])


def test_verify(files):
    result = verify_best(*files)
    assert (result["updates"], result["compared"], result["equal"]) == (3, 2, 2)  # no ticker yet
    assert result["share"] == 1.0
    assert result["mismatches"] == []


def test_verify_finds_a_wrong_book(files, tmp_path):
    out, capture = files
    file = load_events(out)
    wrong = file.data.copy()
    wrong["px"][-3] = 100.2  # the new best ask
    save_events(tmp_path / "wrong.npz", wrong, file.meta)
    result = verify_best(tmp_path / "wrong.npz", capture)
    assert result["equal"] < result["compared"]
    assert result["mismatches"][0]["ticker_ticks"] == [999, 1001]


def test_verify_needs_update_ids_and_tickers(files, session, tmp_path):
    out, capture = files
    file = load_events(out)
    bare = file.data.copy()
    bare["order_id"] = 0
    save_events(tmp_path / "bare.npz", bare, file.meta)
    with pytest.raises(DataError, match="no update ids"):
        verify_best(tmp_path / "bare.npz", capture)
    session.trade()
    with pytest.raises(DataError, match="no bookTicker of BTCUSDT"):
        verify_best(out, session.write(tmp_path / "b.gz"))
    session.ticker(u="x")
    with pytest.raises(DataError, match=r"b\.gz:2: malformed bookTicker"):
        verify_best(out, session.write(tmp_path / "b.gz"))


def test_tickers_are_sorted_by_update(session, tmp_path):
    session.ticker(u=7)
    session.ticker(u=5, s="ETHUSDT")
    session.ticker(u=6)
    tickers = read_tickers(session.write(tmp_path / "a.gz"), "BTCUSDT")
    assert tickers.update.tolist() == [6, 7]
    assert tickers.px.tolist() == [[100.0, 100.2]] * 2
    assert tickers.qty.tolist() == [[1.5, 2.5]] * 2


BINANCE = {
    "BTCUSD_PERP": ["binance_cm/btcusd_perp_20240808.gz", "binance_cm/btcusd_perp_20240809.gz"],
    "ETHUSD_PERP": ["binance_cm/ethusd_perp_20240808.gz", "binance_cm/ethusd_perp_20240809.gz"],
    "BTCUSDT": ["binance_usdm/btcusdt_20240808.gz"],
    "ETHUSDT": ["binance_usdm/ethusdt_20240808.gz"],
}


@pytest.mark.data
@pytest.mark.parametrize("symbol", BINANCE)
def test_recorded_binance_captures(market_data, tmp_path, symbol):
    captures = [market_data / name for name in BINANCE[symbol]]
    out = tmp_path / "events.npz"
    summary = convert(captures, out)
    assert summary["symbol"] == symbol
    assert summary["messages"]["gaps"] == summary["messages"]["stale"] == 0
    assert summary["clock"]["shift_ns"] > 1_000_000_000  # the recorder was 1.27 s behind
    result = verify_best(out, captures)
    assert result["compared"] == result["updates"] > 6000
    assert result["share"] >= 0.999
    assert result["qty_equal"] == result["equal"]
    assert result["crossed_batches"] == result["refused_events"] == 0
    replay = replay_book(load_events(out).data, summary["instrument"]["tick_size"])
    assert replay.two_sided.all()
    assert min(replay.bid_levels.min(), replay.ask_levels.min()) >= 860


@pytest.mark.data
def test_recorded_gdax_session(market_data, tmp_path):
    names = ["snapshot_asks", "snapshot_bids", *(f"l2update_15min_{i}" for i in range(1, 5))]
    out = tmp_path / "events.npz"
    summary = convert([market_data / "gdax" / f"{name}.csv.gz" for name in names], out)
    assert summary["messages"]["snapshot_levels"] == 13_741 + 14_078
    assert summary["messages"]["updates"] == 193_848
    info = describe(out)
    assert info["book"]["crossed_batches"] == info["book"]["refused_events"] == 0
    assert info["book"]["one_sided_batches"] == 0
    assert info["levels"]["ask"]["min"] > 13_000
