"""`features`: rows that are the loop's, labels, tables, torch windows, what is refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from helpers.sessions import BTC, config, market, market_file, settings, tiny_spec
from tickrt.compile.codes import BATCH_END
from tickrt.errors import ConfigError, DataError, SpecError
from tickrt.feature.rows import Features, features, make_labels
from tickrt.feature.streams import window
from tickrt.market.event_file import load_events, save_events
from tickrt.runtime.session import Session

MS = 1_000_000
HORIZON = 50 * MS


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Features:
    """Rows of the tiny spec with a reset in the middle."""
    folder = tmp_path_factory.mktemp("rows")
    data = market_file(folder / "a.npz", 400, clear_at=150)
    return features(data, tiny_spec(folder), horizon_ns=HORIZON)


@pytest.mark.parametrize("spec", ["tiny", "light", "l2_100x100"])
@pytest.mark.parametrize("batches", [170, 301])
def test_rows_are_those_that_the_loop_gives_to_an_engine(
    spec: str, batches: int, tmp_path: Path
) -> None:
    chosen = str(tiny_spec(tmp_path).path) if spec == "tiny" else spec
    data = market_file(tmp_path / "a.npz", batches, clear_at=20)
    one = config(tmp_path, data, settings(tmp_path, spec=chosen), backend="null")
    with Session(one) as session:
        session.run()
        streams = session.assembly.loop.streams
        expected = window(streams, 0).copy()
        count = int(streams.seq[0])
    got = features(data, chosen)
    assert len(got) == count
    assert got.complete[-1]
    assert got.rows[-len(expected) :].tobytes() == expected.tobytes()


def test_a_file_its_path_and_its_events_are_the_same(tmp_path: Path) -> None:
    spec, path = tiny_spec(tmp_path), market_file(tmp_path / "a.npz", 60)
    file = load_events(path)
    unmarked = file.data.copy()
    unmarked["ev"] &= ~np.uint64(BATCH_END)
    read_only = file.data.copy()
    read_only.setflags(write=False)
    whole = features(path, spec.path or "")
    others = [
        features(file, spec),
        features(file.data, spec, instrument=BTC),
        features(read_only, spec, instrument="BTCUSDT"),
        features(unmarked, spec, instrument="BTCUSDT"),
    ]
    for other in others:
        assert other.rows.tobytes() == whole.rows.tobytes()
        assert other.symbol == whole.symbol == "BTCUSDT"
    assert not (unmarked["ev"] & np.uint64(BATCH_END)).any()  # the caller's array stays as it is


def test_prices_times_and_completeness(made: Features) -> None:
    events = market(400, clear_at=150)
    ends = events[(events["ev"] & np.uint64(BATCH_END)) != 0]
    np.testing.assert_array_equal(made.times_ns, ends["local_ts"])
    assert made.mid[0] == pytest.approx(60_000.0)
    assert np.abs(np.diff(made.mid)).max() < 0.2  # a tick of 0.1 at a time
    fresh = np.flatnonzero(made.since_reset == 1)
    assert fresh.tolist() == [0, 150]
    expected = np.ones(400, bool)
    expected[[0, 1, 2, 150, 151, 152]] = False  # a window has 4 rows
    np.testing.assert_array_equal(made.complete, expected)
    assert set(made.samples()) == set(np.flatnonzero(expected & (made.labels >= 0)))
    assert set(made.samples(2)) - set(made.samples()) == {1, 2, 151, 152}


def test_labels_look_at_the_last_mid_within_the_horizon() -> None:
    times = np.array([0, 40, 100, 101, 250], np.int64)
    mids = np.array([1.0, 2.0, 2.0, 0.5, 3.0])
    #  0 → the mid at 100 (inclusive); 40 → 101; 100 → 101; 101 → itself; 250: behind the end
    assert make_labels(times, mids, 100).tolist() == [2, 0, 0, 1, -1]


def test_labels_equal_a_plain_loop(made: Features) -> None:
    assert made.labels is not None
    assert made.labels.dtype == np.int8
    for i in range(0, len(made), 7):
        later = made.mid[made.times_ns <= made.times_ns[i] + HORIZON][-1]
        expected = 1 + np.sign(later - made.mid[i])
        if made.times_ns[i] + HORIZON > made.times_ns[-1]:
            expected = -1
        assert made.labels[i] == expected
    assert {0, 1, 2} <= set(made.labels.tolist())


def test_no_labels_without_a_horizon(made: Features, tmp_path: Path) -> None:
    plain = features(market_file(tmp_path / "a.npz", 20), made.spec)
    assert plain.labels is None
    assert "label" not in plain.to_arrow().column_names
    assert plain.samples().tolist() == list(range(3, 20))


def test_arrow_pandas_and_polars_hold_the_same(made: Features) -> None:
    table = made.to_arrow()
    assert table.schema.metadata[b"tickrt.feature_hash"].decode() == made.spec.hash
    assert table.schema.metadata[b"tickrt.symbol"] == b"BTCUSDT"
    assert table.schema.field("time").type == pa.timestamp("ns")
    assert table.column_names == ["time", "mid", "complete", "label", *made.spec.names]
    frame = made.to_pandas()
    assert isinstance(frame.index, pd.DatetimeIndex)
    np.testing.assert_array_equal(frame.index.astype("int64"), made.times_ns)
    np.testing.assert_array_equal(frame[list(made.spec.names)].to_numpy(), made.rows)
    np.testing.assert_array_equal(frame["label"], made.labels)
    polars = pl.from_arrow(table)
    assert isinstance(polars, pl.DataFrame)
    np.testing.assert_array_equal(polars["mid"].to_numpy(), made.mid)
    np.testing.assert_array_equal(polars["spread"].to_numpy(), frame["spread"])


def test_torch_windows_are_the_samples(made: Features) -> None:
    torch = pytest.importorskip("torch", exc_type=ImportError)
    data = made.torch_dataset()
    samples = made.samples()
    assert len(data) == len(samples)
    loader = torch.utils.data.DataLoader(data, batch_size=64)
    x, y = (torch.cat(parts).numpy() for parts in zip(*loader, strict=True))
    np.testing.assert_array_equal(x, np.stack([made.rows[i - 3 : i + 1] for i in samples]))
    np.testing.assert_array_equal(y, made.labels[samples])
    assert y.dtype == np.int64
    assert made.torch_dataset(7)[0][0].shape == (7, made.spec.width)
    with pytest.raises(IndexError):
        data[len(samples)]
    with pytest.raises(ConfigError, match=r"window: expected 1 or more rows, got 0"):
        made.torch_dataset(0)


def test_what_is_not_installed_is_named_with_its_extra(
    made: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match=r"pip install 'tickrt\[pandas\]'"):
        made.to_pandas()
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "tickrt.feature.torch_windows", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'tickrt\[train\]'"):
        made.torch_dataset()
    assert importlib.util.find_spec("tickrt.feature.torch_windows")


def test_what_cannot_be_used_is_refused(tmp_path: Path) -> None:
    spec, events = tiny_spec(tmp_path), market(20)
    with pytest.raises(DataError, match="events: it does not say its instrument; give one"):
        features(events, spec)
    with pytest.raises(ConfigError, match="instrument 'XYZ': not known; known are BTCUSD_PERP"):
        features(events, spec, instrument="XYZ")
    with pytest.raises(DataError, match="expected a one-dimensional array of EVENT_DTYPE"):
        features(np.zeros(3), spec, instrument=BTC)  # type: ignore[arg-type]
    backwards = events.copy()
    backwards["local_ts"][5:] -= 1_000_000_000
    with pytest.raises(DataError, match="events: row 5: local_ts goes back"):
        features(backwards, spec, instrument=BTC)
    for horizon in (0, -1, 1e8, 10**18 + 1, np.int64(2 * 10**18)):
        with pytest.raises(ConfigError, match=r"horizon_ns: expected whole ns, 1 … 1e\+18, got"):
            features(events, spec, instrument=BTC, horizon_ns=horizon)  # type: ignore[arg-type]
    longest = features(events, spec, instrument=BTC, horizon_ns=10**18)
    assert set(longest.labels.tolist()) == {-1}  # nothing came so late
    with pytest.raises(DataError, match="events: 3 rows, expected more than a window of 4"):
        features(market(3), spec, instrument=BTC)
    with pytest.raises(SpecError, match="no such spec file"):
        features(events, "no_such", instrument=BTC)
    path = save_events(tmp_path / "x.npz", events, {})
    with pytest.raises(DataError, match=r"x\.npz: it does not say its instrument"):
        features(path, spec)


def test_it_prints_briefly(made: Features) -> None:
    assert repr(made) == "Features(BTCUSDT: 400 rows × 11 of spec 'tiny')"
