"""The numbers of a normalisation, and the exchange of bid and ask."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from helpers.sessions import market_file, tiny_spec
from helpers.training_market import INSTRUMENT, market
from tickrt.errors import ConfigError
from tickrt.feature.normalise import (
    fit_spec,
    mirror_of,
    normalisation,
    normalised,
    plain,
    write_spec,
)
from tickrt.feature.rows import features
from tickrt.feature.spec import load_spec, parse_spec

MS = 1_000_000


@pytest.mark.parametrize("name", ["light", "l2_100x100"])
def test_the_mirror_is_what_a_mirrored_market_gives(name: str) -> None:
    spec = plain(load_spec(name))
    mirror = mirror_of(spec)
    assert mirror is not None
    one, other = (
        features(market(150, flip=flip), spec, horizon_ns=10 * MS, instrument=INSTRUMENT)
        for flip in (False, True)
    )
    returns = np.array([n.startswith("return_") for n in spec.names])  # relative to the price
    flipped = mirror.rows(one.rows)
    np.testing.assert_allclose(flipped[:, ~returns], other.rows[:, ~returns], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(flipped[:, returns], other.rows[:, returns], rtol=0.05, atol=0.02)
    assert one.labels is not None
    assert other.labels is not None
    known = one.labels >= 0
    assert (one.labels[known] == 2 - other.labels[known]).all()


def test_no_mirror_with_user_columns(tmp_path: Path) -> None:
    (tmp_path / "u.py").write_text("")
    column = {"kind": "user", "file": "u.py", "function": "f"}
    document = {"format": 1, "name": "x", "window": 2, "columns": [column]}
    assert mirror_of(parse_spec(document, tmp_path / "spec.toml")) is None


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


def test_normalised_rows_are_the_running_rows(tmp_path: Path) -> None:
    events, light = market(1000), load_spec("light")
    raw = features(events, plain(light), instrument=INSTRUMENT).rows
    numbers = normalisation(raw[:600], mirror_of(light))
    spec = write_spec(plain(light), *numbers, tmp_path / "light.toml")
    assert (list(spec.mean), list(spec.std)) == numbers
    assert spec.clip == light.clip
    assert [c.canonical() for c in spec.columns] == [c.canonical() for c in light.columns]
    running = features(events, spec, instrument=INSTRUMENT).rows
    np.testing.assert_array_equal(running, normalised(raw, spec))


def test_fit_spec_writes_the_numbers_of_the_first_rows(tmp_path: Path) -> None:
    data, spec = market_file(tmp_path / "a.npz", 300), tiny_spec(tmp_path)
    fitted = fit_spec(data, spec, tmp_path / "new" / "mine.toml", share=0.5)
    expected = normalisation(features(data, plain(spec)).rows[:150], mirror_of(spec))
    assert (list(fitted.mean), list(fitted.std)) == expected
    assert load_spec(tmp_path / "new" / "mine.toml") == fitted
    assert (fitted.name, fitted.window, fitted.clip) == (spec.name, spec.window, spec.clip)
    assert fitted.hash != spec.hash
    again = fit_spec(data, fitted, tmp_path / "again.toml", share=0.5)
    assert again.hash == fitted.hash  # a normalisation that is there is replaced, not applied


def test_fit_spec_says_what_it_cannot_do(tmp_path: Path) -> None:
    data, spec = market_file(tmp_path / "a.npz", 30), tiny_spec(tmp_path)
    for share in (0.0, 1.5):
        with pytest.raises(ConfigError, match="share: expected above 0 to 1"):
            fit_spec(data, spec, tmp_path / "x.toml", share=share)
    homeless = dataclasses.replace(spec, path=None)
    with pytest.raises(ConfigError, match="spec tiny: it has no file"):
        fit_spec(data, homeless, tmp_path / "x.toml")
    assert not (tmp_path / "x.toml").exists()
