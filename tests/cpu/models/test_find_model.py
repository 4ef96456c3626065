"""Models by name or path, and that the shipped files belong together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from tickrt.errors import ModelError
from tickrt.feature.spec import load_spec
from tickrt.models import find_model, list_models
from tickrt.training.card import write_card

SHIPPED = ["light_lstm", "seed_lstm"]


def test_the_shipped_models() -> None:
    assert list_models() == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_files_belong_together(name: str, tmp_path: Path) -> None:
    files = find_model(name)
    assert None not in (files.spec, files.card, files.figures)
    assert find_model(files.onnx) == files
    spec = load_spec(files.spec)
    figures = json.loads(files.figures.read_text())
    assert figures["feature_hash"] == spec.hash
    assert figures["torch_minus_onnxruntime"] < 1e-5
    write_card(figures, tmp_path / "card.md")
    assert (tmp_path / "card.md").read_text() == files.card.read_text()


@pytest.mark.parametrize("name", SHIPPED)
def test_the_onnx_file_keeps_the_contract(name: str) -> None:
    files = find_model(name)
    spec, model = load_spec(files.spec), onnx.load(files.onnx)
    assert {p.key: p.value for p in model.metadata_props} == {
        "tickrt.feature_hash": spec.hash,
        "tickrt.horizon_ns": "100000000",
        "tickrt.spec": spec.name,
    }
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    session = ort.InferenceSession(str(files.onnx), providers=["CPUExecutionProvider"])
    (rows,), (out,) = session.get_inputs(), session.get_outputs()
    assert (rows.name, rows.type, rows.shape) == (
        "rows",
        "tensor(float)",
        ["batch", spec.window, spec.width],
    )
    assert (out.name, out.type, out.shape) == ("probabilities", "tensor(float)", ["batch", 3])
    x = np.random.default_rng(0).normal(size=(3, spec.window, spec.width)).astype(np.float32)
    p = session.run(None, {"rows": x})[0]
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)
    for i in range(3):
        alone = session.run(None, {"rows": x[i : i + 1]})[0]
        np.testing.assert_allclose(alone[0], p[i], atol=1e-6)


@pytest.mark.parametrize("name", ["nothing", "nothing.onnx", "a/seed_lstm"])
def test_unknown_names_list_the_shipped_models(name: str) -> None:
    with pytest.raises(ModelError, match=r"no such ONNX file.*shipped: light_lstm, seed_lstm"):
        find_model(name)


def test_a_users_model_and_what_lies_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    shutil.copy(find_model("light_lstm").onnx, path)
    files = find_model(str(path))
    assert (files.name, files.onnx, files.spec, files.card) == ("mine", path, None, None)
    (tmp_path / "mine.toml").touch()
    assert find_model(path).spec == tmp_path / "mine.toml"
    (tmp_path / "mine.json").write_text('{"spec": "other"}')
    assert find_model(path).spec is None
    (tmp_path / "other.toml").touch()
    assert find_model(path).spec == tmp_path / "other.toml"
    for text, message in (("{", "not a JSON file"), ('{"spec": "../x"}', "expected the name")):
        (tmp_path / "mine.json").write_text(text)
        with pytest.raises(ModelError, match=rf"mine\.json: .*{message}"):
            find_model(path)
