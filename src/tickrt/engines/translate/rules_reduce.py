"""Folds and what is built on them: reductions, pooling, softmax, normalisations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from tickrt.engines.translate.builder import Body, TranslateError
from tickrt.engines.translate.node import NodeContext
from tickrt.engines.translate.rules_linear import spatial
from tickrt.engines.translate.tensors import Tensor

__all__ = ["RULES"]

_KINDS = {
    "ReduceMax": "max",
    "ReduceMin": "min",
    "ReduceProd": "prod",
    "ReduceSum": "sum",
    "ReduceMean": "sum",
    "ReduceSumSquare": "sum",
    "ReduceL1": "sum",
    "ReduceL2": "sum",
    "ReduceLogSumExp": "sum",
    "ReduceLogSum": "sum",
}
_BEFORE = {"ReduceSumSquare": "square", "ReduceL2": "square", "ReduceL1": "abs"}


def _scaled(c: NodeContext, x: Tensor, factor: float) -> Tensor:
    return c.b.map([x], lambda b, i: b.add("mul", i[0], b.value(factor)))


def _mean(c: NodeContext, x: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    count = math.prod(x.shape[a] for a in axes)
    return _scaled(c, c.b.reduce("sum", x, axes, keep), 1.0 / count)


def _square(c: NodeContext, x: Tensor) -> Tensor:
    return c.b.map([x], lambda b, i: b.add("mul", i[0], i[0]))


def _reduce(c: NodeContext) -> Tensor:
    x = c.x(0)
    rank, keep = len(x.shape), bool(c.integer("keepdims", 1))
    listed = c.ints(1, "axes")
    if not listed:
        if c.integer("noop_with_empty_axes", 0):
            return x
        listed = list(range(rank))
    axes = sorted(a % rank for a in listed)
    if c.op == "ReduceLogSumExp":
        return c.b.reshape(_log_sum_exp(c, x, axes), c.shape())
    before = _BEFORE.get(c.op)
    if before == "square":
        x = _square(c, x)
    elif before == "abs":
        x = c.b.map([x], lambda b, i: b.add("abs", i[0]))
    out = (
        _mean(c, x, axes, keep) if c.op == "ReduceMean" else c.b.reduce(_KINDS[c.op], x, axes, keep)
    )
    if c.op == "ReduceL2":
        out = c.b.map([out], lambda b, i: b.add("sqrt", i[0]))
    if c.op == "ReduceLogSum":
        out = c.b.map([out], lambda b, i: b.add("log", i[0]))
    return out


def _log_sum_exp(c: NodeContext, x: Tensor, axes: Sequence[int]) -> Tensor:
    top = c.b.reduce("max", x, axes, keep=True)
    small = c.b.map([x, top], lambda b, i: b.add("exp", b.add("sub", i[0], i[1])))
    total = c.b.reduce("sum", small, axes, keep=True)
    return c.b.map([total, top], lambda b, i: b.add("add", b.add("log", i[0]), i[1]))


def _softmax(c: NodeContext) -> Tensor:
    x = c.x(0)
    axes = [c.axis(-1, len(x.shape))]
    if c.op == "LogSoftmax":
        total = _log_sum_exp(c, x, axes)
        return c.b.map([x, total], lambda b, i: b.add("sub", i[0], i[1]))
    top = c.b.reduce("max", x, axes, keep=True)
    small = c.b.map([x, top], lambda b, i: b.add("exp", b.add("sub", i[0], i[1])))
    total = c.b.reduce("sum", small, axes, keep=True)
    return c.b.map([small, total], lambda b, i: b.add("div", i[0], i[1]))


def _normalised(
    c: NodeContext, x: Tensor, axes: Sequence[int], epsilon: float, centred: bool
) -> Tensor:
    if centred:
        mean = _mean(c, x, axes, keep=True)
        x = c.b.map([x, mean], lambda b, i: b.add("sub", i[0], i[1]))
    spread = _mean(c, _square(c, x), axes, keep=True)

    def body(b: Body, i: list[int]) -> int:
        return b.add("div", i[0], b.add("sqrt", b.add("add", i[1], b.value(epsilon))))

    return c.b.map([x, spread], body)


def _scale_and_shift(c: NodeContext, x: Tensor, scale: Tensor, shift: Tensor | None) -> Tensor:
    if shift is None:
        return c.b.map([x, scale], lambda b, i: b.add("mul", i[0], i[1]))
    return c.b.map([x, scale, shift], lambda b, i: b.add("add", b.add("mul", i[0], i[1]), i[2]))


def _layer_norm(c: NodeContext) -> Tensor:
    """LayerNormalization and RMSNormalization over the last axes."""
    x = c.x(0)
    if len(c.node.output) > 1 and any(c.node.output[1:]):
        raise TranslateError("its mean and deviation are used")
    axes = range(c.axis(-1, len(x.shape)), len(x.shape))
    centred = c.op == "LayerNormalization"
    y = _normalised(c, x, list(axes), c.number("epsilon", 1e-5), centred)
    return _scale_and_shift(c, y, c.x(1), c.x(2) if c.has(2) else None)


def _over_channels(value: Tensor, rank: int) -> Tensor:
    for _ in range(rank - 2):
        value = value.insert(len(value.shape))
    return value


def _instance_norm(c: NodeContext) -> Tensor:
    x = c.x(0)
    y = _normalised(c, x, list(range(2, len(x.shape))), c.number("epsilon", 1e-5), True)
    scale, shift = (_over_channels(c.x(i), len(x.shape)) for i in (1, 2))
    return _scale_and_shift(c, y, scale, shift)


def _group_norm(c: NodeContext) -> Tensor:
    x, groups = c.x(0), c.integer("num_groups", 1)
    seen = c.b.reshape(x, (x.shape[0], groups, x.shape[1] // groups, *x.shape[2:]))
    y = _normalised(c, seen, list(range(2, len(seen.shape))), c.number("epsilon", 1e-5), True)
    scale, shift = c.x(1), c.x(2)
    if scale.shape[0] != x.shape[1]:  # opset 18: one number a group
        raise TranslateError("it has a scale per group: export with opset 21")
    scale, shift = (_over_channels(v, len(x.shape)) for v in (scale, shift))
    return _scale_and_shift(c, c.b.reshape(y, x.shape), scale, shift)


def _batch_norm(c: NodeContext) -> Tensor:
    """Its statistics are constants: one factor and one summand per channel."""
    x = c.x(0)
    scale, shift, mean, spread = (c.known(i, "statistics").astype(np.float64) for i in (1, 2, 3, 4))
    factor = scale / np.sqrt(spread + c.number("epsilon", 1e-5))
    parts = (factor, shift - mean * factor)
    if len(x.shape) == 1:
        raise TranslateError("its input has no channels")
    tensors = [_over_channels(c.b.constant(p.astype(np.float32)), len(x.shape)) for p in parts]
    return _scale_and_shift(c, x, tensors[0], tensors[1])


def _windows(c: NodeContext, x: Tensor, fill: float) -> tuple[Tensor, tuple[int, ...]]:
    """Pooling: the input with its windows as last axes."""
    kernel = tuple(int(k) for k in c.attributes["kernel_shape"])
    x, strides, dilations = spatial(c, x, kernel, fill)
    shape, step = c.shape(), x.strides[2:]
    walk = tuple(s * t for s, t in zip(step, strides, strict=True))
    reach = tuple(s * d for s, d in zip(step, dilations, strict=True))
    seen = Tensor(x.buffer, x.offset, (*shape, *kernel), (*x.strides[:2], *walk, *reach), x.moves)
    return seen, kernel


def _max_pool(c: NodeContext) -> Tensor:
    if len(c.node.output) > 1 and c.node.output[1]:
        raise TranslateError("its indices are used")
    seen, kernel = _windows(c, c.x(0), float("-inf"))
    rank = len(seen.shape)
    return c.b.reduce("max", seen, range(rank - len(kernel), rank), keep=False)


def _average_pool(c: NodeContext) -> Tensor:
    x = c.x(0)
    seen, kernel = _windows(c, x, 0.0)
    rank = len(seen.shape)
    axes = range(rank - len(kernel), rank)
    total = c.b.reduce("sum", seen, axes, keep=False)
    if seen.buffer == x.buffer or c.integer("count_include_pad", 0):  # nothing was padded
        return _scaled(c, total, 1.0 / math.prod(kernel))
    ones, _ = _windows(c, c.b.constant(np.ones(x.shape, np.float32)), 0.0)
    count = c.b.reduce("sum", ones, axes, keep=False)
    return c.b.map([total, count], lambda b, i: b.add("div", i[0], i[1]))


def _global_pool(c: NodeContext) -> Tensor:
    x = c.x(0)
    axes = range(2, len(x.shape))
    if c.op == "GlobalMaxPool":
        return c.b.reduce("max", x, axes, keep=True)
    return _mean(c, x, axes, keep=True)


RULES: dict[str, Callable[[NodeContext], Tensor]] = {
    **dict.fromkeys(_KINDS, _reduce),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": _softmax,
    "MaxPool": _max_pool,
    "RMSNormalization": _layer_norm,
    "Softmax": _softmax,
}
