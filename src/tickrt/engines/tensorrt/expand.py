"""Operators that a parser lacks, written out as the functions that ONNX defines for them.

Entry points: `operators` (what a graph needs), `with_shapes`, `expand`.

Known limits: operators of the default domain that have a function body; others stay as they are,
and the parser says what it makes of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx
from onnx import ModelProto, helper, inliner, shape_inference

from tickrt.engines.graph.load import name_nodes, opset_of
from tickrt.engines.graph.ort import folded

__all__ = ["expand", "operators", "with_shapes"]


def operators(model: ModelProto) -> tuple[str, ...]:
    """The operators of the default domain in a graph, each once."""
    return tuple(sorted({node.op_type for node in model.graph.node if not node.domain}))


def with_shapes(model: ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> ModelProto:
    """A copy whose inputs have these shapes; what follows from the old ones is forgotten."""
    copy = ModelProto()
    copy.CopyFrom(model)
    for value in copy.graph.input:
        if value.name in shapes:
            kind = value.type.tensor_type.elem_type
            value.CopyFrom(helper.make_tensor_value_info(value.name, kind, shapes[value.name]))
    del copy.graph.value_info[:]
    for value in copy.graph.output:
        value.type.tensor_type.ClearField("shape")
    return shape_inference.infer_shapes(copy)


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
    """`model` with the operators `lacking` written out, where ONNX says how. What the bodies work
    out from shapes that are fixed is worked out here: it is what parsers understand least.

    Returns:
        the same graph where there is nothing to write out.

    Raises:
        ModelError: what was written out cannot be read back.
    """
    opset = opset_of(model)
    wanted = [name for name in operators(model) if name in lacking and _has_body(name, opset)]
    if not wanted:
        return model
    expanded = inliner.inline_selected_functions(
        _typed(model), [("", name) for name in wanted], inline_schema_functions=True
    )
    del expanded.graph.value_info[:]
    return name_nodes(folded(expanded))
