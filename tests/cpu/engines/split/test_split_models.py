"""The model families of the benchmark: what stays on the path, and parity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tickrt.engines.split import split, verify
from tickrt.engines.split.check import random_rows
from tickrt.models.architectures.zoo import TRAINED, ZOO, make, trained, transformer

SHARE = {
    "lstm-s": 1 / 64,
    "lstm-m": 1 / 96,
    "lstm-seed": 1 / 100,
    "gru": 1 / 100,
    "tcn": 1 / 100,
    "mlp": 0.08,
    "transformer-1": 1 / 90,
    "transformer-2": 1 / 90,
    "transformer-full": 1 / 90,
}


@pytest.mark.parametrize("name", [name for name in ZOO if name != "lstm-l"])
def test_reference_models(name: str) -> None:
    model = make(name)
    result = split(model)
    assert result.is_split, result.why_not
    assert result.costs[0].share <= SHARE[name]
    rows = random_rows(result, result.window + 5)
    assert verify(result, model, rows, advance=name == "gru").ok


def test_deeplob_keeps_one_percent_on_the_path(market_data: Path) -> None:
    model = trained("deeplob", market_data / "weights_tlob")
    result = split(model)
    assert result.costs[0].share < 0.011
    assert not result.reasons
    assert verify(result, model, random_rows(result, 110)).ok


def test_binctabl_normalises_over_the_window_and_says_so(market_data: Path) -> None:
    result = split(trained("binctabl", market_data / "weights_tlob"))
    assert not result.is_split
    assert "sums up the window" in result.why_not


def test_every_trained_network_has_weights(market_data: Path) -> None:
    for name in TRAINED:
        onnx.checker.check_model(trained(name, market_data / "weights_tlob"), full_check=True)


def test_a_second_layer_without_a_mask_stays_on_the_path() -> None:
    small = {"window": 12, "features": 4, "width": 8, "heads": 2}
    masked = split(transformer(2, causal=True, **small))
    unmasked = split(transformer(2, causal=False, **small))
    assert masked.costs[0].share < 0.1 < unmasked.costs[0].share
    assert [r.op for r in unmasked.reasons] == ["Softmax", "Softmax"]
    assert not masked.reasons
    model = transformer(2, causal=False, **small)
    assert verify(unmasked, model, random_rows(unmasked, 15)).ok


@pytest.mark.parametrize("strict", [False, True])
def test_pytorch_exports(strict: bool) -> None:
    """Attention and shapes as PyTorch spells them."""
    torch = pytest.importorskip("torch")
    import io
    import warnings

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Linear(6, 8)
            layer = torch.nn.TransformerEncoderLayer(
                8, 2, 16, batch_first=True, norm_first=True, dropout=0.0
            )
            self.layers = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.lstm = torch.nn.LSTM(8, 5, 1, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mask = torch.nn.Transformer.generate_square_subsequent_mask(10) if strict else None
            x = self.layers(self.embed(x), mask=mask, is_causal=strict)
            return self.lstm(x)[0][:, -1]

    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        axes = {"rows": {0: "batch"}, "out": {0: "batch"}}
        torch.onnx.export(
            Net().eval(),
            (torch.zeros(2, 10, 6),),
            stream,
            input_names=["rows"],
            output_names=["out"],
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
    model = onnx.load_from_string(stream.getvalue())
    result = split(model)
    assert result.is_split
    assert (result.costs[0].share < 0.11) == strict
    rows = np.random.default_rng(0).standard_normal((14, 6)).astype(np.float32)
    assert verify(result, model, rows).ok
