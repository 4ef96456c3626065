"""The LSTM cell in plain operators beside ONNX Runtime's own LSTM."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tickrt.engines.graph.cells import lstm_cell
from tickrt.engines.graph.ort import OrtGraph

H = 3


class Writer:
    """Collects nodes, as the two users of `lstm_cell` do in their own ways."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, kind: str, label: str, *inputs: str) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [label]))
        return label

    def cut(self, label: str, tensor: str, sizes: list[int]) -> list[str]:
        parts = [f"{label}{i}" for i in range(len(sizes))]
        self.constants.append(numpy_helper.from_array(np.array(sizes, np.int64), label))
        self.nodes.append(helper.make_node("Split", [tensor, label], parts, axis=-1))
        return parts


def model(nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto]) -> onnx.ModelProto:
    def infos(**shapes: list[int]) -> list[onnx.ValueInfoProto]:
        kind = TensorProto.FLOAT
        return [helper.make_tensor_value_info(n, kind, shape) for n, shape in shapes.items()]

    read = {name for node in nodes for name in node.input}
    inputs = [v for v in infos(gates=[2, 4 * H], c=[2, H]) if v.name in read]
    graph = helper.make_graph(nodes, "g", inputs, infos(h_new=[2, H], c_new=[2, H]), constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


@pytest.mark.parametrize("start", [True, False])
def test_it_computes_what_the_operator_does(start: bool) -> None:
    rng = np.random.default_rng(0)
    gates = rng.standard_normal((2, 4 * H), np.float32)
    cell = rng.standard_normal((2, H), np.float32)
    out = Writer()
    names = lstm_cell(out, "gates", "c" if start else None, H)
    for name, public in zip(names, ("h_new", "c_new"), strict=True):
        out.nodes.append(helper.make_node("Identity", [name], [public]))
    got = OrtGraph(model(out.nodes, out.constants)).run({"gates": gates, "c": cell})
    # The operator on a row that is the gates already: W is the identity, R is zero.
    inputs = ["x", "w", "r", "", "", "", "c0" if start else ""]
    constants = {
        "w": np.eye(4 * H, dtype=np.float32)[None],
        "r": np.zeros((1, 4 * H, H), np.float32),
        "axis": np.array([0], np.int64),
    }
    nodes = [
        helper.make_node("Unsqueeze", ["gates", "axis"], ["x"]),
        *([helper.make_node("Unsqueeze", ["c", "axis"], ["c0"])] if start else []),
        helper.make_node("LSTM", inputs, ["", "y_h", "y_c"], hidden_size=H),
        helper.make_node("Squeeze", ["y_h", "axis"], ["h_new"]),
        helper.make_node("Squeeze", ["y_c", "axis"], ["c_new"]),
    ]
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    want = OrtGraph(model(nodes, stored)).run({"gates": gates, "c": cell})
    for name in ("h_new", "c_new"):
        np.testing.assert_allclose(got[name], want[name], rtol=1e-5, atol=1e-6)
