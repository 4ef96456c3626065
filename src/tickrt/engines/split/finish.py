"""From emitted nodes to a checked ONNX model: names, shapes, tidying."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx
from onnx import helper

from tickrt.engines.graph.load import check_onnx
from tickrt.engines.split.graph import Array, Graph, Node, Shape, build_model, live, probe
from tickrt.engines.split.simplify import simplify
from tickrt.errors import SplitError

__all__ = ["Built", "Port", "finish"]


class Port(NamedTuple):
    """An input or output: name, ONNX element type, shape (−1: batch)."""

    name: str
    dtype: int
    shape: Shape


@dataclass(frozen=True, eq=False)
class Built:
    """A finished graph and the shapes of its tensors."""

    model: onnx.ModelProto
    nodes: list[Node]
    shapes: dict[str, Shape]
    outputs: list[str]


def finish(
    graph: Graph,
    name: str,
    nodes: list[Node],
    constants: dict[str, Array],
    inputs: list[Port],
    outputs: list[Port],
    answers: dict[str, str],
) -> Built:
    """Name the outputs, simplify, and build.

    Args:
        answers: output name → the emitted tensor that it is.

    Raises:
        SplitError: the finished graph does not run (a rule is wrong).
    """
    constants = dict(constants)
    nodes = _name_outputs(nodes, constants, inputs, answers)
    names = [port.name for port in outputs]
    nodes, _ = live(nodes, names)
    draft = build_model(graph, name, nodes, constants, list(inputs), list(outputs))
    shapes = _shapes(draft, inputs)
    shapes.update({key: tuple(value.shape) for key, value in constants.items()})
    nodes = simplify(nodes, shapes, constants, names)
    shapes.update({key: tuple(value.shape) for key, value in constants.items()})
    model = build_model(graph, name, nodes, constants, list(inputs), list(outputs))
    check_onnx(model, f"the {name} graph", "a rule of the split is wrong", SplitError)
    return Built(model, nodes, shapes, names)


def _name_outputs(
    nodes: list[Node], constants: dict[str, Array], inputs: list[Port], answers: dict[str, str]
) -> list[Node]:
    """Give the answers their public names; an answer that is no node's own gets an Identity."""
    fixed = {port.name for port in inputs} | set(constants)
    produced = {o for node in nodes for o in node.outputs}
    rename: dict[str, str] = {}
    copies: list[Node] = []
    for public, inner in answers.items():
        if inner in fixed or inner in rename or inner not in produced:
            copies.append(Node("Identity", [inner], [public], {}, public))
        else:
            rename[inner] = public
    for node in nodes:
        node.inputs = [rename.get(i, i) for i in node.inputs]
        node.outputs = [rename.get(o, o) for o in node.outputs]
    for node in copies:
        node.inputs = [rename.get(i, i) for i in node.inputs]
    return nodes + copies


def _shapes(model: onnx.ModelProto, inputs: list[Port]) -> dict[str, Shape]:
    """Shapes of every tensor, from runs at two batch sizes."""
    dynamic = any(d < 0 for port in inputs for d in port.shape)
    seen: list[dict[str, Array]] = []
    for batch in (2, 3) if dynamic else (1,):
        feeds = {
            port.name: np.zeros(
                [batch * -d if d < 0 else d for d in port.shape],
                helper.tensor_dtype_to_np_dtype(port.dtype),
            )
            for port in inputs
        }
        used = {entry.name for entry in model.graph.input}
        values = probe(model, {k: v for k, v in feeds.items() if k in used})
        seen.append({**feeds, **values})
    if len(seen) == 1:
        return {key: tuple(value.shape) for key, value in seen[0].items()}
    return {
        key: tuple(
            x if x == y else -(y - x) for x, y in zip(value.shape, seen[1][key].shape, strict=True)
        )
        for key, value in seen[0].items()
    }
