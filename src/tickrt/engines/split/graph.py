"""What the split knows of a model: nodes in order, and of every tensor its shape, type and value.

`Graph` is filled by `prepare.prepare`; the analysis and the graph builders only read it.

A shape is a tuple of ints. A dimension that grows with the batch is written as a negative number:
``-1`` is the batch itself, ``-3`` is three times the batch.

Shapes and shape arithmetic are found by running the model twice, with two batch sizes (`probe`):
symbolic inference loses dimensions behind Shape → Gather → Concat → Reshape chains as PyTorch
exports them, running does not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tickrt.engines.graph import order
from tickrt.engines.graph.interface import Array
from tickrt.engines.graph.ort import open_session
from tickrt.errors import SplitError

__all__ = [
    "DTYPE_SIZE",
    "Array",
    "Graph",
    "Node",
    "Shape",
    "build_model",
    "fingerprint",
    "in_order",
    "live",
    "probe",
]

Shape = tuple[int, ...]

DTYPE_SIZE: dict[int, int] = {
    code: np.dtype(helper.tensor_dtype_to_np_dtype(code)).itemsize
    for code in (1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 16)
}


@dataclass(eq=False)
class Node:
    """One operator: `inputs` may hold "" for an input that is left out."""

    op: str
    inputs: list[str]
    outputs: list[str]
    attrs: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    domain: str = ""

    def input(self, index: int) -> str:
        """The input at `index`, or "" when it is left out."""
        return self.inputs[index] if index < len(self.inputs) else ""

    def proto(self) -> onnx.NodeProto:
        """The node as ONNX."""
        return helper.make_node(
            self.op,
            self.inputs,
            self.outputs,
            name=self.name,
            domain=self.domain or None,
            **self.attrs,
        )


@dataclass(eq=False)
class Graph:
    """A prepared model. `constants` holds initialisers and everything folded from them;
    `batch_only` names tensors whose value depends on nothing but the batch size."""

    nodes: list[Node]
    shapes: dict[str, Shape]
    dtypes: dict[str, int]
    constants: dict[str, Array]
    batch_only: set[str]
    input: str
    time_axis: int
    window: int
    outputs: list[str]
    opset: int
    imports: list[onnx.OperatorSetIdProto]
    ir_version: int
    metadata: dict[str, str]

    def is_static(self, tensor: str) -> bool:
        """True when the tensor does not depend on the window at all."""
        return tensor == "" or tensor in self.constants or tensor in self.batch_only

    def rank(self, tensor: str) -> int:
        """Number of dimensions."""
        return len(self.shapes[tensor])

    def length(self, tensor: str, axis: int) -> int:
        """Length along one axis; negative when it grows with the batch."""
        return self.shapes[tensor][axis]


def probe(model: onnx.ModelProto, feeds: dict[str, Array]) -> dict[str, Array]:
    """Run `model` and give the value of every tensor in it, by name.

    Raises:
        SplitError: ONNX Runtime refuses the model or fails on the feeds.
    """
    everything = onnx.ModelProto()
    everything.CopyFrom(model)
    del everything.graph.output[:]
    names: list[str] = []
    for node in model.graph.node:
        names.extend(name for name in node.output if name)
    everything.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    try:
        session = open_session(everything, optimise=False)
        values = session.run(names, feeds) if names else []
    except Exception as error:  # ONNX Runtime's exceptions have no common public base
        raise SplitError(f"the model does not run in ONNX Runtime: {error}") from error
    return dict(zip(names, values, strict=True))


def build_model(
    graph: Graph,
    name: str,
    nodes: list[Node],
    constants: dict[str, Array],
    inputs: Sequence[tuple[str, int, Shape]],
    outputs: Sequence[tuple[str, int, Shape]],
) -> onnx.ModelProto:
    """An ONNX model of `nodes`, with the original's opsets, IR version and metadata.

    Args:
        inputs, outputs: (name, ONNX element type, shape); dimension −1 becomes ``batch``.
    """

    def info(entry: tuple[str, int, Shape]) -> onnx.ValueInfoProto:
        dims = ["batch" if d == -1 else (None if d < 0 else d) for d in entry[2]]
        return helper.make_tensor_value_info(entry[0], entry[1], dims)

    used = {name for node in nodes for name in node.inputs} | {entry[0] for entry in outputs}
    initialisers = [
        numpy_helper.from_array(np.asarray(value, order="C"), key)
        for key, value in constants.items()
        if key in used
    ]
    proto = helper.make_graph(
        [node.proto() for node in nodes],
        name,
        [info(entry) for entry in inputs],
        [info(entry) for entry in outputs],
        initialisers,
    )
    model = helper.make_model(proto, opset_imports=graph.imports, producer_name="tickrt")
    model.ir_version = graph.ir_version
    helper.set_model_props(model, graph.metadata)
    return model


def in_order(nodes: list[Node]) -> list[Node]:
    """Producers before consumers.

    Raises:
        SplitError: there is a cycle.
    """
    ordered, cycle = order.in_order(nodes, lambda node: node.inputs, lambda node: node.outputs)
    if cycle:
        raise SplitError(f"a cycle at {cycle[0].op} {cycle[0].name!r}")
    return ordered


def live(nodes: list[Node], outputs: list[str]) -> tuple[list[Node], set[str]]:
    """The nodes that `outputs` need, and every tensor that they read."""
    return order.live(nodes, outputs, lambda node: node.inputs, lambda node: node.outputs)


def fingerprint(value: Array) -> str:
    """A key under which equal constants are shared."""
    digest = hashlib.sha1(np.ascontiguousarray(value).tobytes(), usedforsecurity=False)
    return f"{value.dtype}{value.shape}{digest.hexdigest()}"
