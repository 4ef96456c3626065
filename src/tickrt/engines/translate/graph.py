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
from tickrt.engines.graph.order import reads_of
from tickrt.engines.split.graph import probe
from tickrt.engines.translate import (
    rules_elementwise,
    rules_linear,
    rules_quantized,
    rules_recurrent,
    rules_reduce,
    rules_shape,
)
from tickrt.engines.translate.builder import ProgramBuilder, TranslateError
from tickrt.engines.translate.node import NodeContext
from tickrt.engines.translate.tensors import Tensor
from tickrt.errors import SplitError

__all__ = ["RULES", "translate_graph"]

Rule = Callable[[NodeContext], Any]
RULES: dict[str, Rule] = {
    **rules_elementwise.RULES,
    **rules_linear.RULES,
    **rules_quantized.RULES,
    **rules_recurrent.RULES,
    **rules_reduce.RULES,
    **rules_shape.RULES,
}
_DOMAINS = ("", "ai.onnx")
# Operators that are the same on whole numbers, and those that are where the numbers have 32 bits.
_ON_INTEGERS = {*rules_shape.RULES, *rules_quantized.RULES, "Max", "MaxPool", "Min", "Relu"}
_ON_INTEGERS |= {"ReduceMax", "ReduceMin", "Where", "Clip"}
_ON_WIDE_INTEGERS = {"Abs", "Add", "Mul", "Neg", "ReduceSum", "Sub", "Sum"}
_RANDOM = ("Random", "Bernoulli", "Multinomial")
_SHAPES = ("Shape", "Size")  # known at batch 1, whatever the values are


def _values(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """Every tensor of the graph at batch 1, fed with zeros."""
    feeds = {}
    for entry in inputs_of(model):
        kind = entry.type.tensor_type
        shape = [d.dim_value or 1 for d in kind.shape.dim]
        feeds[entry.name] = np.zeros(shape, helper.tensor_dtype_to_np_dtype(kind.elem_type))
    constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    try:
        return {**constants, **feeds, **probe(model, feeds)}
    except SplitError as error:
        raise TranslateError(str(error)) from error


def _is_constant(node: onnx.NodeProto, constants: set[str]) -> bool:
    own = node.domain in _DOMAINS
    if own and node.op_type in _SHAPES:
        return True
    if own and node.op_type.startswith(_RANDOM):
        return False
    return all(name in constants for name in reads_of(node) if name)


def _refuse_outputs(c: NodeContext) -> None:
    """Raises TranslateError where an output is none that a program holds: float32 is."""
    for index, name in enumerate(c.node.output):
        if not name:
            continue
        value = c.output(index)
        if not value.size:
            raise TranslateError(f"its output {name!r} is empty")
        kind, wide = value.dtype.kind, value.dtype.itemsize >= 4
        if (kind == "f" and value.dtype != np.float32) or kind not in "fbiu":
            raise TranslateError(f"it computes in {value.dtype}: export the model in float32")
        if kind in "iu" and not (
            c.op in _ON_INTEGERS or c.op == "Cast" or (wide and c.op in _ON_WIDE_INTEGERS)
        ):
            raise TranslateError(f"it computes integers ({value.dtype}) that depend on the rows")


def _translate_node(c: NodeContext) -> dict[str, Tensor]:
    """What the node's rule makes, by name.

    Raises:
        TranslateError: it has no rule, or one that does not fit it.
    """
    node = c.node
    name = node.name or next(output for output in node.output if output)
    operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    rule = RULES.get(node.op_type) if node.domain in _DOMAINS else None
    if rule is None:
        raise TranslateError(f"operator {operator} ({name!r}) has no rule")
    # Generated code shows labels: nothing in a name may end a comment.
    shown = "".join(ch if ch.isprintable() and ch not in "\\*" else "?" for ch in name)
    c.b.label = f"{node.op_type} {shown}"
    made: dict[str, Tensor] = {}
    try:
        _refuse_outputs(c)
        results = rule(c)
        listed = results if isinstance(results, list) else [results]
        for index, (output, tensor) in enumerate(zip(node.output, listed, strict=False)):
            if output and tensor.shape != c.shape(index):
                raise TranslateError(
                    f"its rule gives {tensor.shape}, ONNX Runtime {c.shape(index)}"
                )
            made[output] = tensor
    except (TranslateError, ArithmeticError, LookupError, ValueError) as error:
        raise TranslateError(f"operator {operator} ({name!r}): {error}") from error
    made.pop("", None)
    return made


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
        if _is_constant(node, constants):
            constants.update(node.output)
            continue
        tensors.update(_translate_node(NodeContext(node, builder, tensors, values, constants)))
    outputs = {}
    for entry in model.graph.output:
        if entry.name in constants:
            tensors[entry.name] = builder.constant(values[entry.name], entry.name)
        if entry.name in tensors:
            outputs[entry.name] = tensors[entry.name]
    return outputs
