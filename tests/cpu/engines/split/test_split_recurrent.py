"""Recurrent layers: the bank under window semantics, carried state, unusual layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from tickrt.engines.split import measure, split, verify
from tickrt.models.architectures.net import Net
from tickrt.models.architectures.zoo import recurrent

KINDS = ("LSTM", "GRU", "RNN")


def run(model: onnx.ModelProto, **feeds: np.ndarray) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def rows(count: int, width: int) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((count, width)).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_bank_gives_the_states_of_pre(kind: str) -> None:
    """After T−1 rows the last slot holds what `pre` gives for them, and so from row to row."""
    window, width = 9, 4
    result = split(recurrent(kind, 2, 6, window, width))
    assert result.advance is not None, result.no_advance
    data = rows(window + 6, width)
    bank = {entry.name: entry.start for entry in result.bank}
    for number, row in enumerate(data):
        out = run(result.advance, rows_newest=row[None, None], **bank)
        bank = {entry.name: out[entry.following] for entry in result.bank}
        if number >= window - 2:
            known = data[number - window + 2 : number + 1][None]
            for name, state in run(result.pre, rows_known=known).items():
                np.testing.assert_allclose(out[name], state, atol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_carried_state_is_one_long_window(kind: str) -> None:
    """With `stateful`, n rows through `advance` equal a model whose window is all of them."""
    short, long, width = 4, 15, 3
    model = recurrent(kind, 2, 5, short, width)
    result = split(model, stateful=True)
    assert result.bank == ()
    data = rows(long, width)
    states = run(result.pre, rows_known=data[None, : short - 1])
    for row in data[short - 1 : -1]:
        out = run(result.advance, rows_newest=row[None, None], **states)
        states = {name: out[f"{name}_next"] for name in states}
    got = run(result.step, rows_newest=data[None, -1:], **states)["probabilities"]
    whole = run(recurrent(kind, 2, 5, long, width), rows=data[None])["probabilities"]
    np.testing.assert_allclose(got, whole, atol=1e-6)


def test_carried_state_keeps_a_convolution_history() -> None:
    def model(window: int) -> onnx.ModelProto:
        net = Net(window, 3, seed=2)
        x = net.op("Transpose", "rows", perm=[0, 2, 1])
        x = net.op("Conv", x, net.uniform(4, 3, 3, fan_in=9), dilations=[2], pads=[4, 0])
        x = net.op("Transpose", x, perm=[2, 0, 1])
        weights = [net.uniform(1, *s, fan_in=4) for s in ((20, 4), (20, 5), (40,))]
        x = net.op("LSTM", x, *weights, hidden_size=5)
        x = net.op("Gather", net.op("Squeeze", x, np.array([1])), np.array(-1), axis=0)
        return net.model(net.head(x, 5), "conv_lstm")

    result = split(model(6), stateful=True)
    data = rows(14, 3)
    states = run(result.pre, rows_known=data[None, :5])
    for row in data[5:-1]:
        out = run(result.advance, rows_newest=row[None, None], **states)
        states = {name: out[f"{name}_next"] for name in states}
    got = run(result.step, rows_newest=data[None, -1:], **states)["probabilities"]
    np.testing.assert_allclose(got, run(model(14), rows=data[None])["probabilities"], atol=1e-6)


def one_layer(window: int, op: str, *extra: Any, **attrs: Any) -> onnx.ModelProto:
    """One layer of 4 over 3 columns; `extra` inputs after the bias."""
    net, gates = Net(window, 3, seed=4), {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    x = net.op("Transpose", "rows", perm=[1, 0, 2])
    sides = 2 if attrs.get("direction") == "bidirectional" else 1
    shapes = ((4 * gates, 3), (4 * gates, 4), (8 * gates,))
    weights = [net.uniform(sides, *shape, fan_in=4) for shape in shapes]
    outputs = net.ops(op, x, *weights, *extra, outputs=2, hidden_size=4, **attrs)
    last = net.op("Gather", outputs[0], np.array(-1), axis=0)
    last = net.op("Reshape", net.op("Transpose", last, perm=[1, 0, 2]), np.array([0, 4 * sides]))
    hidden = net.op("Transpose", outputs[1], perm=[1, 0, 2])
    hidden = net.op("Reshape", hidden, np.array([0, 4 * sides]))
    both = net.op("Concat", last, hidden, axis=1)
    return net.model(net.head(both, 8 * sides), "one")


@pytest.mark.parametrize(
    ("op", "attrs"),
    [
        ("LSTM", {}),
        ("LSTM", {"clip": 0.3}),
        ("LSTM", {"input_forget": 1}),
        ("LSTM", {"activations": ["Sigmoid", "Relu", "Tanh"]}),
        ("GRU", {"linear_before_reset": 0}),
        ("GRU", {"linear_before_reset": 1}),
        ("GRU", {"activations": ["Sigmoid", "Relu"]}),
        ("RNN", {"activations": ["Relu"]}),
        ("GRU", {"direction": "bidirectional"}),
    ],
)
def test_layers_with_unusual_attributes(op: str, attrs: dict[str, Any]) -> None:
    model = one_layer(7, op, **attrs)
    result = split(model)
    assert result.is_split, result.why_not
    assert verify(result, model, rows(12, 3)).ok


@pytest.mark.parametrize("op", KINDS)
def test_a_start_state_that_is_not_zero(op: str) -> None:
    start = np.random.default_rng(1).standard_normal((1, 1, 4)).astype(np.float32)
    states = ["", start, start] if op == "LSTM" else ["", start]
    model = one_layer(7, op, *states)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    result = split(model)
    assert verify(result, model, rows(12, 3)).ok


def test_a_reverse_layer_read_at_its_last_position_is_one_step() -> None:
    net = Net(10, 3)
    x = net.op("Transpose", "rows", perm=[1, 0, 2])
    weights = [net.uniform(1, *s, fan_in=4) for s in ((16, 3), (16, 4), (32,))]
    y = net.op("LSTM", x, *weights, hidden_size=4, direction="reverse")
    last = net.op("Squeeze", net.op("Gather", y, np.array(-1), axis=0), np.array([0]))
    model = net.model(net.head(last, 4), "reverse")
    result = split(model)
    assert result.pre is None
    assert result.states == ()
    assert result.costs[0].on_path == (16 * 3 + 16 * 4) + 12
    assert verify(result, model, rows(13, 3)).ok
    assert measure(result, model, seconds=0.01).pre["p50"] == 0.0


@pytest.mark.parametrize("before", ["cut", "positions", "convolution"])
def test_no_bank_where_rows_do_not_come_one_by_one(before: str) -> None:
    net = Net(8, 3)
    x = "rows"
    if before == "cut":
        x = net.op("Slice", x, np.array([2]), np.array([8]), np.array([1]))
    elif before == "positions":
        x = net.op("Add", x, net.uniform(8, 3, fan_in=1))
    else:
        turned = net.op("Transpose", x, perm=[0, 2, 1])
        x = net.op("Conv", turned, net.uniform(3, 3, 3, fan_in=9), pads=[2, 0])
        x = net.op("Transpose", x, perm=[0, 2, 1])
    x = net.op("Transpose", x, perm=[1, 0, 2])
    y = net.op(
        "RNN", x, net.uniform(1, 4, 3, fan_in=3), net.uniform(1, 4, 4, fan_in=4), hidden_size=4
    )
    last = net.op("Squeeze", net.op("Gather", y, np.array(-1), axis=0), np.array([0]))
    model = net.model(net.head(last, 4), "before")
    result = split(model)
    assert result.advance is None
    assert result.no_advance
    assert verify(result, model, rows(12, 3)).ok


def test_measured_times_choose_what_runs_off_the_path() -> None:
    model = recurrent("LSTM", 1, 8, 16, 4)
    timing = measure(split(model), model, seconds=0.05)
    assert timing.off_path in ("pre", "advance")
    assert set(timing.ticks_per_second) == {"full", "pre", "advance"}
    assert timing.step["p50"] <= timing.step["p99"]
