"""Numeric precision, written into the ONNX graph as types and Q/DQ nodes.

Entry point: `convert` (model, precision → `Converted`), for strongly typed builders.
`onnxruntime.transformers.float16` converts to FP16, `onnxruntime.quantization` to INT8; BF16 takes
the FP16 graph and changes its types.

Invariants: inputs and outputs stay float32; kept layers compute in float32; recurrent layers are
decomposed where their inside must be seen (INT8, FP8, BF16, or `cell` kept). A combination that
cannot work raises, with the layer's name and a way out.

Known limits: control-flow subgraphs stay as the converters leave them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, get_args

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tickrt.engines.bundle.manifest import Calibration
from tickrt.engines.graph.cells import GATES
from tickrt.engines.graph.interface import Feed
from tickrt.engines.graph.load import (
    FLOATS,
    element_types,
    name_nodes,
    producers_of,
    sort_nodes,
)
from tickrt.engines.precision.decompose import decompose_recurrent
from tickrt.engines.precision.fp32_layers import DEFAULT_FP32_LAYERS, GROUPS, fp32_nodes
from tickrt.engines.precision.quantize import Method, Source, quantize_fp8, quantize_int8
from tickrt.errors import PrecisionError
from tickrt.literals import Precision

__all__ = ["Converted", "Precision", "check_target", "convert", "layer_precision"]


_HALF_MAX: Final = 65504.0
_SINCE: Final = {"bf16": 8.0, "fp8": 8.9}


@dataclass(frozen=True)
class Converted:
    """A model in its new precision, the compute type of each node, and the calibration if any."""

    model: ModelProto
    layers: dict[str, str]
    calibration: Calibration | None = None


def check_target(precision: str, targets: Iterable[str]) -> None:
    """Whether every GPU architecture has the precision.

    Raises:
        PrecisionError: names the architecture, the first that has it, and what to use instead.
    """
    since = _SINCE.get(precision, 0.0)
    for target in targets:
        number = 12.0 if target.startswith("12") else float(target)
        if number < since:
            instead = "fp16" if precision == "bf16" else "int8 or fp16"
            raise PrecisionError(
                f"--precision {precision}: GPU architecture {target} does not have it "
                f"(from {since} on); use {instead}, or another --target"
            )


def layer_precision(model: ModelProto) -> dict[str, str]:
    """The type in which each node computes: that of its Q/DQ inputs, else of its floats."""
    types = element_types(model)
    producers = producers_of(model)
    layers = {}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear", "Cast", "Constant"):
            continue
        sources = [producers[name] for name in node.input if name in producers]
        quantized = [
            types.get(source.input[0]) for source in sources if source.op_type == "DequantizeLinear"
        ]
        if TensorProto.INT8 in quantized:
            layers[node.name] = "int8"
        elif TensorProto.FLOAT8E4M3FN in quantized:
            layers[node.name] = "fp8"
        else:
            kinds = (types.get(name, 0) for name in (*node.output, *node.input))
            layers[node.name] = next((FLOATS[k] for k in kinds if k in FLOATS), "int64")
    return layers


def convert(
    model: ModelProto,
    precision: Precision,
    fp32_layers: Sequence[str] = DEFAULT_FP32_LAYERS,
    feeds: Sequence[Feed] = (),
    method: Method = "minmax",
    targets: Sequence[str] = (),
    stored: Calibration | None = None,
) -> Converted:
    """Bring a float32 model to `precision`.

    Args:
        model: ONNX, float32, opset 13 or newer.
        precision: the type of everything that is not kept.
        fp32_layers: groups, operator names or globs of layers that stay in float32 (`fp32_nodes`).
        feeds: representative inputs, for int8 and fp8.
        method: how their ranges are chosen.
        targets: GPU architectures that the engine is for; empty for the CPU.
        stored: scales of an earlier calibration of the same graph; then no feeds are needed.

    Raises:
        PrecisionError: the combination cannot work; names the layer or target and a way out.
    """
    if precision not in get_args(Precision):
        raise PrecisionError(f"precision {precision!r}: one of {', '.join(get_args(Precision))}")
    check_target(precision, targets)
    named = name_nodes(model)
    if precision == "fp32":
        return Converted(named, layer_precision(named))
    if precision != "fp16" or "cell" in fp32_layers:
        named = decompose_recurrent(named, _fused(named, fp32_layers))
    kept = fp32_nodes(named, fp32_layers)
    calibration = None
    source = Source(feeds, method, stored)
    if precision == "int8":
        result, calibration = quantize_int8(named, kept, source)
    elif precision == "fp8":
        result, calibration = quantize_fp8(named, kept, source)
    else:
        _check_range(named, kept, precision)
        result = _to_half(named, kept)
        if precision == "bf16":
            _to_bfloat(result, named)
    # The converters add marks of their own to the metadata.
    del result.metadata_props[:]
    result.metadata_props.extend(model.metadata_props)
    return Converted(result, layer_precision(result), calibration)


def _fused(model: ModelProto, fp32_layers: Sequence[str]) -> frozenset[str]:
    """Recurrent nodes that the user keeps whole: these need no decomposing."""
    named = [p for p in fp32_layers if p not in GROUPS]
    recurrent = {node.name: node for node in model.graph.node if node.op_type in GATES}
    whole = set()
    for name, node in recurrent.items():
        if any(pattern in (name, node.op_type) for pattern in named):
            whole.add(name)
    return frozenset(whole)


def _check_range(model: ModelProto, kept: set[str], precision: str) -> None:
    """FP16 holds ±65504; a weight beyond that would silently be clipped."""
    if precision != "fp16":
        return
    readers = {name: node for node in model.graph.node for name in node.input}
    for constant in model.graph.initializer:
        node = readers.get(constant.name)
        if node is None or node.name in kept or constant.data_type != TensorProto.FLOAT:
            continue
        values = np.abs(numpy_helper.to_array(constant))
        largest = float(values[np.isfinite(values)].max(initial=0.0))
        if largest > _HALF_MAX:
            raise PrecisionError(
                f"layer {node.name!r} ({node.op_type}): its constant {constant.name!r} reaches "
                f"{largest:.4g}, more than fp16 holds (65504); add --keep '{node.name}', "
                "or use --precision bf16"
            )


def _to_half(model: ModelProto, kept: set[str]) -> ModelProto:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = ModelProto()
    copy.CopyFrom(model)
    converted: ModelProto = convert_float_to_float16(
        copy, keep_io_types=True, node_block_list=sorted(kept)
    )
    sort_nodes(converted.graph)  # the converter appends its Casts
    return name_nodes(converted)


def _to_bfloat(model: ModelProto, original: ModelProto) -> None:
    """Change FP16 to BF16 in place; constants are rounded from their float32 originals, once."""
    import ml_dtypes

    source = {t.name: t for t in original.graph.initializer}
    for constant in model.graph.initializer:
        if constant.data_type != TensorProto.FLOAT16:
            continue
        exact = source.get(constant.name, constant)
        values = numpy_helper.to_array(exact).astype(np.float32)
        raw = values.astype(ml_dtypes.bfloat16).tobytes()
        shape = list(constant.dims)
        constant.CopyFrom(
            helper.make_tensor(constant.name, TensorProto.BFLOAT16, shape, raw, raw=True)
        )
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.BFLOAT16
            if attribute.HasField("t") and attribute.t.data_type == TensorProto.FLOAT16:
                values = numpy_helper.to_array(attribute.t).astype(np.float32)
                raw = values.astype(ml_dtypes.bfloat16).tobytes()
                shape = list(attribute.t.dims)
                attribute.t.CopyFrom(
                    helper.make_tensor("", TensorProto.BFLOAT16, shape, raw, raw=True)
                )
    for value in (*model.graph.value_info, *model.graph.output, *model.graph.input):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.BFLOAT16
