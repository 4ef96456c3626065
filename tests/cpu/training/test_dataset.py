"""The split's gaps, batches, metrics: what the figures rest on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from helpers.training_market import INSTRUMENT, MS, market
from tickrt.compile.codes import TRADE
from tickrt.errors import DataError
from tickrt.feature.spec import load_spec
from tickrt.market.event_file import load_events, save_events
from tickrt.training.dataset import TrainingRows, load_session, split_by_time
from tickrt.training.evaluate import batches, metrics


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> TrainingRows:
    path = tmp_path_factory.mktemp("data") / "test.npz"
    save_events(path, market(2000), {"symbol": "TEST", "instrument": INSTRUMENT.to_dict()})
    return load_session(path, load_spec("light"), 100 * MS)


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
