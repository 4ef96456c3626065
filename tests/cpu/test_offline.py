"""`tr.split`, `tr.build`, `tr.open_bundle`, `tr.Registry`: paths, rows and names of keys."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import tickrt as tr
from helpers.sessions import market_file, tiny_model, tiny_spec
from tickrt.engines.bundle.crypto import load_public_key, new_keys
from tickrt.errors import BuildError, FeatureMismatchError, ModelError, TamperedError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small model, with its spec's hash."""
    return tiny_model(tiny_spec(tmp_path), tmp_path / "m.onnx")


def test_split_takes_a_path_or_a_model(model: Path) -> None:
    by_path, by_model = tr.split(model), tr.split(onnx.load(model))
    assert by_path.costs == by_model.costs
    assert 0 < by_path.costs[0].share < 1
    with pytest.raises(ModelError, match=r"nowhere\.onnx"):
        tr.split("nowhere.onnx")


def test_what_is_built_can_be_opened(model: Path, tmp_path: Path) -> None:
    manifest = tr.build(str(model), tmp_path / "m.bundle")
    assert manifest.precision == "fp32"
    with tr.open_bundle(str(tmp_path / "m.bundle"), allow_unsigned=True) as bundle:
        assert bundle.manifest == manifest
        assert not bundle.encrypted
    with pytest.raises(TamperedError, match="not signed"):
        tr.open_bundle(tmp_path / "m.bundle")


def test_rows_calibrate_and_are_named(model: Path, tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path)
    rows = tr.features(market_file(tmp_path / "a.npz", 90), spec)
    options = {"precision": "int8", "backend": "onnxruntime"}
    request = tr.BuildRequest(model, tolerance=0.5, fp32_layers=())
    by_features = tr.build(request, tmp_path / "1.bundle", rows=rows, **options)
    by_array = tr.build(request, tmp_path / "2.bundle", rows=rows.rows, **options)
    assert by_features.precision == by_array.precision == "int8"
    assert by_features.parity.data == "BTCUSDT, 90 rows"
    assert by_features.parity.max_abs == by_array.parity.max_abs
    assert by_features.parity.max_abs > 1e-6  # it was quantised
    strict = tr.BuildRequest(model, tolerance=1e-9, fp32_layers=())
    with pytest.raises(BuildError, match="parity failed"):
        tr.build(strict, tmp_path / "3.bundle", rows=rows, **options)
    assert not (tmp_path / "3.bundle").exists()


def test_rows_of_another_spec_are_refused(model: Path, tmp_path: Path) -> None:
    other = tiny_spec(tmp_path, window=5)
    rows = tr.features(market_file(tmp_path / "a.npz", 30), other)
    with pytest.raises(FeatureMismatchError, match="make them with the model's own spec"):
        tr.build(model, tmp_path / "m.bundle", rows=rows)


def test_keys_are_named_not_given(model: Path, tmp_path: Path) -> None:
    keys = {kind: f"file:{path}" for kind, path in new_keys(tmp_path / "keys").items()}
    sign, trust, seal = keys["private"], keys["public"], keys["aes"]
    tr.build(model, tmp_path / "m.bundle", sign=sign, encrypt=seal)
    with tr.open_bundle(tmp_path / "m.bundle", trust=trust, key=seal) as bundle:
        assert bundle.encrypted
        assert len(bundle.payload(bundle.manifest.engines[0].payload)) > 0
    with tr.open_bundle((tmp_path / "m.bundle").read_bytes(), trust=[trust]) as bundle:
        assert bundle.signed_by is not None
    digests = []
    for given in (trust, load_public_key(trust)):
        registry = tr.Registry(str(tmp_path / "models"), trust=[given], create=True)
        digests.append(registry.add(str(tmp_path / "m.bundle")))
    assert len(set(digests)) == 1
    tr.build(model, tmp_path / "unsigned.bundle")
    with pytest.raises(TamperedError, match="not signed"):
        registry.add(tmp_path / "unsigned.bundle")


def test_what_is_built_runs(model: Path, tmp_path: Path) -> None:
    tr.build(model, tmp_path / "m.bundle")
    data = market_file(tmp_path / "a.npz", 60)
    strategy = tr.StrategySettings(
        model=str(tmp_path / "m.bundle"), spec=str(tiny_spec(tmp_path).path)
    )
    config = tr.SessionConfig(data=(data,), strategies=(strategy,), allow_unsigned=True)
    with tr.Session(config) as session:
        report = session.run()
    assert report.signals == 60 - 3
    assert np.isfinite(report.events_per_s)
