"""Reference models as ONNX, for benchmarks and tests: the families that windowed trading models
come in, with seeded random weights, and two published networks with their trained weights.

All read ``rows`` float32 [batch, T, F] and put out ``probabilities`` float32 [batch, 3] (down,
flat, up), opset 17, batch open. Nothing here needs PyTorch.

Entry points: `ZOO` (name → maker), `make`, and one function per family.

Sources: DeepLOB, Zhang, Zohren, Roberts, "DeepLOB: Deep Convolutional Neural Networks for Limit
Order Books", IEEE TSP 2019, as laid out in LOBCAST and TLOB; BiN-CTABL, Tran et al., "Data
Normalization for Bilinear Structures in High-Frequency Financial Time-series", ICPR 2020.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from tickrt.models.architectures.checkpoint import load_state_dict
from tickrt.models.architectures.net import Net

__all__ = [
    "TRAINED",
    "ZOO",
    "binctabl",
    "deeplob",
    "make",
    "mlp",
    "recurrent",
    "tcn",
    "trained",
    "transformer",
]

Array = npt.NDArray[Any]
Weights = Mapping[str, Array]


_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(
    kind: str, layers: int, hidden: int, window: int, features: int, seed: int = 0
) -> onnx.ModelProto:
    """Stacked LSTM, GRU or RNN; the last position goes through a linear layer."""
    net, gates = Net(window, features, seed), _GATES[kind]
    x, width = net.op("Transpose", "rows", perm=[1, 0, 2]), features
    extra = {"linear_before_reset": 1} if kind == "GRU" else {}
    for _ in range(layers):
        shapes = (1, gates * hidden, width), (1, gates * hidden, hidden), (1, 2 * gates * hidden)
        weights = [net.uniform(*shape, fan_in=hidden) for shape in shapes]
        outputs = net.op(kind, x, *weights, outputs=1, hidden_size=hidden, **extra)
        x, width = net.op("Squeeze", outputs, np.array([1])), hidden
    x = net.last(net.op("Transpose", x, perm=[1, 0, 2]))
    return net.model(net.head(x, hidden), f"{kind.lower()}_{layers}x{hidden}")


def tcn(
    window: int = 100, features: int = 40, channels: int = 64, seed: int = 0
) -> onnx.ModelProto:
    """Dilated causal convolutions (kernel 3, dilations 1…16) with residual connections."""
    net = Net(window, features, seed)
    x = net.op("Transpose", "rows", perm=[0, 2, 1])
    x = net.op("Conv", x, net.uniform(channels, features, 1, fan_in=features))
    for dilation in (1, 2, 4, 8, 16):
        weight = net.uniform(channels, channels, 3, fan_in=3 * channels)
        bias = net.uniform(channels, fan_in=channels)
        pads = [2 * dilation, 0]
        y = net.op("Conv", x, weight, bias, dilations=[dilation], pads=pads)
        x = net.op("Add", x, net.op("Relu", y))
    x = net.op("Gather", x, np.array(-1), axis=2)
    return net.model(net.head(x, channels), "tcn")


def mlp(window: int = 100, features: int = 40, hidden: int = 256, seed: int = 0) -> onnx.ModelProto:
    """Two hidden layers on the flattened window."""
    net = Net(window, features, seed)
    x = net.op("Flatten", "rows", axis=1)
    for width in (window * features, hidden):
        x = net.op("Relu", net.linear(x, width, hidden))
    return net.model(net.head(x, hidden), "mlp")


def transformer(
    layers: int = 2,
    *,
    causal: bool = True,
    window: int = 100,
    features: int = 40,
    width: int = 64,
    heads: int = 4,
    seed: int = 0,
) -> onnx.ModelProto:
    """Pre-norm encoder layers with learnt positions; the last position is classified."""
    net = Net(window, features, seed)
    position = 0.1 * net.rng.standard_normal((window, width)).astype(np.float32)
    x = net.op("Add", net.linear("rows", features, width), position)
    mask = np.triu(np.full((window, window), -np.inf, np.float32), 1) if causal else None
    for _ in range(layers):
        x = net.op("Add", x, _attention(net, net.layer_norm(x, width), width, heads, mask))
        y = net.op("Relu", net.linear(net.layer_norm(x, width), width, 2 * width))
        x = net.op("Add", x, net.linear(y, 2 * width, width))
    x = net.last(net.layer_norm(x, width))
    return net.model(net.head(x, width), f"transformer_{layers}")


def _attention(net: Net, x: str, width: int, heads: int, mask: Array | None) -> str:
    shape = np.array([0, net.window, heads, width // heads])
    query, key, value = (
        net.op("Transpose", net.op("Reshape", net.linear(x, width, width), shape), perm=perm)
        for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
    )
    scale = np.array(1 / np.sqrt(width // heads), np.float32)
    scores = net.op("Mul", net.op("MatMul", query, key), scale)
    if mask is not None:
        scores = net.op("Add", scores, mask)
    mixed = net.op("MatMul", net.op("Softmax", scores, axis=-1), value)
    mixed = net.op("Transpose", mixed, perm=[0, 2, 1, 3])
    return net.linear(net.op("Reshape", mixed, np.array([0, net.window, width])), width, width)


def deeplob(weights: Weights, window: int = 100) -> onnx.ModelProto:
    """DeepLOB over [batch, T, 40]: convolutions over levels, an inception module, an LSTM."""
    net = Net(window, 40)
    x = net.op("Unsqueeze", "rows", np.array([1]))
    x = _block(net, weights, "conv1", x, "LeakyRelu", stride=2)
    x = _block(net, weights, "conv2", x, "Tanh", stride=2)
    x = _block(net, weights, "conv3", x, "LeakyRelu", stride=1)
    first, second = (_inception(net, weights, f"inp{i}", x) for i in (1, 2))
    pooled = net.op("MaxPool", x, kernel_shape=[3, 1], strides=[1, 1], pads=[1, 0, 1, 0])
    third = _conv(net, weights, "inp3", 1, pooled, "LeakyRelu")
    x = net.op("Concat", first, second, third, axis=1)
    x = net.op("Transpose", net.op("Squeeze", x, np.array([3])), perm=[2, 0, 1])
    hidden = weights["lstm.weight_hh_l0"].shape[1]
    gates = [np.r_[i * hidden : (i + 1) * hidden] for i in (0, 3, 1, 2)]  # i f g o → i o f c
    order = np.concatenate(gates)
    w, r = (weights[f"lstm.weight_{k}_l0"][order][np.newaxis] for k in ("ih", "hh"))
    bias = np.concatenate([weights[f"lstm.bias_{k}_l0"][order] for k in ("ih", "hh")])[np.newaxis]
    x = net.op("LSTM", x, w, r, bias, hidden_size=hidden)
    x = net.op("Gather", net.op("Squeeze", x, np.array([1])), np.array(-1), axis=0)
    x = net.op("Gemm", x, weights["fc1.weight"], weights["fc1.bias"], transB=1)
    return net.model(net.op("Softmax", x, axis=-1), "deeplob")


def _block(net: Net, weights: Weights, name: str, x: str, act: str, stride: int) -> str:
    """One convolution across levels, two of four rows along time."""
    x = _conv(net, weights, name, 0, x, act, strides=[1, stride])
    for index in (3, 6):
        x = _conv(net, weights, name, index, x, act)
    return x


def _inception(net: Net, weights: Weights, name: str, x: str) -> str:
    x = _conv(net, weights, name, 0, x, "LeakyRelu")
    half = weights[f"{name}.3.weight"].shape[2] // 2
    return _conv(net, weights, name, 3, x, "LeakyRelu", pads=[half, 0, half, 0])


def _conv(net: Net, weights: Weights, name: str, index: int, x: str, act: str, **attrs: Any) -> str:
    """Convolution, activation, batch normalisation."""
    x = net.op(
        "Conv", x, weights[f"{name}.{index}.weight"], weights[f"{name}.{index}.bias"], **attrs
    )
    x = net.op("LeakyRelu", x, alpha=0.01) if act == "LeakyRelu" else net.op(act, x)
    keys = ("weight", "bias", "running_mean", "running_var")
    return net.op("BatchNormalization", x, *(weights[f"{name}.{index + 2}.{k}"] for k in keys))


def binctabl(weights: Weights) -> onnx.ModelProto:
    """BiN-CTABL over [batch, 10, 40]: bilinear normalisation, two bilinear layers, attention."""
    features, window = weights["BL.W1"].shape[1], weights["BL.W2"].shape[0]
    net = Net(window, features)
    x = net.op("Transpose", "rows", perm=[0, 2, 1])
    over_time = _standardise(net, x, 2, floor=1e-4)
    over_time = _affine(net, over_time, weights["BiN.l2"], weights["BiN.B2"])
    across = _standardise(net, x, 1, floor=None)
    across = _affine(net, across, weights["BiN.l1"].T, weights["BiN.B1"].T)
    mixed = (net.op("Mul", across, weights["BiN.y1"]), net.op("Mul", over_time, weights["BiN.y2"]))
    x = net.op("Add", *mixed)
    for layer in ("BL", "BL2"):
        x = net.op("MatMul", _max_norm(weights[f"{layer}.W1"]), x)
        x = net.op("MatMul", x, _max_norm(weights[f"{layer}.W2"]))
        x = net.op("Relu", net.op("Add", x, weights[f"{layer}.B"]))
    x = net.op("MatMul", _max_norm(weights["TABL.W1"]), x)
    square = _max_norm(weights["TABL.W"])
    size = len(square)
    attend = square - square * np.eye(size) + np.eye(size) / size
    mask = net.op("Softmax", net.op("MatMul", x, attend.astype(np.float32)), axis=-1)
    share = np.clip(weights["TABL.l"], 0, 1).astype(np.float32)
    attended = net.op("Mul", net.op("Mul", x, 1 - share), mask)
    x = net.op("Add", net.op("Mul", x, share), attended)
    x = net.op("Add", net.op("MatMul", x, _max_norm(weights["TABL.W2"])), weights["TABL.B"])
    x = net.op("Softmax", net.op("Squeeze", x, np.array([2])), axis=1)
    return net.model(x, "binctabl")


def _standardise(net: Net, x: str, axis: int, floor: float | None) -> str:
    """(x − mean) / unbiased deviation along `axis`; deviations below `floor` count as 1."""
    count = net.features if axis == 1 else net.window
    centred = net.op("Sub", x, net.op("ReduceMean", x, axes=[axis]))
    square = net.op("ReduceSum", net.op("Mul", centred, centred), np.array([axis]))
    deviation = net.op("Sqrt", net.op("Div", square, np.array(count - 1, np.float32)))
    if floor is not None:
        low = net.op("Less", deviation, np.array(floor, np.float32))
        deviation = net.op("Where", low, np.array(1, np.float32), deviation)
    return net.op("Div", centred, deviation)


def _affine(net: Net, x: str, scale: Array, shift: Array) -> str:
    return net.op("Add", net.op("Mul", x, scale), shift)


def _max_norm(weight: Array, limit: float = 10.0) -> Array:
    """The network's own rule: a matrix of Frobenius norm above 10 is scaled down to it."""
    norm = float(np.linalg.norm(weight))
    return weight * np.float32(limit / (1e-8 + norm)) if norm > limit else weight


ZOO: dict[str, Callable[[], onnx.ModelProto]] = {
    "lstm-s": lambda: recurrent("LSTM", 2, 96, 64, 128),
    "lstm-m": lambda: recurrent("LSTM", 3, 160, 96, 192),
    "lstm-l": lambda: recurrent("LSTM", 4, 736, 128, 512),
    "lstm-seed": lambda: recurrent("LSTM", 2, 128, 100, 402),
    "gru": lambda: recurrent("GRU", 2, 128, 100, 402),
    "tcn": tcn,
    "mlp": mlp,
    "transformer-1": lambda: transformer(1),
    "transformer-2": lambda: transformer(2),
    "transformer-full": lambda: transformer(1, causal=False),
}

TRAINED: dict[str, tuple[str, Callable[[Weights], onnx.ModelProto]]] = {
    "deeplob": ("tlob_DEEPLOB_BTC_h10.pt", deeplob),
    "binctabl": ("tlob_BINCTABL_BTC_h10.pt", binctabl),
}


def make(name: str) -> onnx.ModelProto:
    """A model of `ZOO` by name."""
    return ZOO[name]()


def trained(name: str, folder: str | Path) -> onnx.ModelProto:
    """A published network with its trained weights.

    Args:
        name: a key of `TRAINED`.
        folder: where the checkpoints lie (``weights_tlob`` of the development data).

    Raises:
        ModelError: the checkpoint is not readable, or holds more than tensors need.
    """
    file, maker = TRAINED[name]
    state = load_state_dict(Path(folder) / file)
    return maker({key.removeprefix("model."): value for key, value in state.items()})
