"""Labels, the split's gaps, mirroring, normalisation, metrics: what the figures rest on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from helpers.training_market import INSTRUMENT, MS, market
from tickrt.compile.codes import TRADE
from tickrt.errors import DataError
from tickrt.feature.spec import load_spec, parse_spec
from tickrt.feature.streams import new_streams
from tickrt.market.book import new_book
from tickrt.market.event_file import load_events, save_events
from tickrt.training.dataset import (
    TrainingRows,
    load_session,
    make_labels,
    mirror_of,
    normalisation,
    plain,
    split_by_time,
)
from tickrt.training.evaluate import batches, metrics
from tickrt.training.kernels import collect
from tickrt.training.train import normalised, write_spec


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> TrainingRows:
    path = tmp_path_factory.mktemp("data") / "test.npz"
    save_events(path, market(2000), {"symbol": "TEST", "instrument": INSTRUMENT.to_dict()})
    return load_session(path, load_spec("light"), 100 * MS)


def test_labels_look_at_the_last_mid_within_the_horizon() -> None:
    times = np.array([0, 40, 100, 101, 250], np.int64)
    mids = np.array([1.0, 2.0, 2.0, 0.5, 3.0])
    #  0 → the mid at 100 (inclusive); 40 → 101; 100 → 101; 101 → itself; 250: behind the end
    assert make_labels(times, mids, 100).tolist() == [2, 0, 0, 1, -1]


def test_labels_equal_a_plain_loop(session: TrainingRows) -> None:
    for i in range(0, len(session.times), 37):
        later = [
            m
            for t, m in zip(session.times, session.mids, strict=True)
            if t <= session.times[i] + 100 * MS
        ]
        expected = 1 + np.sign(later[-1] - session.mids[i])
        if session.times[i] + 100 * MS > session.times[-1]:
            expected = -1
        assert session.labels[i] == expected


def test_the_split_leaves_a_window_and_the_horizon_between_parts(session: TrainingRows) -> None:
    window, horizon = 50, 100 * MS
    split = split_by_time(session, window, horizon)
    for before, after in ((split.train, split.validation), (split.validation, split.test)):
        last_price_used = session.times[before[-1]] + horizon
        first_row_used = after[0] - window + 1
        assert first_row_used > before[-1]
        assert session.times[first_row_used] >= last_price_used + horizon
        assert after[0] - before[-1] > window
    sizes = [len(part) for part in (split.train, split.validation, split.test)]
    np.testing.assert_allclose(np.array(sizes) / sum(sizes), [0.6, 0.2, 0.2], atol=0.05)


def test_samples_have_a_whole_window(session: TrainingRows) -> None:
    assert session.samples[0] == 49
    assert session.labels[session.samples].min() >= 0


@pytest.mark.parametrize("name", ["light", "l2_100x100"])
def test_the_mirror_is_what_a_mirrored_market_gives(name: str, tmp_path: Path) -> None:
    spec = load_spec(name)
    meta = {"symbol": "TEST", "instrument": INSTRUMENT.to_dict()}
    both = []
    for flip in (False, True):
        save_events(tmp_path / "m.npz", market(150, flip=flip), meta)
        both.append(load_session(tmp_path / "m.npz", spec, 10 * MS))
    mirror = mirror_of(spec)
    assert mirror is not None
    returns = np.array([n.startswith("return_") for n in spec.names])  # relative to the price
    one, other = mirror.rows(both[0].rows), both[1].rows
    np.testing.assert_allclose(one[:, ~returns], other[:, ~returns], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(one[:, returns], other[:, returns], rtol=0.05, atol=0.02)
    known = both[0].labels >= 0
    assert (both[0].labels[known] == 2 - both[1].labels[known]).all()


def test_no_mirror_with_user_columns(tmp_path: Path) -> None:
    (tmp_path / "u.py").write_text("")
    column = {"kind": "user", "file": "u.py", "function": "f"}
    document = {"format": 1, "name": "x", "window": 2, "columns": [column]}
    assert mirror_of(parse_spec(document, tmp_path / "spec.toml")) is None


def test_training_rows_are_the_running_rows(session: TrainingRows, tmp_path: Path) -> None:
    spec = plain(load_spec("light"))
    numbers = normalisation(session.rows[:900], mirror_of(spec))
    spec = write_spec(spec, *numbers, tmp_path / "light.toml")
    assert (list(spec.mean), list(spec.std)) == numbers
    assert spec.clip == load_spec("light").clip
    assert [c.canonical() for c in spec.columns] == [
        c.canonical() for c in load_spec("light").columns
    ]
    n = len(session.rows)
    rows = np.zeros((n, spec.width), np.float32)
    events = load_events(session.path).data
    streams = new_streams([(0, spec, 1.0)])
    times, counts = np.zeros(n, np.int64), np.zeros(n, np.int64)
    made = collect(events, new_book([1.0]), streams, rows, times, *np.zeros((3, n)), counts)
    assert made == n
    np.testing.assert_array_equal(rows, normalised(session.rows, spec))


def test_normalisation_is_of_the_given_rows_and_their_mirror() -> None:
    spec = load_spec("light")
    mirror = mirror_of(spec)
    assert mirror is not None
    rows = np.random.default_rng(0).normal(3, 2, (500, spec.width)).astype(np.float32)
    rows[:, spec.names.index("elapsed")] = 7
    mean, std = normalisation(rows, mirror)
    both = np.concatenate([rows, mirror.rows(rows)]).astype(np.float64)
    expected = both.std(0)
    expected[spec.names.index("elapsed")] = 1
    np.testing.assert_allclose(mean, both.mean(0), atol=1e-5)
    np.testing.assert_allclose(std, expected, rtol=1e-5)


def test_batches_are_the_windows_that_end_at_the_samples() -> None:
    rows = np.arange(2000, dtype=np.float32).reshape(1000, 2)
    samples = np.arange(9, 1000, 3)
    got = np.concatenate(list(batches(rows, samples, 10)))
    expected = np.stack([rows[i - 9 : i + 1] for i in samples])
    np.testing.assert_array_equal(got, expected)


def test_metrics_equal_their_definitions() -> None:
    labels = np.array([0, 0, 1, 1, 1, 2, 2, 2, 2])
    guess = np.array([0, 1, 1, 1, 2, 2, 2, 0, 2])
    got = metrics(labels, guess)
    assert got["confusion"] == [[1, 1, 0], [0, 2, 1], [1, 0, 3]]
    assert got["f1"] == {"down": 0.5, "flat": 0.6667, "up": 0.75}
    assert got["macro_f1"] == pytest.approx(0.6389)
    one, other = np.eye(3)[labels], np.eye(3)[guess]
    one, other = one - one.mean(0), other - other.mean(0)  # Gorodkin's covariance form
    expected = (one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum())
    assert got["mcc"] == pytest.approx(expected, abs=1e-4)
    assert metrics(labels, np.ones(9, np.int64))["mcc"] == 0.0


def test_files_that_cannot_be_trained_on(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    save_events(path, market(20), {"symbol": "TEST", "instrument": INSTRUMENT.to_dict()})
    with pytest.raises(DataError, match=r"x\.npz: 20 rows, expected more than a window of 50"):
        load_session(path, load_spec("light"), MS)
    save_events(path, market(20), {})
    with pytest.raises(DataError, match=r"x\.npz: it does not say its instrument"):
        load_session(path, load_spec("light"), MS)


def test_volumes_are_what_was_traded_since_the_row_before(session: TrainingRows) -> None:
    events = load_events(session.path).data
    trades = events[(events["ev"] & np.uint64(0xFF)) == TRADE]
    np.testing.assert_array_equal(session.volumes, trades["qty"])  # one trade a batch


def test_the_session_is_frozen(session: TrainingRows) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        session.symbol = "x"  # type: ignore[misc]


def test_metrics_of_nothing_are_zero() -> None:
    none = np.array([], np.int64)
    got = metrics(none, none)
    assert (got["macro_f1"], got["mcc"], got["accuracy"]) == (0.0, 0.0, 0.0)
