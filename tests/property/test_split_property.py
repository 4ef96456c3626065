"""Random graphs of supported operators: step(newest, pre(known)) equals the whole model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickrt.engines.split import split, verify
from tickrt.models.architectures.net import Net

LIMIT = 2e-5


class Maker:
    """A random graph; `x` is the current tensor [batch, length, width]."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.rng = rng
        self.net = Net(int(rng.integers(4, 13)), int(rng.integers(2, 6)), seed)
        self.x, self.length, self.width = "rows", self.net.window, self.net.features

    def set(self, x: str, length: int | None = None, width: int | None = None) -> None:
        self.x = x
        self.length = length or self.length
        self.width = width or self.width

    def on_channels(self, apply: Callable[[str], str]) -> str:
        """Apply to [batch, width, length] and turn back."""
        turned = self.net.op("Transpose", self.x, perm=[0, 2, 1])
        return self.net.op("Transpose", apply(turned), perm=[0, 2, 1])

    def x_as(self, width: int) -> str:
        """A linear layer on the current tensor."""
        return self.net.linear(self.x, self.width, width)

    def choose(self, *options: int) -> int:
        return int(self.rng.choice(options))


def linear(m: Maker) -> None:
    width = m.choose(2, 3, 5)
    m.set(m.net.linear(m.x, m.width, width), width=width)


def unary(m: Maker) -> None:
    m.set(m.net.op(str(m.rng.choice(["Tanh", "Relu", "Sigmoid", "Neg", "Softplus"])), m.x))


def positions(m: Maker) -> None:
    table = m.net.uniform(m.length, m.width, fan_in=1)
    m.set(m.net.op(str(m.rng.choice(["Add", "Mul"])), m.x, table))


def layer_norm(m: Maker) -> None:
    m.set(m.net.layer_norm(m.net.op("Add", m.x, m.net.uniform(m.width, fan_in=1)), m.width))


def softmax(m: Maker) -> None:
    m.set(m.net.op("Softmax", m.x, axis=m.choose(1, 2, 2, 2)))


def conv(m: Maker) -> None:
    kernel, dilation, out = m.choose(1, 2, 3), m.choose(1, 1, 2), m.choose(2, 4)
    reach = (kernel - 1) * dilation
    left, right = [(0, 0), (reach, 0), (reach // 2, reach - reach // 2)][m.choose(0, 1, 2)]
    length = m.length + left + right - reach
    if length < 1:
        return
    weight = m.net.uniform(out, m.width, kernel, fan_in=m.width * kernel)
    attrs = {"dilations": [dilation], "pads": [left, right]}
    m.set(m.on_channels(lambda t: m.net.op("Conv", t, weight, **attrs)), length, out)


def strided(m: Maker) -> None:
    if m.length < 4:
        return
    weight = m.net.uniform(3, m.width, 2, fan_in=m.width * 2)
    out = m.on_channels(lambda t: m.net.op("Conv", t, weight, strides=[2]))
    m.set(out, (m.length - 2) // 2 + 1, 3)


def pool(m: Maker) -> None:
    if m.length < 3:
        return
    kind = str(m.rng.choice(["MaxPool", "AveragePool"]))
    pad = m.choose(0, 1)
    attrs = {"kernel_shape": [3], "pads": [pad, pad]}
    m.set(m.on_channels(lambda t: m.net.op(kind, t, **attrs)), m.length - 2 + 2 * pad)


def batch_norm(m: Maker) -> None:
    channels = [m.width, m.length][m.choose(0, 1)]
    numbers = [m.net.uniform(channels, fan_in=1) for _ in range(3)]
    spread = np.abs(m.net.uniform(channels, fan_in=1)) + 0.5

    def apply(t: str) -> str:
        return m.net.op("BatchNormalization", t, *numbers, spread)

    m.set(m.on_channels(apply) if channels == m.width else apply(m.x))


def recurrent(m: Maker) -> None:
    kind = str(m.rng.choice(["LSTM", "GRU", "RNN"]))
    direction = str(m.rng.choice(["forward", "forward", "reverse", "bidirectional"]))
    gates, hidden = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], m.choose(2, 3)
    sides = 2 if direction == "bidirectional" else 1
    shapes = (gates * hidden, m.width), (gates * hidden, hidden), (2 * gates * hidden,)
    weights = [m.net.uniform(sides, *shape, fan_in=hidden) for shape in shapes]
    extra = {"linear_before_reset": m.choose(0, 1)} if kind == "GRU" else {}
    turned = m.net.op("Transpose", m.x, perm=[1, 0, 2])
    outputs = m.net.ops(
        kind, turned, *weights, outputs=2, hidden_size=hidden, direction=direction, **extra
    )
    if m.rng.random() < 0.2:
        last = m.net.op("Transpose", outputs[1], perm=[1, 0, 2])
        m.set(last, sides, hidden)
    else:
        turned = m.net.op("Transpose", outputs[0], perm=[2, 0, 1, 3])
        shape = np.array([0, m.length, sides * hidden])
        m.set(m.net.op("Reshape", turned, shape), width=sides * hidden)


def attention(m: Maker) -> None:
    width = 4
    query, key, value = (m.net.linear(m.x, m.width, width) for _ in range(3))
    scores = m.net.op("MatMul", query, m.net.op("Transpose", key, perm=[0, 2, 1]))
    kind = m.choose(0, 1, 2)
    past = np.tril(np.ones((m.length, m.length), bool))
    if kind == 1:
        scores = m.net.op("Add", scores, np.where(past, 0, -np.inf).astype(np.float32))
    elif kind == 2:
        scores = m.net.op("Where", past, scores, np.array(-1e9, np.float32))
    m.set(m.net.op("MatMul", m.net.op("Softmax", scores, axis=-1), value), width=width)


def einsum(m: Maker) -> None:
    """Attention of one head, written with Einsum, in one of two layouts."""
    query = m.net.op(
        "Einsum", m.x, m.net.uniform(m.width, 4, fan_in=m.width), equation="btf,fd->btd"
    )
    if m.choose(0, 1):
        scores = m.net.op("Einsum", query, m.x_as(4), equation="bqd,bkd->bqk")
    else:
        turned = m.net.op("Einsum", m.x_as(4), equation="btd->bdt")
        scores = m.net.op("Einsum", query, turned, equation="bqd,bdk->bqk")
    past = np.tril(np.ones((m.length, m.length), bool))
    scores = m.net.op("Add", scores, np.where(past, 0, -np.inf).astype(np.float32))
    weights = m.net.op("Softmax", scores, axis=2)
    m.set(m.net.op("Einsum", weights, m.x_as(4), equation="bqk,bkd->bqd"), width=4)


def cut(m: Maker) -> None:
    start = m.choose(0, 1, 2)
    if m.length - start < 1:
        return
    bounds = [np.array([v]) for v in (start, m.length, 1)]
    m.set(m.net.op("Slice", m.x, *bounds), m.length - start)


def backwards(m: Maker) -> None:
    index = np.arange(m.length)[::-1].copy()
    m.set(m.net.op("Gather", m.x, index, axis=1))


def pad(m: Maker) -> None:
    left, right = m.choose(0, 1, 2), m.choose(0, 0, 1)
    m.set(m.net.op("Pad", m.x, np.array([0, left, 0, 0, right, 0])), m.length + left + right)


def residual(m: Maker) -> None:
    m.set(m.net.op("Add", m.x, m.net.op("Tanh", m.net.linear(m.x, m.width, m.width))))


def beside(m: Maker) -> None:
    parts = [m.x, m.net.op("Sigmoid", m.x)]
    m.set(m.net.op("Concat", *parts, axis=2), width=2 * m.width)


def after(m: Maker) -> None:
    parts = [m.x, m.net.op("Sigmoid", m.x)]
    m.set(m.net.op("Concat", *parts, axis=1), 2 * m.length)


def divided(m: Maker) -> None:
    if m.width < 2:
        return
    sizes = np.array([1, m.width - 1])
    first, second = m.net.ops("Split", m.x, sizes, outputs=2, axis=2)
    m.set(m.net.op("Mul", first, second), width=m.width - 1)


def centred(m: Maker) -> None:
    m.set(m.net.op("Sub", m.x, m.net.op("ReduceMean", m.x, axes=[1])))


def summed(m: Maker) -> None:
    m.set(m.net.op("CumSum", m.x, np.array(1)))


def regrouped(m: Maker) -> None:
    flat = m.net.op("Reshape", m.x, np.array([0, m.length * m.width]))
    m.set(m.net.op("Reshape", flat, np.array([0, m.length, m.width])))


def time_mixing(m: Maker) -> None:
    m.set(m.net.op("MatMul", m.net.uniform(3, m.length, fan_in=m.length), m.x), 3)


BLOCKS = [
    *(linear, unary, positions, layer_norm, softmax, conv, conv, strided, pool, batch_norm),
    *(
        recurrent,
        recurrent,
        attention,
        attention,
        einsum,
        cut,
        backwards,
        pad,
        residual,
        beside,
        after,
    ),
    *(divided, centred, summed, regrouped, time_mixing),
]


def finish(m: Maker, kind: str) -> tuple[str, list[int | str]]:
    if kind == "last":
        return m.net.op("Gather", m.x, np.array(-1), axis=1), ["batch", m.width]
    if kind == "flat":
        flat = m.net.op("Flatten", m.net.op("Tanh", m.x), axis=1)
        weight = m.net.uniform(3, m.length * m.width, fan_in=m.length * m.width)
        return m.net.op("Gemm", flat, weight, m.net.uniform(3, fan_in=1), transB=1), ["batch", 3]
    if kind == "all":
        return m.net.op("Tanh", m.x), ["batch", m.length, m.width]
    op = {"mean": "ReduceMean", "max": "ReduceMax", "sum": "ReduceSum"}[kind]
    bounded = m.net.op("Tanh", m.x)
    if kind == "sum":
        return m.net.op(op, bounded, np.array([1]), keepdims=0), ["batch", m.width]
    return m.net.op(op, bounded, axes=[1], keepdims=0), ["batch", m.width]


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    blocks=st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=6),
    end=st.sampled_from(["last", "last", "flat", "all", "mean", "max", "sum"]),
)
def test_step_of_pre_is_the_whole_model(
    seed: int, blocks: list[Callable[[Maker], None]], end: str
) -> None:
    m = Maker(seed)
    for block in blocks:
        block(m)
    output, shape = finish(m, end)
    model = m.net.model(output, "random", shape)
    result = split(model)
    if not result.is_split:
        assert "nothing can be moved" in result.why_not, result.why_not
        return
    rows = np.random.default_rng(seed).standard_normal((m.net.window + 3, m.net.features))
    parity = verify(result, model, rows.astype(np.float32))
    assert parity.max_rel < LIMIT or parity.max_abs < 1e-6, [b.__name__ for b in blocks]
    assert (parity.advance_rel or 0.0) < LIMIT


@pytest.mark.parametrize("block", sorted(set(BLOCKS), key=lambda b: b.__name__))
@pytest.mark.parametrize("end", ["last", "all", "flat"])
def test_every_block_alone(block: Callable[[Maker], None], end: str) -> None:
    for seed in range(4):
        m = Maker(seed)
        m.set(m.net.linear(m.x, m.width, m.width))
        block(m)
        output, shape = finish(m, end)
        model = m.net.model(output, "alone", shape)
        result = split(model)
        if not result.is_split:
            assert "nothing can be moved" in result.why_not, result.why_not
            continue
        rows = np.random.default_rng(seed).standard_normal((m.net.window + 3, m.net.features))
        parity = verify(result, model, rows.astype(np.float32))
        assert parity.max_rel < LIMIT or parity.max_abs < 1e-6
