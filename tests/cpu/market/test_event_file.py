"""Event files: round trip, foreign and damaged files, merging; hftbacktest reads ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.event_files import WIDE, WRONG_FILES, WRONG_ROWS, make_events
from tickrt.compile.codes import BATCH_END, LOCAL
from tickrt.errors import ConfigError, DataError
from tickrt.market.event_file import instruments_of, load_events, merge_events, save_events
from tickrt.market.instrument import KNOWN
from tickrt.memory.records import EVENT_DTYPE

MASK = np.uint64(BATCH_END)


def marked(events: np.ndarray) -> list[int]:
    return np.flatnonzero(events["ev"] & MASK).tolist()


def test_round_trip(tmp_path: Path) -> None:
    events = make_events()
    events["ev"][2::3] |= MASK  # our own marks are kept as they are
    meta = {"symbol": "BTCUSDT", "instrument": KNOWN["BTCUSDT"].to_dict(), "rows": 60}
    path = save_events(tmp_path / "new" / "folder" / "a.npz", events, meta)
    loaded = load_events(path)
    assert (loaded.data == events).all()
    assert loaded.meta == meta
    assert loaded.instrument == KNOWN["BTCUSDT"]
    assert loaded.path == path
    assert [p.name for p in path.parent.iterdir()] == ["a.npz"]


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_events(tmp_path / "a.npz", make_events(3), {})

    def fail(*args: Any, **kwargs: Any) -> None:
        args[0].write(b"half a file")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="no space"):
        save_events(path, make_events(9), {})
    assert len(load_events(path).data) == 9
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_a_foreign_file_gets_its_batches_marked(tmp_path: Path, suffix: str) -> None:
    events = make_events(4)
    path = tmp_path / f"foreign{suffix}"
    if suffix == ".npz":
        np.savez(path, data=events)
    else:
        np.save(path, events)
    loaded = load_events(path)
    assert marked(loaded.data) == [1, 2, 4, 5, 7, 8, 10, 11]
    assert (loaded.data["ev"] & ~MASK == events["ev"]).all()
    assert loaded.instrument is None
    assert loaded.meta == {}


def test_a_foreign_file_gets_the_contract_that_is_traded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", make_events(2))
    described = save_events(
        tmp_path / "b.npz", make_events(2), {"instrument": KNOWN["ETHUSDT"].to_dict()}
    )
    foreign, own = load_events(tmp_path / "a.npy"), load_events(described)
    files = [foreign, own]
    btc, eth = KNOWN["BTCUSDT"], KNOWN["ETHUSDT"]
    assert instruments_of(files, ["ETHUSDT", "BTCUSDT", "BTCUSDT"]) == (btc, eth)
    assert instruments_of([own], [None]) == (eth,)
    for symbols in ([None], ["ETHUSDT"], ["NOT_KNOWN"], ["BTCUSDT", "BTCUSD_PERP"]):
        with pytest.raises(ConfigError, match=r"a\.npy: .*--symbol, one of BTCUSD_PERP"):
            instruments_of(files, symbols)
    with pytest.raises(ConfigError, match="several such files"):
        instruments_of([foreign, foreign], ["BTCUSDT"])


def test_only_local_events_end_a_batch(tmp_path: Path) -> None:
    events = make_events(2)
    events["ev"][[1, 5]] &= ~np.uint64(LOCAL)
    np.save(tmp_path / "a.npy", events)
    assert marked(load_events(tmp_path / "a.npy").data) == [0, 2, 4]


def test_another_memory_layout_of_the_same_fields_loads(tmp_path: Path) -> None:
    events = make_events(2)
    np.save(tmp_path / "a.npy", events.astype(WIDE))
    loaded = load_events(tmp_path / "a.npy")
    assert loaded.data.dtype == EVENT_DTYPE
    assert (loaded.data["px"] == events["px"]).all()


@pytest.mark.parametrize(
    ("write", "message"),
    WRONG_FILES,
)
def test_a_wrong_file_says_what_and_where(tmp_path: Path, write: Any, message: str) -> None:
    path = tmp_path / "events.npz"
    write(path)
    with pytest.raises(DataError) as caught:
        load_events(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("row", "field", "value", "message"),
    WRONG_ROWS,
)
def test_a_wrong_row_is_named(
    tmp_path: Path, row: int, field: str, value: float, message: str
) -> None:
    events = make_events()
    events[field][row] = value
    np.savez(tmp_path / "a.npz", data=events)
    with pytest.raises(DataError) as caught:
        load_events(tmp_path / "a.npz")
    assert message in str(caught.value)


def test_wrong_rows_are_counted_over_the_whole_file(tmp_path: Path) -> None:
    events = make_events(10_000)
    events["px"][[100, 101, 25_000]] = -1.0
    np.savez(tmp_path / "a.npz", data=events)
    with pytest.raises(DataError, match=r"row 100: px is -1\.0.* \(3 such rows\)"):
        load_events(tmp_path / "a.npz")
    events["ev"][20_000] = 77  # comes before any price, wherever it is
    np.savez(tmp_path / "a.npz", data=events)
    with pytest.raises(DataError, match=r"row 20000: unknown event kind 77 \(1 such rows\)"):
        load_events(tmp_path / "a.npz")


def test_a_file_without_local_events_is_refused(tmp_path: Path) -> None:
    events = make_events()
    events["ev"] &= ~np.uint64(LOCAL)
    np.savez(tmp_path / "a.npz", data=events)
    with pytest.raises(DataError, match="no event carries the LOCAL flag"):
        load_events(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("path", "events", "meta", "message"),
    [
        ("a.npy", make_events(1), {}, "ends in .npz"),
        ("a.npz", np.zeros(3), {}, "EVENT_DTYPE"),
        ("a.npz", make_events(1), {"x": object()}, "meta: expected JSON values"),
        ("a.npz", make_events(1), {"x": float("nan")}, "meta: expected JSON values"),
    ],
)
def test_save_refuses_what_load_would(
    tmp_path: Path, path: str, events: np.ndarray, meta: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        save_events(tmp_path / path, events, meta)
    assert not list(tmp_path.iterdir())


def test_merge_keeps_batches_whole_and_symbols_apart(tmp_path: Path) -> None:
    files = []
    for index, shift in enumerate((0, 10_000_000, 3)):
        np.save(tmp_path / f"{index}.npy", make_events(30, 1_000_000_000 + shift))
        files.append(load_events(tmp_path / f"{index}.npy"))
    merged = merge_events(files)
    assert (np.diff(merged["local_ts"]) >= 0).all()
    for index, file in enumerate(files):
        part = merged[merged["ival"] == index].copy()
        part["ival"] = 0
        assert (part == file.data).all()
    ends = (merged["ev"] & MASK) != 0
    changes = np.flatnonzero(np.diff(merged["ival"]))
    assert ends[changes].all()  # another symbol's turn comes only after a complete batch
    same_time = np.flatnonzero(np.diff(merged["local_ts"][ends]) == 0)
    assert (merged["ival"][ends][same_time] < merged["ival"][ends][same_time + 1]).all()
    assert (merge_events(files[:1]) == files[0].data).all()
    with pytest.raises(ConfigError, match="at least one"):
        merge_events([])


def test_hftbacktest_reads_our_files(tmp_path: Path) -> None:
    hbt = pytest.importorskip("hftbacktest", exc_type=ImportError)
    path = save_events(tmp_path / "ours.npz", make_events(), {"symbol": "BTCUSDT"})
    loaded = load_events(path)
    save_events(path, loaded.data, loaded.meta)  # now with BATCH_END on its events
    assert marked(load_events(path).data)
    asset = (
        hbt.BacktestAsset()
        .data([str(path)])
        .linear_asset(1.0)
        .constant_order_latency(0, 0)
        .risk_adverse_queue_model()
        .no_partial_fill_exchange()
        .trading_value_fee_model(0.0, 0.0)
        .tick_size(0.1)
        .lot_size(0.001)
        .last_trades_capacity(100)
    )
    backtest = hbt.HashMapMarketDepthBacktest([asset])
    trades = 0
    ended = 0
    while not ended:
        ended = backtest.elapse(10_000_000)
        trades += len(backtest.last_trades(0))
        backtest.clear_last_trades(0)
    depth = backtest.depth(0)
    assert (depth.best_bid_tick, depth.best_ask_tick) == (1000, 1001)
    assert depth.best_bid_qty == loaded.data["qty"][-3]
    assert depth.best_ask_qty == loaded.data["qty"][-2]
    assert trades == 60
    backtest.close()
