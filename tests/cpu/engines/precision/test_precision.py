"""Precision written into the graph: numbers, types, kept layers, calibration, refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from helpers.engine_zoo import ZOO, F, H, Net, T, gru, lstm, make_rows, mlp, transformer
from tickrt.engines.graph.interface import Feed
from tickrt.engines.precision.convert import Precision, convert
from tickrt.engines.precision.decompose import decompose_recurrent
from tickrt.errors import PrecisionError

ROWS = make_rows(64)
FEEDS: list[Feed] = [{"rows": ROWS[:32]}, {"rows": ROWS[32:]}]


def run(model: onnx.ModelProto, rows: np.ndarray = ROWS, optimise: bool = True) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    if not optimise:
        # onnxruntime's optimiser computes FP8 Q/DQ on the CPU wrongly; its plain kernels are right.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feed = {value.name: rows for value in session.get_inputs()}
    return np.asarray(session.run(None, feed)[0])


@pytest.mark.parametrize("name", sorted(ZOO))
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp32", 0.0), ("fp16", 4e-3), ("int8", 3e-2), ("fp8", 8e-2)]
)
def test_every_model_in_every_precision(name: str, precision: Precision, tolerance: float) -> None:
    model = ZOO[name]()
    keep = ("softmax", "norm") if name == "logistic" else ("softmax", "norm", "head")
    converted = convert(model, precision, keep, FEEDS)
    onnx.checker.check_model(converted.model, full_check=True)
    error = np.abs(run(converted.model, optimise=precision != "fp8") - run(model)).max()
    assert error <= tolerance
    assert precision in converted.layers.values()
    kinds = [v.type.tensor_type.elem_type for v in converted.model.graph.input]
    assert kinds == [TensorProto.FLOAT]
    assert {e.key: e.value for e in converted.model.metadata_props} == {
        e.key: e.value for e in model.metadata_props
    }
    softmax = [n.name for n in converted.model.graph.node if n.op_type == "Softmax"]
    assert all(converted.layers[n] == "fp32" for n in softmax)


@pytest.mark.parametrize("name", sorted(ZOO))
def test_bf16_graphs(name: str) -> None:
    """onnxruntime has no BF16 on the CPU: types are checked, and constants round once."""
    keep = () if name == "logistic" else ("softmax", "norm", "head")
    model = ZOO[name]()
    converted = convert(model, "bf16", keep)
    types = set(converted.layers.values())
    assert "bf16" in types
    assert "fp16" not in types
    assert not any(t.data_type == TensorProto.FLOAT16 for t in converted.model.graph.initializer)
    originals = {
        t.name: onnx.numpy_helper.to_array(t) for t in decompose_recurrent(model).graph.initializer
    }
    checked = 0
    for constant in converted.model.graph.initializer:
        if constant.data_type == TensorProto.BFLOAT16 and constant.name in originals:
            exact = originals[constant.name].astype(np.float32)
            rounded = np.asarray(onnx.numpy_helper.to_array(constant)).astype(np.float32)
            np.testing.assert_allclose(rounded, exact, rtol=2**-8, atol=1e-30)
            checked += 1
    assert checked


def _recurrent(
    kind: str, gates: int, direction: str, initial: bool, **extra: Any
) -> onnx.ModelProto:
    net = Net(f"{kind}_{direction}", seed=3)
    d = 2 if direction == "bidirectional" else 1
    x = net.op("Transpose", "rows", perm=[1, 0, 2])
    inputs = [x, net.weight(d, gates * H, F), net.weight(d, gates * H, H)]
    inputs.append(net.weight(d, 2 * gates * H))
    if initial:
        width = net.op("Slice", "rows", net.ints(0), net.ints(1), net.ints(1))
        flat = net.op("Squeeze", width, net.ints(1))
        state = net.op("MatMul", flat, net.weight(F, d * H))
        state = net.op("Reshape", state, net.ints(-1, d, H))
        state = net.op("Transpose", state, perm=[1, 0, 2])
        inputs += ["", state, *([state] if kind == "LSTM" else [])]
    y, h, *_ = net.op(
        kind,
        *inputs,
        outputs=3 if kind == "LSTM" else 2,
        hidden_size=H,
        direction=direction,
        name="cell",
        **extra,
    )
    total = net.op("ReduceSum", y, net.ints(0, 1), keepdims=0)
    last = net.op("ReduceSum", h, net.ints(0), keepdims=0)
    return net.model(net.head(net.op("Add", total, last), H))


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("initial", [False, True])
@pytest.mark.parametrize(
    ("kind", "gates", "extra"),
    [
        ("LSTM", 4, {}),
        ("GRU", 3, {"linear_before_reset": 0}),
        ("GRU", 3, {"linear_before_reset": 1}),
        ("RNN", 1, {}),
    ],
)
def test_decomposed_cells_equal_the_fused_operator(
    kind: str, gates: int, extra: dict[str, int], direction: str, initial: bool
) -> None:
    model = _recurrent(kind, gates, direction, initial, **extra)
    cells = decompose_recurrent(model)
    onnx.checker.check_model(cells, full_check=True)
    assert kind not in {node.op_type for node in cells.graph.node}
    np.testing.assert_allclose(run(cells), run(model), atol=2e-6)


def test_keep_holds_what_it_names() -> None:
    layers = convert(lstm(), "fp16", ("cell", "head")).layers
    assert {kind for name, kind in layers.items() if "/cell" in name} == {"fp32"}
    assert layers["lstm0/d0/t3/recurrent"] == "fp16"
    assert layers["head"] == "fp32"
    whole = convert(lstm(), "int8", ("lstm0", "softmax"), FEEDS)
    assert whole.layers["lstm0"] == "fp32"
    assert whole.layers["lstm1/d0/input"] == "int8"
    kept = convert(transformer(), "fp16", ("matmul_[01]", "LayerNormalization")).layers
    assert kept["matmul_0"] == "fp32"
    assert "fp16" in kept.values()


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_calibration_is_reproducible(method: Any) -> None:
    first, second = (convert(mlp(), "int8", feeds=FEEDS, method=method) for _ in range(2))
    assert first.model.SerializeToString() == second.model.SerializeToString()
    assert first.calibration == second.calibration
    assert first.calibration is not None
    assert (first.calibration.method, first.calibration.samples) == (method, 64)
    assert all(scale > 0 for scale in first.calibration.scales.values())


def test_methods_choose_different_ranges() -> None:
    outlier = ROWS.copy()
    outlier[0, 0, 0] = 50.0
    scales = {}
    for method in ("minmax", "entropy", "percentile"):
        result = convert(mlp(), "int8", feeds=[{"rows": outlier}], method=method)  # type: ignore[arg-type]
        assert result.calibration is not None
        scales[method] = result.calibration.scales["t0_0"]
    assert scales["minmax"] == pytest.approx(50 / 127, rel=0.01)
    assert scales["entropy"] < scales["minmax"] / 2
    assert scales["percentile"] < scales["minmax"]


def test_only_quantised_layers_read_rounded_tensors() -> None:
    graph = convert(transformer(), "int8", feeds=FEEDS).model.graph
    made = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type in ("Add", "LayerNormalization", "Transpose"):
            sources = {made[name].op_type for name in node.input if name in made}
            assert "DequantizeLinear" not in sources


def test_states_that_are_put_out_are_not_rounded() -> None:
    net = Net("states")
    hidden = net.op("Tanh", net.op("MatMul", net.last("rows"), net.weight(F, H)))
    model = net.model(net.head(net.op("MatMul", hidden, net.weight(H, H)), H))
    model.graph.output.append(helper.make_tensor_value_info(hidden, TensorProto.FLOAT, None))
    quantized = convert(model, "int8", feeds=FEEDS).model
    onnx.checker.check_model(quantized)
    made = {name: node.op_type for node in quantized.graph.node for name in node.output}
    assert made[hidden] == "Tanh"
    assert list(made.values()).count("DequantizeLinear") == 2


def _huge() -> onnx.ModelProto:
    net = Net("huge")
    big = net.const(np.full((F, H), 1e5, np.float32))
    x = net.op("MatMul", net.last("rows"), big, name="loud")
    return net.model(net.head(net.op("Tanh", x), H))


def _clipped() -> onnx.ModelProto:
    return _recurrent("LSTM", 4, "forward", False, clip=1.0)


def _any_length() -> onnx.ModelProto:
    model = lstm()
    model.graph.input[0].CopyFrom(
        helper.make_tensor_value_info("rows", TensorProto.FLOAT, ("batch", "time", F))
    )
    return model


@pytest.mark.parametrize(
    ("make", "precision", "options", "words"),
    [
        (_huge, "fp16", {}, "layer 'loud' .*65504.*--keep 'loud'"),
        (_clipped, "int8", {"feeds": FEEDS}, "layer 'cell' .*'clip'.*--keep 'cell'"),
        (_any_length, "int8", {"feeds": FEEDS}, "layer 'lstm0'.*time steps is not fixed"),
        (mlp, "int8", {}, "--calibrate"),
        (
            mlp,
            "int8",
            {"feeds": FEEDS, "fp32_layers": ("MatMul", "Gemm")},
            "no layer can be quantised",
        ),
        (gru, "fp16", {"fp32_layers": ("gru",)}, "fits no layer; near: gru[01]"),
        (mlp, "fp8", {"feeds": FEEDS, "targets": ("8.6",)}, "8.6 does not have it.*int8 or fp16"),
        (mlp, "bf16", {"targets": ("7.5",)}, "7.5 does not have it.*use fp16"),
        (mlp, "int4", {}, "one of fp32, fp16"),
    ],
)
def test_refusals_name_the_layer_and_the_way_out(
    make: Callable[[], onnx.ModelProto], precision: Any, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(PrecisionError, match=words):
        convert(make(), precision, **options)


def test_variable_length_survives() -> None:
    model = transformer()
    rows = np.concatenate([ROWS, ROWS], axis=1)
    assert rows.shape[1] == 2 * T
    for precision in ("fp16", "int8"):
        converted = convert(model, precision, feeds=FEEDS).model  # type: ignore[arg-type]
        assert np.abs(run(converted, rows) - run(model, rows)).max() < 0.05
