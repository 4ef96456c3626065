"""One ONNX node as a program and in ONNX Runtime: the same inputs, both answers.

Entry points: `Case`; `answers`, `program_of`, `run_program`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tickrt.engines.graph.ort import open_session
from tickrt.engines.translate.builder import ProgramBuilder
from tickrt.engines.translate.graph import translate_graph
from tickrt.engines.translate.optimise import optimise
from tickrt.engines.translate.tensors import Tensor, row_major
from tickrt.program import Move, StreamProgram
from tickrt.program.check import check
from tickrt.program.ir import OUTPUT, ROWS
from tickrt.program.reference import Reference

Array = np.ndarray[Any, Any]


@dataclass
class Case:
    """A node: inputs of float32 are fed, others and those wrapped in `const` are constants.

    Attributes:
        inputs: None leaves one out.
        outputs: how many, or their names ("" leaves one out).
    """

    op: str
    inputs: Sequence[Any]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int | tuple[str, ...] = 1
    opset: int = 17

    def __str__(self) -> str:
        shapes = [None if i is None else _value(i).shape for i in self.inputs]
        return f"{self.op}-{self.opset}-{shapes}-{self.attributes}".replace(" ", "")[:120]


@dataclass(frozen=True)
class const:
    """An input that is a constant of the graph."""

    value: Array


def _value(entry: Any) -> Array:
    return np.asarray(entry.value if isinstance(entry, const) else entry)


def model_of(case: Case) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """The model and what is fed to it."""
    names, feeds, constants = [], {}, []
    for index, entry in enumerate(case.inputs):
        names.append("" if entry is None else f"x{index}")
        if entry is None:
            continue
        value = _value(entry)
        if isinstance(entry, const) or value.dtype != np.float32:
            constants.append(numpy_helper.from_array(value, f"x{index}"))
        else:
            feeds[f"x{index}"] = value
    count = case.outputs if isinstance(case.outputs, int) else 0
    outs = [f"y{i}" for i in range(count)] or list(case.outputs)  # type: ignore[arg-type]
    nodes = [helper.make_node(case.op, names, outs, name="the_node", **case.attributes)]
    shown = [
        helper.make_node("Cast", [out], [f"{out}_shown"], to=TensorProto.FLOAT, name=f"show_{out}")
        for out in outs
        if out
    ]
    graph = helper.make_graph(
        [*nodes, *shown],
        "one",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, v.shape) for n, v in feeds.items()],
        [helper.make_tensor_value_info(n.output[0], TensorProto.FLOAT, None) for n in shown],
        constants,
    )
    opsets = [helper.make_opsetid("", case.opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10), feeds


def answers(case: Case) -> list[Array]:
    """What ONNX Runtime gives."""
    model, feeds = model_of(case)
    return list(open_session(model).run(None, feeds))


def program_of(model: onnx.ModelProto, feeds: dict[str, Array], small: bool) -> StreamProgram:
    """The inputs stand one after the other in a row, the outputs in the output buffer.

    Args:
        small: through the optimiser.
    """
    builder, inputs, at = ProgramBuilder(), {}, 0
    width = sum(v.size for v in feeds.values()) or 1
    builder.buffer(2 * width, "rows", ROWS)
    for name, value in feeds.items():
        move = Move("seq", width, 0, 1)
        inputs[name] = Tensor(ROWS, at, value.shape, row_major(value.shape), (move,))
        at += value.size
    answers = translate_graph(model, builder, inputs)
    outputs = sum(t.size for t in answers.values())
    builder.buffer(outputs, "output", OUTPUT)
    at = 0
    for tensor in answers.values():
        flat = builder.reshape(tensor, (tensor.size,))
        builder.copy(flat, Tensor(OUTPUT, at, (tensor.size,), (1,)))
        at += tensor.size
    sections: dict[str, Any] = {"step": tuple(builder.operations), "advance": ()}
    made = StreamProgram(1, width, outputs, 0, 0, builder.buffers, sections, {"mode": "whole"})
    return check(optimise(made) if small else made)


def run_program(program: StreamProgram, feeds: dict[str, Array], times: int = 1) -> Array:
    """Its outputs, one after the other."""
    engine = Reference(program)
    row = np.concatenate([v.ravel() for v in feeds.values()] or [np.zeros(1, np.float32)])
    for seq in range(1, times):
        engine.submit(seq, row)
        engine.advance(seq, row)
    return engine.submit(times, row)
