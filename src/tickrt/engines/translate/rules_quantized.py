"""Integers that a quantised model computes with: whole numbers in float32, cut to their range.

A sum of products of 8-bit numbers is exact up to 2²⁴ here, and rounded beyond; ONNX Runtime's is
exact in 32 bits.

Source: ONNX operator specification, opset 13 … 21.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tickrt.engines.translate.builder import Body, TranslateError
from tickrt.engines.translate.node import NodeContext
from tickrt.engines.translate.rules_linear import matmul
from tickrt.engines.translate.tensors import Tensor

__all__ = ["RULES"]


def _saturated(b: Body, x: int, dtype: np.dtype[Any]) -> int:
    if dtype.kind not in "iu":
        raise TranslateError(f"it makes {dtype}")
    limits = np.iinfo(dtype)
    return b.add("min", b.add("max", x, b.value(float(limits.min))), b.value(float(limits.max)))


def _along(c: NodeContext, index: int, x: Tensor, axis: int) -> Tensor:
    """A scale or zero point, per tensor or per position of `axis`."""
    value = c.x(index)
    if value.size == 1:
        return c.b.reshape(value, ())
    if len(value.shape) != 1 or value.shape[0] != x.shape[axis]:
        raise TranslateError(f"its scales have shape {value.shape}: one, or one per channel")
    return c.b.reshape(value, (value.shape[0], *(1 for _ in x.shape[axis + 1 :])))


def _zero_point(c: NodeContext, index: int, x: Tensor, axis: int) -> list[Tensor]:
    return [_along(c, index, x, axis)] if c.has(index) else []


def _quantize(c: NodeContext) -> Tensor:
    x = c.x(0)
    axis, dtype = c.axis(1, max(1, len(x.shape))), c.output_dtype(0)

    def body(b: Body, i: list[int]) -> int:
        y = b.add("round", b.add("div", i[0], i[1]))
        return _saturated(b, b.add("add", y, i[2]) if len(i) > 2 else y, dtype)

    return c.b.map([x, _along(c, 1, x, axis), *_zero_point(c, 2, x, axis)], body)


def _dequantize(c: NodeContext) -> Tensor:
    x = c.x(0)
    axis = c.axis(1, max(1, len(x.shape)))

    def body(b: Body, i: list[int]) -> int:
        return b.add("mul", b.add("sub", i[0], i[2]) if len(i) > 2 else i[0], i[1])

    return c.b.map([x, _along(c, 1, x, axis), *_zero_point(c, 2, x, axis)], body)


def _dynamic(c: NodeContext) -> list[Tensor]:
    """Scale and zero point come from the values' range, zero included."""
    x = c.x(0)
    axes = list(range(len(x.shape)))
    low, high = c.b.reduce("min", x, axes, False), c.b.reduce("max", x, axes, False)

    def scale(b: Body, i: list[int]) -> int:
        zero = b.value(0.0)
        width = b.add("sub", b.add("max", i[1], zero), b.add("min", i[0], zero))
        step = b.add("div", width, b.value(255.0))
        return b.add("where", b.add("equal", step, zero), b.value(1.0), step)

    def zero_point(b: Body, i: list[int]) -> int:
        least = b.add("min", i[0], b.value(0.0))
        place = b.add("div", b.add("sub", b.value(0.0), least), i[1])
        return b.add("round", _saturated(b, place, np.dtype(np.uint8)))

    def quantized(b: Body, i: list[int]) -> int:
        y = b.add("add", b.add("round", b.add("div", i[0], i[1])), i[2])
        return _saturated(b, y, np.dtype(np.uint8))

    step = c.b.map([low, high], scale)
    zero = c.b.map([low, step], zero_point)
    return [c.b.map([x, step, zero], quantized), step, zero]


def _centred(c: NodeContext, index: int, zero: int, axis: int) -> Tensor:
    """An operand less its zero point, which may differ along `axis`."""
    x = c.x(index)
    if not c.has(zero):
        return x
    return c.b.map(
        [x, _along(c, zero, x, axis % len(x.shape))], lambda b, i: b.add("sub", i[0], i[1])
    )


def _matmul_integer(c: NodeContext) -> Tensor:
    return matmul(c.b, _centred(c, 0, 2, -2), _centred(c, 1, 3, -1), c.shape())


def _qlinear_matmul(c: NodeContext) -> Tensor:
    """Inputs: a, its scale and zero point; b, its; scale and zero point of the result."""
    total = matmul(c.b, _centred(c, 0, 2, -2), _centred(c, 3, 5, -1), c.shape())
    rank, dtype = len(total.shape), c.output_dtype(0)
    left, right = _along(c, 1, total, rank - 2), _along(c, 4, total, rank - 1)
    step, zero = _along(c, 6, total, rank - 1), _along(c, 7, total, rank - 1)

    def body(b: Body, i: list[int]) -> int:
        x = b.add("mul", i[0], b.add("div", b.add("mul", i[1], i[2]), i[3]))
        return _saturated(b, b.add("add", b.add("round", x), i[4]), dtype)

    return c.b.map([total, left, right, step, zero], body)


RULES: dict[str, Callable[[NodeContext], Tensor | list[Tensor]]] = {
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _dynamic,
    "MatMulInteger": _matmul_integer,
    "QLinearMatMul": _qlinear_matmul,
    "QuantizeLinear": _quantize,
}
