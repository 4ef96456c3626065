"""The shipped models' figures, made again from the recorded captures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tickrt.feature.normalise import mirror_of, normalisation, normalised
from tickrt.feature.spec import load_spec
from tickrt.feeds.captures.convert import convert
from tickrt.models import find_model
from tickrt.training.dataset import load_session, split_by_time
from tickrt.training.evaluate import metrics, predict


@pytest.mark.data
@pytest.mark.slow
def test_the_light_models_card_is_true(market_data: Path, tmp_path: Path) -> None:
    captures = sorted((market_data / "binance_cm").glob("btcusd_perp_*.gz"))
    convert(captures, tmp_path / "btc.npz")
    files = find_model("light_lstm")
    figures, spec = json.loads(files.figures.read_text()), load_spec(files.spec)
    session = load_session(tmp_path / "btc.npz", spec, figures["horizon_ns"])
    split = split_by_time(session, spec.window, figures["horizon_ns"])
    assert list(split.cuts_ns) == figures["parts"]["cuts_ns"]
    assert len(session.rows) == figures["parts"]["rows"]
    numbers = normalisation(session.rows[: split.train[-1] + 1], mirror_of(spec))
    np.testing.assert_allclose(numbers, (spec.mean, spec.std), rtol=1e-5, atol=1e-6)

    told = figures["evaluation"]["test"]
    stride = round(len(split.test) / told["windows"])
    chosen = split.test[::stride]
    assert len(chosen) == told["windows"]
    rows = normalised(session.rows, spec)
    answers = predict(files.onnx, rows, chosen, spec.window, 1)
    again = metrics(session.labels[chosen], answers.argmax(1))
    # Another processor may round a few borderline windows to the other side.
    assert again["macro_f1"] == pytest.approx(told["model"]["macro_f1"], abs=2e-3)
    assert again["mcc"] == pytest.approx(told["model"]["mcc"], abs=2e-3)
    difference = np.abs(np.array(again["confusion"]) - told["model"]["confusion"])
    assert difference.max() <= 5
