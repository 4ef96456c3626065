"""Which layers stay in float32: the meaning of ``--keep``.

Entry point: `fp32_nodes`. A pattern is a group (`softmax`, `norm`, `head`, `cell`), an operator's
name, or a glob on node names.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final

from onnx import ModelProto, NodeProto

from tickrt.engines.graph.load import producers_of
from tickrt.errors import PrecisionError

__all__ = ["DEFAULT_FP32_LAYERS", "GROUPS", "fp32_nodes"]

DEFAULT_FP32_LAYERS: Final = ("softmax", "norm", "head")
GROUPS: Final = ("softmax", "norm", "head", "cell")
_SOFTMAX: Final = {"Softmax", "LogSoftmax"}
_NORM: Final = {
    "LayerNormalization",
    "SimplifiedLayerNormalization",
    "InstanceNormalization",
    "GroupNormalization",
    "RMSNormalization",
    "LpNormalization",
}
_PASS: Final = {
    *_SOFTMAX,
    "Add",
    "Cast",
    "Identity",
    "Reshape",
    "Sigmoid",
    "Squeeze",
    "Tanh",
    "Flatten",
    "Unsqueeze",
}


def _head(model: ModelProto) -> set[str]:
    """The last product before each output, its bias, and what follows it."""
    producers = producers_of(model)
    head: set[str] = set()
    waiting = [value.name for value in model.graph.output]
    while waiting:
        node = producers.get(waiting.pop())
        if node is None or node.name in head:
            continue
        if node.op_type in ("MatMul", "Gemm", "Conv"):
            head.add(node.name)
        elif node.op_type in _PASS:
            head.add(node.name)
            waiting.extend(node.input)
    products = {n.name for n in model.graph.node if n.op_type in ("MatMul", "Gemm", "Conv")}
    return head if head & products else set()


def _in_group(node: NodeProto, group: str) -> bool:
    if group == "softmax":
        return node.op_type in _SOFTMAX
    if group == "norm":
        return node.op_type in _NORM
    return "/cell" in node.name


def fp32_nodes(model: ModelProto, patterns: Iterable[str]) -> set[str]:
    """The names of the nodes that `patterns` hold in float32.

    Args:
        model: every node has a name (`name_nodes`); recurrent layers are decomposed already where
            their cells are meant.
        patterns: groups, operator names, or globs on node names.

    Raises:
        PrecisionError: a pattern that is no group fits no node; names what is near.
    """
    nodes = list(model.graph.node)
    chosen: set[str] = set()
    for pattern in patterns:
        if pattern == "head":
            chosen |= _head(model)
            continue
        if pattern in GROUPS:
            chosen.update(node.name for node in nodes if _in_group(node, pattern))
            continue
        fitting = {
            node.name
            for node in nodes
            if node.op_type == pattern
            or fnmatchcase(node.name, pattern)
            or node.name.startswith(f"{pattern}/")
        }
        if not fitting:
            names = sorted({n.name for n in nodes} | {n.op_type for n in nodes})
            near = difflib.get_close_matches(pattern, names, 3) or names[:5]
            raise PrecisionError(
                f"--keep {pattern!r} fits no layer; near: {', '.join(near)}; "
                f"groups: {', '.join(GROUPS)}"
            )
        chosen |= fitting
    return chosen
