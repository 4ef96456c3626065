"""An ONNX graph as operations: every node by the rule of its operator.

Entry points: `translate_graph`; `RULES`, one rule per operator.

The graph is run once at batch 1, on zeros: that gives the shape of every tensor and the value of
those that are constant. A node whose inputs are constant is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from tickrt.engines.graph.load import inputs_of
from tickrt.engines.split.graph import probe
from tickrt.engines.translate import (
    rules_elementwise,
    rules_linear,
    rules_recurrent,
    rules_reduce,
    rules_shape,
)
from tickrt.engines.translate.builder import ProgramBuilder, TranslateError
from tickrt.engines.translate.node import NodeContext
from tickrt.engines.translate.tensors import Tensor

__all__ = ["RULES", "translate_graph"]

Rule = Callable[[NodeContext], Any]
RULES: dict[str, Rule] = {
    **rules_elementwise.RULES,
    **rules_linear.RULES,
    **rules_recurrent.RULES,
    **rules_reduce.RULES,
    **rules_shape.RULES,
}
_DOMAINS = ("", "ai.onnx")


def _values(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """Every tensor of the graph at batch 1, fed with zeros."""
    feeds = {}
    for entry in inputs_of(model):
        kind = entry.type.tensor_type
        shape = [d.dim_value or 1 for d in kind.shape.dim]
        feeds[entry.name] = np.zeros(shape, helper.tensor_dtype_to_np_dtype(kind.elem_type))
    constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    return {**constants, **feeds, **probe(model, feeds)}


def translate_graph(
    model: onnx.ModelProto,
    builder: ProgramBuilder,
    inputs: dict[str, Tensor],
    bound: dict[str, Tensor] | None = None,
    skip: Iterable[str] = (),
) -> dict[str, Tensor]:
    """Write the operations of `model`.

    Args:
        inputs: where its inputs lie.
        bound: inner tensors that are there already, by name.
        skip: outputs of nodes that need not be translated.

    Returns:
        where its outputs lie, those that were translated.

    Raises:
        TranslateError: a node has no rule, or one that does not fit it; names the node.
    """
    values = _values(model)
    constants = {i.name for i in model.graph.initializer}
    tensors = {**inputs, **(bound or {})}
    skipped = set(skip)
    for node in model.graph.node:
        if skipped.intersection(node.output):
            skipped.update(node.output)
            continue
        needed = [name for name in node.input if name]
        if all(name in constants for name in needed):
            constants.update(node.output)
            continue
        name = node.name or node.output[0]
        rule = RULES.get(node.op_type) if node.domain in _DOMAINS else None
        if rule is None:
            raise TranslateError(f"operator {node.op_type} ({name!r}) has no rule")
        builder.label = f"{node.op_type} {name}"
        try:
            made = rule(NodeContext(node, builder, tensors, values, constants))
        except (TranslateError, ValueError, KeyError) as error:
            raise TranslateError(f"operator {node.op_type} ({name!r}): {error}") from error
        for output, tensor in zip(
            node.output, made if isinstance(made, list) else [made], strict=False
        ):
            if tensor.shape != values[output].shape:
                raise TranslateError(
                    f"operator {node.op_type} ({name!r}): its rule gives {tensor.shape}, ONNX "
                    f"Runtime {values[output].shape}"
                )
            tensors[output] = tensor
    outputs = {}
    for entry in model.graph.output:
        if entry.name in constants:
            tensors[entry.name] = builder.constant(values[entry.name], entry.name)
        if entry.name in tensors:
            outputs[entry.name] = tensors[entry.name]
    return outputs
