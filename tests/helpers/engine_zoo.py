"""Small ONNX models of every kind that the builder must take, made without a training framework.

Entry point: `ZOO`; each model follows tickrt's contract (`rows` in, `probabilities` out).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

T, F, H = 8, 8, 16


class Net:
    """A graph under construction: `op` adds a node and gives its output's name."""

    def __init__(self, name: str, seed: int = 0) -> None:
        self.name = name
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def const(self, value: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def weight(self, *shape: int) -> str:
        fan_in = shape[-2] if len(shape) > 1 else 4
        values = self.rng.normal(size=shape) / np.sqrt(fan_in)
        return self.const(values.astype(np.float32))

    def ints(self, *values: int) -> str:
        return self.const(np.array(values, np.int64))

    def op(
        self, kind: str, *inputs: str, outputs: int = 1, name: str = "", **attributes: Any
    ) -> Any:
        number = len(self.nodes)
        outs = [f"t{number}_{i}" for i in range(outputs)]
        node = helper.make_node(
            kind, list(inputs), outs, name=name or f"{kind.lower()}_{number}", **attributes
        )
        self.nodes.append(node)
        return outs[0] if outputs == 1 else outs

    def linear(self, x: str, inputs: int, outputs: int, name: str = "") -> str:
        y = self.op("MatMul", x, self.weight(inputs, outputs), name=name)
        return str(self.op("Add", y, self.weight(outputs)))

    def head(self, x: str, inputs: int) -> str:
        return str(self.op("Softmax", self.linear(x, inputs, 3, name="head"), axis=-1))

    def last(self, x: str) -> str:
        """[batch, T, C] → [batch, C] at the newest row."""
        return str(self.op("Gather", x, self.const(np.int64(-1)), axis=1))

    def norm(self, x: str, width: int) -> str:
        ones, zeros = np.ones(width, np.float32), np.zeros(width, np.float32)
        return str(self.op("LayerNormalization", x, self.const(ones), self.const(zeros), axis=-1))

    def model(self, output: str, shape: tuple[Any, ...] = ("batch", T, F)) -> onnx.ModelProto:
        self.nodes.append(helper.make_node("Identity", [output], ["probabilities"], name="out"))
        graph = helper.make_graph(
            self.nodes,
            self.name,
            [helper.make_tensor_value_info("rows", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ("batch", 3))],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
        helper.set_model_props(
            model,
            {
                "tickrt.feature_hash": "ab" * 32,
                "tickrt.horizon_ns": "100000000",
                "tickrt.spec": "test_spec",
            },
        )
        onnx.checker.check_model(model, full_check=True)
        return model


def logistic() -> onnx.ModelProto:
    net = Net("logistic")
    return net.model(net.head(net.last("rows"), F))


def mlp() -> onnx.ModelProto:
    net = Net("mlp")
    x = net.op("Flatten", "rows", axis=1)
    x = net.op("Relu", net.linear(x, T * F, 32))
    x = net.op("Gemm", x, net.weight(32, 16), net.weight(16))
    return net.model(net.head(net.op("Relu", x), 16))


def _recurrent(kind: str, gates: int, layers: int = 2, **attributes: Any) -> onnx.ModelProto:
    net = Net(kind.lower())
    x, width, hidden = net.op("Transpose", "rows", perm=[1, 0, 2]), F, ""
    for layer in range(layers):
        outputs = 3 if kind == "LSTM" else 2
        w, r = net.weight(1, gates * H, width), net.weight(1, gates * H, H)
        b = net.weight(1, 2 * gates * H)
        y, hidden, *_ = net.op(
            kind,
            x,
            w,
            r,
            b,
            outputs=outputs,
            hidden_size=H,
            name=f"{kind.lower()}{layer}",
            **attributes,
        )
        x, width = net.op("Squeeze", y, net.ints(1)), H
    return net.model(net.head(net.op("Squeeze", hidden, net.ints(0)), H))


def lstm() -> onnx.ModelProto:
    return _recurrent("LSTM", 4)


def gru() -> onnx.ModelProto:
    return _recurrent("GRU", 3, linear_before_reset=1)


def tcn() -> onnx.ModelProto:
    net = Net("tcn")
    x, width = net.op("Transpose", "rows", perm=[0, 2, 1]), F
    for dilation in (1, 2, 4):
        padded = net.op("Pad", x, net.ints(0, 0, 2 * dilation, 0, 0, 0))
        y = net.op("Conv", padded, net.weight(H, width, 3), net.weight(H), dilations=[dilation])
        y = net.op("Relu", y)
        x, width = (y if width != H else net.op("Add", x, y)), H
    last = net.op("Gather", x, net.const(np.int64(-1)), axis=2)
    return net.model(net.head(last, H))


def deeplob() -> onnx.ModelProto:
    """Zhang, Zohren, Roberts (2019), shrunk: convolutions over levels, inception, LSTM."""
    net = Net("deeplob")
    x = net.op("Unsqueeze", "rows", net.ints(1))
    x = net.op("Conv", x, net.weight(8, 1, 1, 2), net.weight(8), strides=[1, 2])
    x = net.op("LeakyRelu", x, alpha=0.01)
    x = net.op("Conv", x, net.weight(8, 8, 4, 1), net.weight(8), pads=[2, 0, 1, 0])
    scale, zeros = np.ones(8, np.float32), np.zeros(8, np.float32)
    parameters = [net.const(v) for v in (scale, zeros, zeros + 0.1, scale)]
    x = net.op("BatchNormalization", x, *parameters)
    x = net.op("Conv", x, net.weight(8, 8, 1, F // 2), net.weight(8))
    one = net.op("Conv", x, net.weight(8, 8, 3, 1), net.weight(8), pads=[1, 0, 1, 0])
    two = net.op("MaxPool", x, kernel_shape=[3, 1], pads=[1, 0, 1, 0])
    x = net.op("Squeeze", net.op("Concat", one, two, axis=1), net.ints(3))
    x = net.op("Transpose", x, perm=[2, 0, 1])
    w, r, b = net.weight(1, 4 * H, 16), net.weight(1, 4 * H, H), net.weight(1, 8 * H)
    _, hidden, _ = net.op("LSTM", x, w, r, b, outputs=3, hidden_size=H, name="lstm0")
    return net.model(net.head(net.op("Squeeze", hidden, net.ints(0)), H))


def _attention(net: Net, x: str, width: int) -> str:
    """One head over the axis before the last."""
    q, k, v = (net.op("MatMul", x, net.weight(width, width)) for _ in range(3))
    axes = list(range(4 if net.name == "spatiotemporal" else 3))
    axes[-2], axes[-1] = axes[-1], axes[-2]
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=axes))
    scores = net.op("Mul", scores, net.const(np.float32(width**-0.5)))
    return str(net.op("MatMul", net.op("Softmax", scores, axis=-1), v))


def transformer() -> onnx.ModelProto:
    """Variable sequence length: the time axis is dynamic."""
    net = Net("transformer")
    x = net.linear("rows", F, H)
    x = net.norm(net.op("Add", x, _attention(net, x, H)), H)
    y = net.linear(net.op("Relu", net.linear(x, H, 32)), 32, H)
    x = net.norm(net.op("Add", x, y), H)
    return net.model(net.head(net.last(x), H), ("batch", "time", F))


def mixture() -> onnx.ModelProto:
    """A transformer whose feed-forward is a mixture of three experts, gated by a softmax."""
    net = Net("mixture")
    x = net.linear("rows", F, H)
    x = net.norm(net.op("Add", x, _attention(net, x, H)), H)
    gates = net.op("Softmax", net.linear(x, H, 3), axis=-1)
    mixed = None
    for expert in range(3):
        y = net.linear(net.op("Relu", net.linear(x, H, 24)), 24, H)
        gate = net.op("Slice", gates, net.ints(expert), net.ints(expert + 1), net.ints(2))
        y = net.op("Mul", y, gate)
        mixed = y if mixed is None else net.op("Add", mixed, y)
    assert mixed is not None
    return net.model(net.head(net.last(net.op("Add", x, mixed)), H))


def spatiotemporal() -> onnx.ModelProto:
    """Attention across symbols at each time, then along time; F = 4 symbols × 2 columns."""
    net = Net("spatiotemporal")
    x = net.op("Reshape", "rows", net.ints(0, T, 4, 2))
    x = net.linear(x, 2, H)
    x = net.op("Add", x, _attention(net, x, H))
    x = net.op("Transpose", x, perm=[0, 2, 1, 3])
    x = net.op("Add", x, _attention(net, x, H))
    x = net.op("Gather", x, net.const(np.int64(-1)), axis=2)
    return net.model(net.head(net.op("Reshape", x, net.ints(-1, 4 * H)), 4 * H))


ZOO: dict[str, Callable[[], onnx.ModelProto]] = {
    "logistic": logistic,
    "mlp": mlp,
    "lstm": lstm,
    "gru": gru,
    "tcn": tcn,
    "deeplob": deeplob,
    "transformer": transformer,
    "mixture": mixture,
    "spatiotemporal": spatiotemporal,
}


def make_rows(count: int = 64, seed: int = 1) -> np.ndarray:
    """Windows of a wandering series: float32[count, T, F]."""
    rng = np.random.default_rng(seed)
    series = rng.normal(size=(count + T, F)).cumsum(axis=0) * 0.1
    return np.stack([series[i : i + T] for i in range(count)]).astype(np.float32)
