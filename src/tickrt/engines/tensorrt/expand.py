"""Operators that a parser lacks, written out as the functions that ONNX defines for them.

Entry points: `operators` (what a graph needs), `expand`.

Known limits: operators of the default domain that have a function body; others stay as they are,
and the parser says what it makes of them.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx
from onnx import ModelProto, helper, inliner, shape_inference

from tickrt.engines.graph.load import name_nodes, opset_of

__all__ = ["expand", "operators"]


def operators(model: ModelProto) -> tuple[str, ...]:
    """The operators of the default domain in a graph, each once."""
    return tuple(sorted({node.op_type for node in model.graph.node if not node.domain}))


def _has_body(operator: str, opset: int) -> bool:
    try:
        schema = onnx.defs.get_schema(operator, opset)
    except onnx.defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)


def _typed(model: ModelProto) -> ModelProto:
    """The graph with the type of every tensor in it: bodies depend on the types of their inputs."""
    known = shape_inference.infer_shapes(model)
    said = {value.name for value in (*known.graph.value_info, *known.graph.input)}
    for tensor in known.graph.initializer:
        if tensor.name not in said:
            value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            known.graph.value_info.append(value)
    return known


def expand(model: ModelProto, lacking: Collection[str]) -> ModelProto:
    """`model` with the operators `lacking` written out, where ONNX says how.

    Returns:
        the same graph where there is nothing to write out.
    """
    opset = opset_of(model)
    wanted = [name for name in operators(model) if name in lacking and _has_body(name, opset)]
    if not wanted:
        return model
    expanded = inliner.inline_selected_functions(
        _typed(model), [("", name) for name in wanted], inline_schema_functions=True
    )
    del expanded.graph.value_info[:]
    return name_nodes(expanded)
