"""Models whose recurrent layer names only its last state: the first output is left out."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tickrt.engines.split import split, verify
from tickrt.engines.split.check import random_rows

HIDDEN, WIDTH = 6, 4


def model(kind: str, window: int) -> onnx.ModelProto:
    rng, gates = np.random.default_rng(0), {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.normal(size=shape).astype(np.float32) / 3, name)

    constants = [
        weights("w", 1, gates * HIDDEN, WIDTH),
        weights("r", 1, gates * HIDDEN, HIDDEN),
        weights("head", HIDDEN, 3),
        numpy_helper.from_array(np.array([0]), "axis"),
    ]
    nodes = [
        helper.make_node("Transpose", ["rows"], ["t"], perm=[1, 0, 2]),
        helper.make_node(kind, ["t", "w", "r"], ["", "last"], hidden_size=HIDDEN),
        helper.make_node("Squeeze", ["last", "axis"], ["h"]),
        helper.make_node("MatMul", ["h", "head"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
    ]
    rows = helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["batch", window, WIDTH])
    out = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph(nodes, "left out", [rows], [out], constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    return made


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("window", [2, 10])
def test_it_splits_like_any_other(kind: str, window: int) -> None:
    whole = model(kind, window)
    result = split(whole)
    assert result.is_split, result.why_not
    assert verify(result, whole, random_rows(result, window + 7)).ok
