"""`export_onnx`: what is written runs as torch does; what would not is refused, and not written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from helpers.sessions import config, market_file, settings, tiny_spec
from tickrt.engines.graph.check import check_spec, read_model
from tickrt.errors import ConfigError, FeatureMismatchError, ModelError
from tickrt.feature.spec import FeatureSpec
from tickrt.runtime.session import Session
from tickrt.training.export import export_onnx

torch = pytest.importorskip("torch", exc_type=ImportError)


class Recurrent(torch.nn.Module):
    """A recurrent layer, a linear one on its last output, a softmax."""

    def __init__(self, kind: Any, width: int, outputs: int = 3) -> None:
        super().__init__()
        self.layer = kind(width, 6, batch_first=True)
        self.drop = torch.nn.Dropout(0.5)
        self.head = torch.nn.Linear(6, outputs)

    def forward(self, rows: Any) -> Any:
        return torch.softmax(self.head(self.drop(self.layer(rows)[0][:, -1])), dim=1)


def flat(spec: FeatureSpec, *last: Any, outputs: int = 3) -> Any:
    linear = torch.nn.Linear(spec.window * spec.width, outputs)
    return torch.nn.Sequential(torch.nn.Flatten(), linear, *last)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN", "flat"])
def test_what_is_written_gives_what_torch_gives(kind: str, tmp_path: Path) -> None:
    spec = tiny_spec(tmp_path)
    torch.manual_seed(1)
    module = (
        flat(spec, torch.nn.Softmax(dim=1))
        if kind == "flat"
        else Recurrent(getattr(torch.nn, kind), spec.width)
    )
    module.train()
    made = export_onnx(
        module, tmp_path / "new" / "m.onnx", spec, metadata={"tickrt.horizon_ns": "5"}
    )
    assert module.training  # the caller's module is as it was
    assert made.difference < 1e-5
    model = read_model(made.path)
    check_spec(model, spec)
    assert model.sha256 == made.sha256
    assert (model.input, model.output) == ("rows", "probabilities")
    assert model.metadata == {
        "tickrt.feature_hash": spec.hash,
        "tickrt.spec": "tiny",
        "tickrt.horizon_ns": "5",
    }
    kinds = {node.op_type for node in onnx.load(made.path).graph.node}
    assert kinds.isdisjoint({"Shape", "ConstantOfShape", "Expand"})
    session = ort.InferenceSession(str(made.path), providers=["CPUExecutionProvider"])
    for batch in (1, 5):
        x = np.random.default_rng(batch).normal(size=(batch, 4, spec.width)).astype(np.float32)
        with torch.no_grad():
            expected = module.eval()(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(session.run(None, {"rows": x})[0], expected, atol=1e-5)


def test_a_session_runs_it(tmp_path: Path) -> None:
    spec, data = tiny_spec(tmp_path), market_file(tmp_path / "a.npz", 60)
    export_onnx(Recurrent(torch.nn.LSTM, spec.width), tmp_path / "m.onnx", str(spec.path))
    chosen = settings(tmp_path, model=str(tmp_path / "m.onnx"))
    with Session(config(tmp_path, data, chosen)) as session:
        assert session.run().signals > 0


def test_what_does_not_fit_is_not_written(tmp_path: Path) -> None:
    spec, path = tiny_spec(tmp_path), tmp_path / "m.onnx"
    softmax = torch.nn.Softmax(dim=1)
    with pytest.raises(ModelError, match=r"m\.onnx: the module's outputs are no probabilities"):
        export_onnx(flat(spec), path, spec)
    with pytest.raises(ModelError, match=r"the module makes \[2, 4\] of windows \[2, 4, 11\]"):
        export_onnx(flat(spec, softmax, outputs=4), path, spec)
    with pytest.raises(ModelError, match=r"torch cannot export the module for windows of \[2, 4,"):
        export_onnx(Recurrent(torch.nn.LSTM, 5), path, spec)
    with pytest.raises(ModelError, match=r"differ from torch's by .*: this export is wrong"):
        export_onnx(flat(spec, softmax), path, spec, tolerance=0.0)
    assert not path.exists()


class Frozen(torch.nn.Module):
    """What is traced is not what runs: the trace keeps one draw for ever."""

    def forward(self, rows: Any) -> Any:
        noise = float(torch.rand(()))
        return torch.softmax(rows[:, -1, :3] * noise, dim=1)


def test_an_export_that_is_not_what_torch_computes_is_found(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"ONNX Runtime's probabilities differ from torch's"):
        export_onnx(Frozen(), tmp_path / "m.onnx", tiny_spec(tmp_path))


def test_a_model_for_another_window_is_refused(tmp_path: Path) -> None:
    spec, other = tiny_spec(tmp_path), tiny_spec(tmp_path, window=7)
    export_onnx(Recurrent(torch.nn.GRU, spec.width), tmp_path / "m.onnx", spec)
    with pytest.raises(FeatureMismatchError):
        check_spec(read_model(tmp_path / "m.onnx"), other)


def test_without_torch_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigError, match=r"pip install 'tickrt\[train\]'"):
        export_onnx(None, tmp_path / "m.onnx", "light")  # type: ignore[arg-type]
