"""Are these weights really 2:4 sparse?

Entry point: `check_sparse`. 2:4 (NVIDIA Ampere and newer): of each 4 neighbours along the summed
axis, at most 2 are not zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from tickrt.errors import BuildError

__all__ = ["check_sparse", "is_two_four"]

_NAMED = 5  # dense layers that an error names


def is_two_four(weights: np.ndarray[Any, Any]) -> bool:
    """Whether [K, …] has at most 2 non-zeros in each 4 along the first axis; K % 4 == 0."""
    if weights.shape[0] % 4:
        return False
    groups = weights.reshape(weights.shape[0] // 4, 4, -1)
    return bool(((groups != 0).sum(axis=1) <= 2).all())


def _summed_first(node: NodeProto, weights: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The weights with the axis that is summed over in front."""
    if node.op_type == "Conv":
        return np.moveaxis(weights, 1, 0)  # [out, in, …]
    transposed = any(a.name == "transB" and helper.get_attribute_value(a) for a in node.attribute)
    return np.moveaxis(weights, -1 if transposed else -2, 0)


def check_sparse(model: ModelProto, kept: set[str]) -> list[str]:
    """The layers whose weights are 2:4.

    Args:
        model: MatMul, Gemm and Conv with constant weights count; recurrent layers decomposed.
        kept: layers that may stay dense (the head, by default).

    Raises:
        BuildError: a layer is dense; names the first ones, with their share of zeros.
    """
    constants = {t.name: t for t in model.graph.initializer}
    sparse, dense = [], []
    for node in model.graph.node:
        if node.op_type not in ("MatMul", "Gemm", "Conv") or node.name in kept:
            continue
        if node.input[1] not in constants:
            continue
        weights = _summed_first(node, numpy_helper.to_array(constants[node.input[1]]))
        if is_two_four(weights):
            sparse.append(node.name)
        else:
            dense.append(f"{node.name} ({(weights == 0).mean():.0%} zeros)")
    if dense or not sparse:
        named = ", ".join(dense[:_NAMED]) or "no layer at all"
        more = f" and {len(dense) - _NAMED} more" if len(dense) > _NAMED else ""
        raise BuildError(
            f"--sparse-weights: not 2:4 along the summed axis: {named}{more}; "
            "prune the model 2 of 4 and fine-tune it, hold layers out with --keep, "
            "or drop --sparse-weights"
        )
    return sparse
