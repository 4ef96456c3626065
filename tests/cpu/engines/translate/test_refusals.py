"""What no generated kernel computes is refused, with the node's name and the reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from helpers.one_node import Case, const, model_of, program_of
from tickrt.engines.translate import TranslateError

X = np.arange(12, dtype=np.float32).reshape(3, 4)
ROWS = X.reshape(3, 1, 4)
W, R, B = (const(np.ones(s, np.float32)) for s in ((1, 8, 4), (1, 8, 2), (1, 16)))
LSTM: dict[str, Any] = {"hidden_size": 2}
P = const(np.ones((1, 6), np.float32))
SCALES, ZEROS = const(np.ones((1, 4), np.float32)), const(np.zeros((1, 4), np.int8))

REFUSED = [
    (Case("ArgMax", [X]), "ArgMax .* has no rule"),
    (Case("TopK", [X, np.array([2])], outputs=2), "TopK .* has no rule"),
    (Case("Mod", [X, X], {"fmod": 1}), "Mod .* has no rule"),
    (Case("NonZero", [X]), "NonZero .* has no rule"),
    (Case("Acosh", [X]), "Acosh .* has no rule"),
    (Case("Cast", [X], {"to": TensorProto.INT64}), "int64.* of a value that depends on the rows"),
    (Case("Cast", [X], {"to": TensorProto.FLOAT16}), "computes in float16: export .* float32"),
    (Case("Cast", [X], {"to": TensorProto.DOUBLE}), "computes in float64"),
    (Case("LSTM", [ROWS, W, R, B, np.array([3], np.int32)], LSTM), "sequence lengths or peepholes"),
    (Case("LSTM", [ROWS, W, R, B, None, None, None, P], LSTM), "sequence lengths or peepholes"),
    (Case("LSTM", [ROWS, W, R], {**LSTM, "clip": 1.0}), "'clip'"),
    (Case("LSTM", [ROWS, W, R], {**LSTM, "activations": ["Relu", "Tanh", "Tanh"]}), "Relu"),
    (Case("MaxPool", [X[None]], {"kernel_shape": [2]}, 2), "its indices are used"),
    (Case("LayerNormalization", [X, X[0], X[0]], {}, 2), "mean and deviation are used"),
    (Case("Dropout", [X, None, const(np.array(True))], opset=13), "training mode"),
    (Case("Slice", [X, np.array([2]), np.array([2]), np.array([0])]), "'y0' is empty"),
    (Case("Split", [X, np.array([0, 4])], {"axis": 1}, 2), "'y0' is empty"),
    (Case("Expand", [X[:1], np.array([0, 4])]), "'y0' is empty"),
    (Case("Einsum", [X, X], {"equation": "...i,...i->..."}), "ellipsis"),
    (Case("Einsum", [X, X, X], {"equation": "ij,ij,ij->i"}), "one or two operands"),
    (Case("ReduceL2", [X], {"noop_with_empty_axes": 1}, opset=18), "it has no axes"),
    (Case("Gather", [X, const(np.random.default_rng(0).integers(0, 3, 900))]), "scattered places"),
    (Case("QuantizeLinear", [X, SCALES, ZEROS], {"block_size": 3, "axis": 0}, opset=21), "scales"),
]


@pytest.mark.parametrize(("case", "reason"), REFUSED, ids=lambda v: str(v)[:60])
def test_names_the_node_and_the_reason(case: Case, reason: str) -> None:
    model, feeds = model_of(case)
    with pytest.raises(TranslateError, match=reason) as error:
        program_of(model, feeds, small=True)
    assert "'the_node'" in str(error.value) or "'show_y0'" in str(error.value)


def _model(nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "refused",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, (3, 4))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def _branch(name: str, op: str) -> onnx.GraphProto:
    node = helper.make_node(op, ["rows"], [name])
    return helper.make_graph(
        [node], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)]
    )


def _refused(model: onnx.ModelProto, reason: str) -> None:
    with pytest.raises(TranslateError, match=reason):
        program_of(model, {"rows": X}, small=True)


def test_a_branch_that_reads_the_rows_is_no_constant() -> None:
    """Its condition is one, but not what it gives."""
    yes = helper.make_tensor("yes", TensorProto.BOOL, (), [1])
    branches = {"then_branch": _branch("a", "Relu"), "else_branch": _branch("b", "Neg")}
    node = helper.make_node("If", ["yes"], ["y"], name="choose", **branches)
    _refused(_model([node], [yes]), r"operator If \('choose'\) has no rule")


def test_a_loop_is_refused() -> None:
    inputs = [("i", TensorProto.INT64), ("go", TensorProto.BOOL), ("state", TensorProto.FLOAT)]
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["state", "rows"], ["next"]),
        ],
        "body",
        [helper.make_tensor_value_info(n, t, () if n != "state" else (3, 4)) for n, t in inputs],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, (3, 4)),
        ],
    )
    count = helper.make_tensor("count", TensorProto.INT64, (), [2])
    node = helper.make_node("Loop", ["count", "", "rows"], ["y"], name="again", body=body)
    _refused(_model([node], [count]), r"operator Loop \('again'\) has no rule")


def test_random_numbers_are_no_constants() -> None:
    noise = helper.make_node("RandomNormal", [], ["noise"], name="noise", shape=[3, 4])
    add = helper.make_node("Add", ["rows", "noise"], ["y"])
    _refused(_model([noise, add], []), r"operator RandomNormal \('noise'\) has no rule")


def test_a_second_output_that_no_rule_makes_is_no_constant() -> None:
    """The mask of a Dropout is true everywhere here: it must not be taken for a constant."""
    drop = helper.make_node("Dropout", ["rows"], ["kept", "mask"], name="drop")
    use = helper.make_node("Where", ["mask", "kept", "rows"], ["y"], name="use")
    _refused(_model([drop, use], []), r"\('use'\): input 'mask' is an output that no rule makes")


def test_computed_axes_and_shapes_are_refused() -> None:
    cut = helper.make_tensor("starts", TensorProto.INT64, (1,), [0])
    index = helper.make_node("ArgMin", ["rows"], ["found"], name="find", axis=0, keepdims=0)
    take = helper.make_node("Gather", ["rows", "found"], ["y"], name="take")
    _refused(_model([index, take], [cut]), r"operator ArgMin \('find'\) has no rule")


def test_a_foreign_domain_is_named() -> None:
    node = helper.make_node("FusedMatMul", ["rows", "w"], ["y"], name="f", domain="com.microsoft")
    weights = helper.make_tensor("w", TensorProto.FLOAT, (4, 2), [1.0] * 8)
    model = _model([node], [weights])
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    _refused(model, r"operator com\.microsoft\.FusedMatMul \('f'\) has no rule")


def test_names_cannot_leave_the_comments_of_generated_code() -> None:
    node = helper.make_node("Relu", ["rows"], ["y"], name="a*/\n#include <x>\\")
    program = program_of(_model([node], []), {"rows": X}, small=True)
    labels = [op.label for op in program.sections["step"]]
    assert labels == ["Relu a?/?#include <x>?"]
