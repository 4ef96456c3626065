"""The training script, from event file to card, on a made-up market; needs the extra [train]."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from helpers.training_market import INSTRUMENT, market
from tickrt.errors import ConfigError
from tickrt.feature.spec import load_spec
from tickrt.market.event_file import save_events
from tickrt.models import find_model
from tickrt.training import train

torch = pytest.importorskip("torch", exc_type=ImportError)
pytest.importorskip("sklearn", exc_type=ImportError)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model trained for two epochs."""
    folder = tmp_path_factory.mktemp("model")
    data = folder / "test.npz"
    save_events(data, market(1500), {"symbol": "TEST", "instrument": INSTRUMENT.to_dict()})
    recipe = dataclasses.replace(train.recipes()["light_lstm"], epochs=2, hidden=8, layers=2)
    recipe = dataclasses.replace(recipe, depth_decay=0.5, column_dropout=0.2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "recipes", lambda: {"light_lstm": recipe})
        command = ["--model", "light_lstm", "--data", str(data), "--unseen", str(data)]
        train.main([*command, "--out", str(folder), "--stride", "3"])
    return folder


def test_it_writes_a_model_that_belongs_to_its_spec(made: Path) -> None:
    files = find_model(made / "light_lstm.onnx")
    assert None not in (files.spec, files.card, files.figures)
    figures = json.loads(files.figures.read_text())
    assert figures["feature_hash"] == load_spec(files.spec).hash
    assert figures["torch_minus_onnxruntime"] < 1e-5
    assert {"validation", "test", "unseen_TEST"} == set(figures["evaluation"])
    for part in figures["evaluation"].values():
        assert np.sum(part["model"]["confusion"]) == part["windows"]


def test_the_graph_has_no_shape_arithmetic(made: Path) -> None:
    kinds = {node.op_type for node in onnx.load(made / "light_lstm.onnx").graph.node}
    assert "LSTM" in kinds
    assert kinds.isdisjoint({"Shape", "ConstantOfShape", "Expand"})


def test_folding_the_gain_changes_nothing() -> None:
    from tickrt.training.network import Network, gain

    recipe = dataclasses.replace(train.recipes()["light_lstm"], depth_decay=0.5)
    names = load_spec("light").names
    factors = gain(names, 0.5)
    assert factors[names.index("ask_distance_4")] == 0.5
    assert factors[names.index("spread")] == 1.0
    network = Network(factors, recipe).eval()
    x = torch.randn(2, 20, len(names))
    with torch.no_grad():
        before = network(x)
        torch.testing.assert_close(network.fold()(x), before)


def test_unknown_models_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected one of seed_lstm, light_lstm, got 'x'"):
        train.main(["--model", "x", "--data", str(tmp_path)])
