"""Nodes that only make sense one after the other: truth values, quantised numbers, shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from helpers.engine_zoo import Net
from helpers.one_node import program_of, run_program
from tickrt.engines.graph.ort import open_session

SHAPE = (3, 4)


def _chain(build: Callable[[Net], str], opset: int = 21) -> onnx.ModelProto:
    """A model from `rows` [3, 4] to what `build` gives, shown as float32."""
    net = Net("chain")
    shown = net.op("Cast", build(net), to=TensorProto.FLOAT)
    graph = helper.make_graph(
        net.nodes,
        "chain",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info(shown, TensorProto.FLOAT, None)],
        net.constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def _logic(net: Net) -> str:
    zero, half = net.const(np.float32(0)), net.const(np.float32(0.5))
    positive, small = net.op("Less", zero, "rows"), net.op("Less", "rows", half)
    both, one = net.op("And", positive, small), net.op("Xor", positive, small)
    some = net.op("Or", both, net.op("Not", one))
    return net.op("Where", some, "rows", net.op("Cast", one, to=TensorProto.FLOAT))


def _equal_of_truth(net: Net) -> str:
    zero = net.const(np.float32(0))
    return net.op("Equal", net.op("Less", "rows", zero), net.op("Less", zero, "rows"))


def _qdq(net: Net, dtype: Any, axis: int | None, zero: bool = True) -> str:
    count = 1 if axis is None else SHAPE[axis]
    scale = np.linspace(0.01, 0.02, count).astype(np.float32)
    point = np.arange(3, 3 + count).astype(dtype)
    if axis is None:
        scale, point = scale.reshape(()), point.reshape(())
    names = {} if axis is None else {"axis": axis}
    given = [net.const(scale), *([net.const(point)] if zero else [])]
    y = net.op("QuantizeLinear", "rows", *given, **names)
    return net.op("DequantizeLinear", net.op("Transpose", net.op("Transpose", y)), *given, **names)


def _weights(net: Net) -> str:
    """Weights in 8 bits, unpacked in the graph."""
    packed = net.const(net.rng.integers(-128, 127, (4, 5)).astype(np.int8))
    scale, zero = net.const(np.float32([0.01] * 5)), net.const(np.zeros(5, np.int8))
    return net.op("MatMul", "rows", net.op("DequantizeLinear", packed, scale, zero, axis=1))


def _dynamic(net: Net) -> str:
    y, scale, zero = net.op("DynamicQuantizeLinear", "rows", outputs=3)
    weights = net.const(net.rng.integers(-128, 127, (4, 5)).astype(np.int8))
    total = net.op("MatMulInteger", y, weights, zero, net.const(np.int8(2)))
    total = net.op("Add", total, net.const(np.int32([1, 2, 3, 4, 5])))
    return net.op("Mul", net.op("Cast", total, to=TensorProto.FLOAT), scale)


def _qlinear(net: Net) -> str:
    scale, zero = net.const(np.float32(0.02)), net.const(np.uint8(128))
    y = net.op("QuantizeLinear", "rows", scale, zero)
    weights = net.const(net.rng.integers(-128, 127, (4, 5)).astype(np.int8))
    other = [net.const(np.float32([0.01, 0.02, 0.01, 0.03, 0.01])), net.const(np.zeros(5, np.int8))]
    out = [net.const(np.float32(0.05)), net.const(np.uint8(100))]
    y = net.op("QLinearMatMul", y, scale, zero, weights, *other, *out)
    return net.op("DequantizeLinear", y, *out)


def _shape_of(net: Net) -> str:
    """As exporters write a reshape: from the shape that the tensor has."""
    first = net.op("Gather", net.op("Shape", "rows"), net.ints(0), axis=0)
    wanted = net.op("Concat", first, net.ints(2, -1), axis=0)
    size = net.op("Cast", net.op("Size", "rows"), to=TensorProto.FLOAT)
    return net.op("Div", net.op("Reshape", "rows", wanted), size)


def _constant_parts(net: Net) -> str:
    """A constant that an operator makes of constants."""
    table = net.op("ConstantOfShape", net.ints(4, 4))
    return net.op("Add", "rows", net.op("ReduceSum", net.op("Cos", table), net.ints(0)))


CHAINS: dict[str, Callable[[Net], str]] = {
    "logic": _logic,
    "equal of truth values": _equal_of_truth,
    "int8": lambda net: _qdq(net, np.int8, None),
    "uint8 per row": lambda net: _qdq(net, np.uint8, 0),
    "int8 per column": lambda net: _qdq(net, np.int8, 1),
    "uint16": lambda net: _qdq(net, np.uint16, None),
    "no zero point": lambda net: _qdq(net, np.uint8, None, zero=False),
    "weights": _weights,
    "dynamic": _dynamic,
    "qlinear": _qlinear,
    "shape": _shape_of,
    "constants": _constant_parts,
}


@pytest.mark.parametrize("name", CHAINS)
def test_equals_onnx_runtime(name: str) -> None:
    model = _chain(CHAINS[name])
    session = open_session(model, optimise=False)
    for seed in range(5):
        rows = np.random.default_rng(seed).uniform(-3, 3, SHAPE).astype(np.float32)
        feeds: dict[str, Any] = {"rows": rows}
        expected = session.run(None, feeds)[0].ravel()
        plain, small = (run_program(program_of(model, feeds, s), feeds) for s in (False, True))
        np.testing.assert_allclose(small, expected, rtol=2e-5, atol=2e-6)
        np.testing.assert_array_equal(plain, small)
