"""Smaller graphs: `step` runs in microseconds, so every operator that only renames axes counts.

`simplify` removes views: a Transpose that moves only axes of length 1 is a Reshape, a chain of
reshapes is one, and one that changes nothing is none; the last row of a causal mask adds zeros.
Dead operators go too. Values stay equal bit for bit (but for the sign of a zero).
"""

from __future__ import annotations

import numpy as np

from tickrt.engines.split.graph import Array, Node, Shape, fingerprint, live

__all__ = ["simplify"]


def simplify(
    nodes: list[Node], shapes: dict[str, Shape], constants: dict[str, Array], outputs: list[str]
) -> list[Node]:
    """Collapse views.

    Args:
        nodes: in order. shapes: of every tensor. constants: is added to. outputs: keep their names.
    """
    root: dict[str, str] = {}  # view → the tensor that it shows
    alias: dict[str, str] = {}
    kept: list[Node] = []
    for node in nodes:
        node.inputs = [alias.get(i, i) for i in node.inputs]
        passed = _passes(node, shapes, constants)
        if passed and node.outputs[0] not in outputs:
            alias[node.outputs[0]] = passed
            continue
        if not _is_view(node, shapes):
            kept.append(node)
            continue
        (output,) = node.outputs
        source = root.get(node.inputs[0], node.inputs[0])
        root[output] = source
        if shapes[source] == shapes[output] and output not in outputs:
            alias[output] = source
            continue
        if shapes[source] == shapes[output]:
            kept.append(Node("Identity", [source], [output], {}, output))
            continue
        target = np.array([-1 if d < 0 else d for d in shapes[output]], np.int64)
        name = f"shape.{fingerprint(target)[-12:]}"
        constants[name] = target
        kept.append(Node("Reshape", [source, name], [output], {}, output))
    return live(kept, outputs)[0]


def _passes(node: Node, shapes: dict[str, Shape], constants: dict[str, Array]) -> str:
    """The operand that an Add of zeros or a Where that is always true hands on; "" for others."""
    if node.domain:
        return ""
    kept = ""
    if node.op == "Add":
        for this, other in (node.inputs, node.inputs[::-1]):
            if other in constants and not np.any(constants[other]):
                kept = this
    elif node.op == "Where" and node.inputs[0] in constants:
        keep = constants[node.inputs[0]]
        kept = node.inputs[1] if np.all(keep) else "" if np.any(keep) else node.inputs[2]
    same = kept in shapes and kept not in constants and shapes[kept] == shapes[node.outputs[0]]
    return kept if same else ""


def _is_view(node: Node, shapes: dict[str, Shape]) -> bool:
    if node.domain or not node.inputs or node.inputs[0] not in shapes:
        return False
    if sum(d < 0 for d in shapes.get(node.outputs[0], (-1, -1))) > 1:
        return False
    if node.op in ("Reshape", "Identity", "Squeeze", "Unsqueeze", "Flatten"):
        return True
    if node.op != "Transpose":
        return False
    shape = shapes[node.inputs[0]]
    perm = node.attrs.get("perm", range(len(shape) - 1, -1, -1))
    long = [axis for axis in perm if shape[axis] != 1]
    return long == sorted(long)
