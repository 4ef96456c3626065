"""Static calibration: which range each tensor takes on real rows, and INT8/FP8 Q/DQ from that.

Entry points: `quantize_int8` (onnxruntime.quantization does the work) and `quantize_fp8` (the same
calibration, E4M3 Q/DQ nodes written here).

Invariants: symmetric scales with zero points of 0, as TensorRT asks; weights per output channel
(INT8); deterministic: the same rows give the same scales; only the quantised layers read rounded
tensors.

Known limits: MatMul with a constant right side, Gemm and Conv are quantised; a product of two
computed tensors (attention scores) stays in float32.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tickrt.engines.bundle.manifest import Calibration
from tickrt.engines.graph.interface import Feed
from tickrt.engines.graph.load import first_line, opset_of, producers_of, sort_nodes
from tickrt.errors import PrecisionError
from tickrt.literals import CalibrationMethod as Method

__all__ = ["QUANTISED", "Method", "Source", "quantize_fp8", "quantize_int8"]

QUANTISED: Final = ("MatMul", "Gemm", "Conv")
_INT8_MAX: Final = 127.0
_FP8_MAX: Final = 448.0  # largest E4M3FN number (OCP 8-bit floating point specification)


@dataclass(frozen=True)
class Source:
    """Where ranges come from: inputs to run the model on, or the scales of an earlier build."""

    feeds: Sequence[Feed] = ()
    method: Method = "minmax"
    stored: Calibration | None = None


def _reader(feeds: Sequence[Feed]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._feeds: Iterator[Feed] = iter(feeds)

        def get_next(self) -> Feed | None:
            return next(self._feeds, None)

    return Reader()


def _method(method: Method) -> Any:
    from onnxruntime.quantization import CalibrationMethod

    return {
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }[method]


def feeds_digest(feeds: Sequence[Feed]) -> str:
    """SHA-256 over names, shapes and bytes of what the calibration saw."""
    digest = hashlib.sha256()
    for feed in feeds:
        for name, array in sorted(feed.items()):
            digest.update(f"{name}{array.shape}{array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _samples(feeds: Sequence[Feed]) -> int:
    return sum(len(next(iter(feed.values()))) for feed in feeds)


def quantisable(model: ModelProto, kept: set[str]) -> list[NodeProto]:
    """The nodes that are quantised: a constant right side, and not kept."""
    constants = {t.name for t in model.graph.initializer}
    return [
        node
        for node in model.graph.node
        if node.op_type in QUANTISED and node.name not in kept and node.input[1] in constants
    ]


def _targets(model: ModelProto, kept: set[str], source: Source, to: str) -> list[NodeProto]:
    if not source.feeds and source.stored is None:
        raise PrecisionError(
            f"--precision {to} needs representative rows: add --calibrate EVENTS.npz"
        )
    targets = quantisable(model, kept)
    if not targets:
        kinds = ", ".join(sorted({node.op_type for node in model.graph.node}))
        raise PrecisionError(
            f"--precision {to}: no layer can be quantised (MatMul, Gemm or Conv with constant "
            f"weights, not held by --keep); the model has {kinds}; keep less, or use fp16"
        )
    return targets


def quantize_int8(
    model: ModelProto, kept: set[str], source: Source
) -> tuple[ModelProto, Calibration]:
    """INT8 by static calibration, as Q/DQ nodes.

    Args:
        model: float32, recurrent layers decomposed, every node named.
        kept: node names that stay in float32.
        source: where the ranges come from.

    Raises:
        PrecisionError: no rows, nothing to quantise, or no stored scale for a tensor.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    targets = _targets(model, kept, source, "int8")
    kinds = sorted({node.op_type for node in targets})
    ranges = _ranges(model, targets, source, _INT8_MAX)
    with _quiet():
        quantizer = QDQQuantizer(
            onnx.shape_inference.infer_shapes(model),
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QInt8,
            tensors_range=ranges,
            nodes_to_quantize=[node.name for node in targets],
            nodes_to_exclude=[],
            op_types_to_quantize=kinds,
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,  # TensorRT reads no INT32 biases
                "MatMulConstBOnly": True,
                "OpTypesToExcludeOutputQuantization": kinds,
            },
        )
        quantizer.quantize_model()
    quantized = quantizer.model.model
    _only(quantized, {node.name for node in targets})
    sort_nodes(quantized.graph)
    return quantized, _calibration(quantized, source)


def _only(model: ModelProto, targets: set[str]) -> None:
    """Give every node but the quantised ones the tensors from before Q/DQ.

    The quantiser hands the rounded tensor to all of its readers; a residual sum or a cell state
    would lose precision for nothing.
    """
    _keep_outputs(model)
    producers = producers_of(model)
    for node in model.graph.node:
        if node.name in targets or node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        for position, name in enumerate(node.input):
            source = producers.get(name)
            if source is None or source.op_type != "DequantizeLinear":
                continue
            quantize = producers.get(source.input[0])
            if quantize is not None and quantize.op_type == "QuantizeLinear":
                node.input[position] = quantize.input[0]


def _keep_outputs(model: ModelProto) -> None:
    """Give the graph's outputs the tensors from before Q/DQ: their names change places."""
    producers = producers_of(model)
    renamed: dict[str, str] = {}
    for value in model.graph.output:
        last = producers.get(value.name)
        if last is None or last.op_type != "DequantizeLinear":
            continue
        quantize = producers.get(last.input[0])
        if quantize is not None and quantize.op_type == "QuantizeLinear":
            renamed[quantize.input[0]] = value.name
            renamed[value.name] = f"{value.name}_rounded"
    for node in model.graph.node:
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                names[position] = renamed.get(name, name)


def _calibration(model: ModelProto, source: Source) -> Calibration:
    """The scales that were written into the graph, by the tensor that they are for."""
    if source.stored is not None:
        return source.stored
    constants = {t.name: t for t in model.graph.initializer}
    scales = {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[1] in constants:
            scale = numpy_helper.to_array(constants[node.input[1]])
            if scale.size == 1:
                scales[node.input[0]] = float(np.float32(scale.reshape(-1)[0]))
    feeds = source.feeds
    digest = feeds_digest(feeds)
    return Calibration(
        method=source.method, samples=_samples(feeds), rows_sha256=digest, scales=scales
    )


def _stored_ranges(stored: Calibration, targets: Sequence[NodeProto], steps: float) -> Any:
    """Ranges that give the stored scales again, for the inputs of `targets`."""
    from onnxruntime.quantization.calibrate import TensorData, TensorsData

    data = {}
    for node in targets:
        scale = stored.scales.get(node.input[0])
        if scale is None:
            raise PrecisionError(
                f"layer {node.name!r}: no stored scale for its input {node.input[0]!r} "
                "(the graph is another one than the scales were made for): add --calibrate"
            )
        bound = np.float32(scale * steps)
        data[node.input[0]] = TensorData(lowest=-bound, highest=bound)
    return TensorsData(_method("minmax"), data)


def _ranges(model: ModelProto, targets: Sequence[NodeProto], source: Source, steps: float) -> Any:
    """What onnxruntime's calibrator sees around the quantised operators (`TensorsData`)."""
    from onnxruntime.quantization.calibrate import create_calibrator

    if source.stored is not None:
        return _stored_ranges(source.stored, targets, steps)
    feeds, method = source.feeds, source.method
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "model.onnx"
        onnx.save(onnx.shape_inference.infer_shapes(model), path)
        options: dict[str, Any] = {"symmetric": True}
        if method == "entropy":
            # More bins than quantised bins, or there is nothing to choose between.
            options |= {"num_bins": 512, "num_quantized_bins": 128}
        calibrator = create_calibrator(
            path,
            list(QUANTISED),
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=_method(method),
            extra_options=options,
        )
        try:
            calibrator.collect_data(_reader(feeds))
            return calibrator.compute_data()
        except ValueError as error:
            raise PrecisionError(f"calibration failed: {error}") from None


def _bound(ranges: Any, tensor: str) -> float:
    """The largest magnitude of a tensor."""
    low, high = ranges.data[tensor].range_value
    return float(max(np.abs(low).max(), np.abs(high).max()))


def quantize_fp8(
    model: ModelProto, kept: set[str], source: Source
) -> tuple[ModelProto, Calibration]:
    """FP8 (E4M3FN) Q/DQ around MatMul, Gemm and Conv, scales = range / 448.

    Arguments and errors like `quantize_int8`.
    """
    targets = _targets(model, kept, source, "fp8")
    ranges = _ranges(model, targets, source, _FP8_MAX)
    result = _to_opset(model, 19)  # the first with FP8 in QuantizeLinear
    constants = {t.name: t for t in result.graph.initializer}
    names = {node.name for node in targets}
    done: dict[str, str] = {}
    added: list[NodeProto] = []
    for node in result.graph.node:
        if node.name not in names:
            continue
        for position in (0, 1):
            tensor = node.input[position]
            if tensor not in done:
                if tensor in constants:
                    bound = float(np.abs(numpy_helper.to_array(constants[tensor])).max())
                else:
                    bound = _bound(ranges, tensor)
                done[tensor] = _fp8_pair(result, added, tensor, max(bound, 1e-12) / _FP8_MAX)
            node.input[position] = done[tensor]
    result.graph.node.extend(added)
    sort_nodes(result.graph)
    return result, _calibration(result, source)


def _fp8_pair(model: ModelProto, added: list[NodeProto], tensor: str, scale: float) -> str:
    """A QuantizeLinear and DequantizeLinear behind `tensor`; returns the new tensor."""
    scale_name, zero_name = f"{tensor}_fp8_scale", "fp8_zero"
    model.graph.initializer.append(numpy_helper.from_array(np.array(scale, np.float32), scale_name))
    if all(t.name != zero_name for t in model.graph.initializer):
        zero = helper.make_tensor(zero_name, TensorProto.FLOAT8E4M3FN, [], b"\0", raw=True)
        model.graph.initializer.append(zero)
    for kind, source, target in (
        ("QuantizeLinear", tensor, f"{tensor}_fp8"),
        ("DequantizeLinear", f"{tensor}_fp8", f"{tensor}_from_fp8"),
    ):
        inputs = [source, scale_name, zero_name]
        added.append(helper.make_node(kind, inputs, [target], name=f"{target}_node"))
    return f"{tensor}_from_fp8"


def _to_opset(model: ModelProto, version: int) -> ModelProto:
    """The model at a newer opset, by onnx's version converter."""
    have = opset_of(model)
    if have >= version:
        copy = ModelProto()
        copy.CopyFrom(model)
        return copy
    try:
        converted = onnx.version_converter.convert_version(model, version)
    except Exception as error:  # the converter raises RuntimeError and others
        raise PrecisionError(
            f"the model (opset {have}) cannot be brought to opset {version}: {first_line(error)}; "
            f"export it with opset {version}"
        ) from None
    return converted


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the quantiser's advice off the user's terminal; what matters is raised."""
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.root.setLevel(level)
