"""What `split` promises: names, shapes, open batch, files, and reasons where it cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from tickrt.engines.split import draw, split, verify, write
from tickrt.errors import SplitError
from tickrt.models.architectures.net import Net
from tickrt.models.architectures.zoo import recurrent, transformer


def session(model: onnx.ModelProto) -> Any:
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def rows(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((count, *shape)).astype(np.float32)


def small_lstm() -> onnx.ModelProto:
    return recurrent("LSTM", 2, 8, 12, 5)


def convolution(dims: list[int | str], nodes: list[onnx.NodeProto], **weights: Any) -> Any:
    """A model of `nodes` from ``x`` of these dimensions to ``y``."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model


def test_names_of_states_are_the_names_that_step_reads() -> None:
    result = split(small_lstm())
    pre, step = result.pre, result.step
    assert pre is not None
    assert step is not None
    states = [entry.name for entry in pre.graph.output]
    assert states == [state.name for state in result.states]
    assert [entry.name for entry in pre.graph.input] == ["rows_known"] == [result.known]
    assert [entry.name for entry in step.graph.input] == ["rows_newest", *states]
    assert result.newest == "rows_newest"
    assert [entry.name for entry in step.graph.output] == ["probabilities"]


def test_input_shapes_and_open_batch() -> None:
    result = split(small_lstm())
    known = result.pre.graph.input[0].type.tensor_type.shape.dim
    newest = result.step.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value or d.dim_param for d in known] == ["batch", 11, 5]
    assert [d.dim_value or d.dim_param for d in newest] == ["batch", 1, 5]
    x = rows(7 * 12, 5).reshape(7, 12, 5)
    states = session(result.pre).run(None, {"rows_known": x[:, :-1]})
    names = [state.name for state in result.states]
    got = session(result.step).run(
        None, {"rows_newest": x[:, -1:], **dict(zip(names, states, strict=True))}
    )
    np.testing.assert_allclose(got[0], session(small_lstm()).run(None, {"rows": x})[0], atol=1e-6)


def test_state_sizes_add_up() -> None:
    result = split(small_lstm())
    assert {state.dtype for state in result.states} == {"float32"}
    assert all(state.batch_axis == 0 and state.recurrent for state in result.states)
    assert result.state_bytes == 2 * (4 * 8 + 8) * 4


def test_metadata_and_opset_stay() -> None:
    model = small_lstm()
    helper.set_model_props(model, {"tickrt.feature_hash": "abc", "tickrt.horizon_ns": "100"})
    result = split(model)
    for part in (result.pre, result.step, result.advance):
        assert {p.key: p.value for p in part.metadata_props}["tickrt.feature_hash"] == "abc"
        assert part.opset_import[0].version == 17


def test_multiply_adds_of_one_step() -> None:
    result = split(small_lstm())
    (cost,) = result.costs
    assert cost.name == "probabilities"
    # On the path: both layers' W·x and the head; R·h is off it.
    assert cost.on_path == 5 * 32 + 8 * 32 + 8 * 3
    assert cost.full == 12 * (5 * 32 + 8 * 32 + 8 * 32 + 8 * 32) + 8 * 3
    assert cost.share == cost.on_path / cost.full


def test_write_puts_loadable_files(tmp_path: Path) -> None:
    result = split(small_lstm())
    paths = write(result, tmp_path / "out")
    names = ["pre.onnx", "step.onnx", "advance.onnx", "split.json"]
    assert [path.name for path in paths] == names
    for path in paths[:3]:
        session(onnx.load(str(path)))
    facts = json.loads(paths[3].read_text())
    assert facts["split"] is True
    assert facts["state_bytes"] == result.state_bytes


def test_drawing_names_every_operator() -> None:
    result = split(transformer(1, window=6, features=4, width=8, heads=2))
    svg = draw(result)
    assert svg.startswith("<svg")
    halved = sum(operator.place == "split" for operator in result.operators)
    assert svg.count("<rect") == 1 + 3 + len(result.operators) + halved
    places = {operator.place for operator in result.operators}
    assert places == {"split", "on"}


@pytest.mark.parametrize(
    ("dims", "axis"), [([2, 1, 9, 4], None), (["n", 1, 9, 4], None), (["n", 4, 9], 2)]
)
def test_other_layouts(dims: list[int | str], axis: int | None) -> None:
    """[batch, 1, T, F], a fixed batch, and channels first by `time_axis`."""
    spatial = len(dims) - 2
    weight = rows(3, *((1, 3, 4) if spatial == 2 else (4, 3)))
    model = convolution(dims, [helper.make_node("Conv", ["x", "w"], ["y"])], w=weight)
    result = split(model, time_axis=axis)
    assert result.is_split
    assert (result.window, result.row_shape) == (9, (1, 4) if spatial == 2 else (4,))
    if dims[0] != 2:
        assert verify(result, model, rows(12, *result.row_shape)).ok


def test_fixed_batch_of_one() -> None:
    model = small_lstm()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    result = split(model)
    assert verify(result, model, rows(15, 5)).ok
    assert result.advance is None
    assert "batch is fixed" in result.no_advance


def test_open_window_needs_its_length() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("ReduceMax", ["h"], ["y"], axes=[1], keepdims=0),
    ]
    model = convolution(["n", "t", 3], nodes, w=rows(3, 2))
    assert "give `window`" in split(model).why_not
    result = split(model, window=8)
    assert verify(result, model, rows(20, 3)).ok


def test_an_operator_without_a_rule_is_moved_whole() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Trilu", ["h"], ["e"], upper=0),
        helper.make_node("Gather", ["e", "last"], ["y"], axis=1),
    ]
    model = convolution(["n", 6, 3], nodes, w=rows(3, 2), last=np.array(-1))
    result = split(model)
    assert [(r.op, r.why) for r in result.reasons] == [("Trilu", "no rule for this operator")]
    assert result.is_split
    assert verify(result, model, rows(10, 3)).ok


def unsplit(nodes: list[onnx.NodeProto], dims: list[int | str], **weights: Any) -> str:
    result = split(convolution(dims, nodes, **weights))
    assert not result.is_split
    assert result.pre is None
    with pytest.raises(SplitError, match="nothing to write"):
        write(result, ".")
    with pytest.raises(SplitError, match="nothing to verify"):
        verify(result, convolution(dims, nodes, **weights), rows(9, 3))
    assert "<svg" in draw(result)
    return result.why_not


def test_models_that_run_unsplit_say_why() -> None:
    total = [helper.make_node("ReduceLogSumExp", ["x"], ["y"], axes=[1])]
    assert "nothing can be moved" in unsplit(total, ["n", 6, 3])
    assert "one row" in unsplit(total, ["n", 1, 3])
    assert "5 dimensions" in unsplit(total, ["n", 1, 1, 6, 3])
    branch = helper.make_graph([], "g", [], [helper.make_tensor_value_info("x", 1, None)])
    choice = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    assert "control flow" in unsplit([choice], ["n", 6, 3], c=np.array(True))
    broken = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    assert "does not run" in unsplit(broken, ["n", 6, 3], w=rows(5, 2))


def test_two_inputs_are_not_one_window() -> None:
    model = small_lstm()
    model.graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, [1]))
    assert "2 inputs" in split(model).why_not


def test_arguments_that_do_not_fit_raise() -> None:
    with pytest.raises(SplitError, match="no input named"):
        split(small_lstm(), input="nobody")
    with pytest.raises(SplitError, match="made for 12 rows"):
        split(small_lstm(), window=13)
    with pytest.raises(SplitError, match="time_axis 5"):
        split(small_lstm(), time_axis=5)
    with pytest.raises(SplitError, match="a window needs 12"):
        verify(split(small_lstm()), small_lstm(), rows(11, 5))


def test_parity_notices_a_wrong_step() -> None:
    model = small_lstm()
    result = split(model)
    for tensor in result.step.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            wrong = numpy_helper.to_array(tensor) * np.float32(1.01)
            tensor.CopyFrom(numpy_helper.from_array(wrong, tensor.name))
    parity = verify(result, model, rows(14, 5))
    assert not parity.ok
    assert parity.max_rel > 1e-4


def test_several_outputs_have_their_own_costs() -> None:
    net = Net(8, 4)
    last = net.last(net.linear("rows", 4, 6))
    net.op("Identity", last)
    model = net.model(net.nodes[-1].output[0], "two", ["batch", 6])
    model.graph.output.append(helper.make_tensor_value_info(last, TensorProto.FLOAT, None))
    result = split(model)
    assert result.outputs == ("probabilities", last)
    assert [cost.on_path for cost in result.costs] == [24, 24]
    assert verify(result, model, rows(9, 4)).ok


def test_half_precision_rows() -> None:
    weight = rows(3, 2).astype(np.float16)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("ReduceMax", ["h"], ["y"], axes=[1]),
    ]
    model = convolution(["n", 6, 3], nodes, w=weight)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    result = split(model)
    assert (result.dtype, {state.dtype for state in result.states}) == ("float16", {"float16"})
    assert verify(result, model, rows(9, 3)).ok
