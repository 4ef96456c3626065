"""`split`: from a model to `pre`, `step` and, for recurrent layers, `advance`.

Names: for a window input ``rows``, `pre` reads ``rows_known`` (the first T−1 rows) and puts out
the states; `step` reads ``rows_newest`` (one row) and the states under the same names, and puts out
the model's outputs under the model's names. The batch stays dynamic where it was.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import helper

from tickrt.engines.graph.load import inputs_of
from tickrt.engines.split import cost
from tickrt.engines.split.advance import Bank, build_bank, build_carry
from tickrt.engines.split.dependence import Analysis, Reason, analyse
from tickrt.engines.split.finish import Built, Port, finish
from tickrt.engines.split.graph import DTYPE_SIZE, Graph, live
from tickrt.engines.split.graph_builder import GraphBuilder, dtype_name, newest_name
from tickrt.engines.split.prepare import prepare
from tickrt.engines.split.rules import TABLE
from tickrt.errors import SplitError

__all__ = ["PARITY_LIMIT", "Operator", "OutputCost", "SplitResult", "State", "split", "write"]

PARITY_LIMIT = 1e-5  # largest relative error, float32
# A model that rounds inside amplifies the last bit of a sum to one step of its own rounding.
_HALF_LIMIT, _INTEGER_LIMIT = 5e-3, 2e-2
_SURPRISES = (
    ArithmeticError,
    AssertionError,
    LookupError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class State:
    """One tensor from `pre` to `step`. A dimension −k in `shape` is k times the batch;
    `batch_axis` says where that is (−1: nowhere). `recurrent` states can be advanced row by row."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    batch_axis: int
    recurrent: bool
    nbytes: int

    def shape_at(self, batch: int) -> tuple[int, ...]:
        """The shape at one batch size."""
        return tuple(-d * batch if d < 0 else d for d in self.shape)


@dataclass(frozen=True)
class OutputCost:
    """Multiply-adds of one output at batch 1: in the whole model, in `step`, in `pre`."""

    name: str
    full: int
    on_path: int
    off_path: int

    @property
    def share(self) -> float:
        """On-path share of the whole model's multiply-adds."""
        return self.on_path / self.full if self.full else 1.0


@dataclass(frozen=True)
class Operator:
    """One operator of the model, for reports and for the drawing.

    `place`: ``on`` (runs wholly in `step`), ``split`` (its newest positions run in `step`) or
    ``off`` (not on the path). `share`: how many of its positions run in `step`, 0…1. `inputs` and
    `outputs` are tensor names.
    """

    name: str
    op: str
    place: Literal["on", "split", "off"]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    macs: int
    share: float


@dataclass(frozen=True, eq=False)
class SplitResult:
    """What `split` found. Where nothing could be moved, `pre` and `step` are None and `why_not`
    says why; the model then runs whole.

    Attributes:
        window, time_axis: T, and its axis in the window input.
        input, known, newest: names of the window input and of its two parts.
        row_shape, dtype: of one row; the input's shape without batch and time.
        states: what goes from `pre` to `step`; where there is none (only the newest row counts),
            `pre` is None and `step` is not.
        costs: multiply-adds by output.
        reasons: operators that were not split, and why.
        advance: the bank graph under window semantics, or the next-state graph when `stateful`.
        bank: the bank's tensors and their start values; empty when `stateful`.
        no_advance: why there is no `advance`.
        parity_limit: largest relative error to accept, by the model's own precision.
    """

    input: str
    window: int
    time_axis: int
    row_shape: tuple[int, ...]
    stateful: bool
    outputs: tuple[str, ...]
    dtype: str
    pre: onnx.ModelProto | None
    step: onnx.ModelProto | None
    advance: onnx.ModelProto | None
    states: tuple[State, ...]
    bank: tuple[Bank, ...]
    costs: tuple[OutputCost, ...]
    reasons: tuple[Reason, ...]
    why_not: str = ""
    no_advance: str = ""
    operators: tuple[Operator, ...] = ()
    parity_limit: float = PARITY_LIMIT

    @property
    def is_split(self) -> bool:
        """True when `pre` and `step` exist."""
        return self.step is not None

    @property
    def known(self) -> str:
        """Name of `pre`'s input."""
        return f"{self.input}_known"

    @property
    def newest(self) -> str:
        """Name of `step`'s row input."""
        return newest_name(self.input)

    @property
    def state_bytes(self) -> int:
        """Bytes of all states of one stream."""
        return sum(state.nbytes for state in self.states)

    def summary(self) -> dict[str, object]:
        """Plain data for a report or for JSON."""
        return {
            "input": self.input,
            "window": self.window,
            "split": self.is_split,
            "why_not": self.why_not,
            "stateful": self.stateful,
            "state_bytes": self.state_bytes,
            "states": [
                {"name": s.name, "shape": list(s.shape), "dtype": s.dtype, "bytes": s.nbytes}
                for s in self.states
            ],
            "outputs": [
                {
                    "name": c.name,
                    "macs_full": c.full,
                    "macs_on_path": c.on_path,
                    "macs_off_path": c.off_path,
                    "share_on_path": c.share,
                }
                for c in self.costs
            ],
            "not_split": [{"node": r.node, "op": r.op, "why": r.why} for r in self.reasons],
            "advance": self.advance is not None,
            "no_advance": self.no_advance,
        }


def split(
    model: onnx.ModelProto,
    *,
    stateful: bool = False,
    input: str | None = None,
    time_axis: int | None = None,
    window: int | None = None,
) -> SplitResult:
    """Split a windowed model.

    Args:
        model: its window input is [batch, T, F] or [batch, 1, T, F].
        stateful: the model was trained with carried state: `advance` then gives the next states
            from the last ones and `pre` is only the warm-up.
        input: name of the window input; default: the only one.
        time_axis: axis of T; default: the one before the last.
        window: T, where the model leaves it open.

    Raises:
        SplitError: never for a model that is merely hard to split: that gives a result with
            `why_not`. Only for arguments that do not fit the model.
    """
    whole = _whole(model, input, stateful)
    try:
        graph = prepare(model, input=input, time_axis=time_axis, window=window)
        return _split(graph, stateful)
    except SplitError as error:
        if input is not None or time_axis is not None or window is not None:
            raise
        return _unsplit(whole, str(error))
    except _SURPRISES as error:  # a model that no rule foresaw runs whole; it must not stop a start
        return _unsplit(whole, f"a rule failed: {type(error).__name__}: {error}")


def _split(graph: Graph, stateful: bool) -> SplitResult:
    a = analyse(graph, TABLE, stateful)
    step = GraphBuilder(a, known=False)
    answers = {name: step.take(name) for name in graph.outputs}
    step_nodes = step.run()
    pre = GraphBuilder(a, known=True, held=step.held, carried=step.carried)
    wanted = {h.name: pre.take(h.tensor, h.positions) for h in step.held.values()}
    pre_nodes = pre.run()
    wanted.update({c.name: pre.resolve(c.name) for c in step.carried.values()})

    states = _states(a, step)
    row, known = list(graph.shapes[graph.input]), list(graph.shapes[graph.input])
    row[graph.time_axis], known[graph.time_axis] = 1, graph.window - 1
    dtype = graph.dtypes[graph.input]
    state_ports = [
        Port(s.name, helper.np_dtype_to_tensor_dtype(np.dtype(s.dtype)), s.shape) for s in states
    ]
    output_ports = [Port(o, graph.dtypes[o], graph.shapes[o]) for o in graph.outputs]
    row_port = Port(newest_name(graph.input), dtype, tuple(row))
    step_built = finish(
        graph,
        "step",
        step_nodes,
        step.constants,
        [row_port, *state_ports],
        output_ports,
        {o: step.resolve(n) for o, n in answers.items()},
    )
    known_port = Port(f"{graph.input}_known", dtype, tuple(known))
    pre_built = (
        None
        if not states
        else finish(
            graph,
            "pre",
            pre_nodes,
            pre.constants,
            [known_port],
            state_ports,
            {n: pre.resolve(r) for n, r in wanted.items()},
        )
    )
    costs = _costs(graph, step_built, pre_built)
    base = SplitResult(
        input=graph.input,
        window=graph.window,
        time_axis=graph.time_axis,
        row_shape=tuple(d for i, d in enumerate(row) if i not in (0, graph.time_axis)),
        stateful=stateful,
        outputs=tuple(graph.outputs),
        dtype=dtype_name(dtype),
        pre=pre_built.model if pre_built else None,
        step=step_built.model,
        advance=None,
        states=states,
        bank=(),
        costs=costs,
        reasons=tuple(a.reasons),
        operators=_operators(a, step),
        parity_limit=_parity_limit(graph),
    )
    if not any(c.on_path < c.full for c in costs) and not stateful:
        why = "nothing can be moved off the path: " + (
            "; ".join(f"{r.op} {r.node}: {r.why}" for r in a.reasons[:3])
            or "every operator depends on the newest row"
        )
        return _unsplit(base, why)
    return _with_advance(base, a, step, row_port, state_ports)


def _with_advance(
    result: SplitResult, a: Analysis, step: GraphBuilder, row: Port, states: list[Port]
) -> SplitResult:
    try:
        if result.stateful:
            return _changed(result, advance=build_carry(a, step, row, states))
        model, bank = build_bank(a, step, row, states)
        return _changed(result, advance=model, bank=bank)
    except SplitError as error:
        if result.stateful:
            raise
        return _changed(result, no_advance=str(error))


def _changed(result: SplitResult, **changes: object) -> SplitResult:
    return replace(result, **changes)  # type: ignore[arg-type]


def _parity_limit(graph: Graph) -> float:
    types = {graph.dtypes.get(o) for node in graph.nodes for o in node.outputs}
    if any("Quantize" in node.op or "Integer" in node.op for node in graph.nodes):
        return _INTEGER_LIMIT
    half = types & {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
    return _HALF_LIMIT if half else PARITY_LIMIT


def _operators(a: Analysis, step: GraphBuilder) -> tuple[Operator, ...]:
    graph = a.graph
    operators: list[Operator] = []
    for node in graph.nodes:
        if all(graph.is_static(o) for o in node.outputs):
            continue
        place: Literal["on", "split", "off"] = "off"
        share = 0.0
        if node.outputs[0] in step.emitted:
            halved = any(o == node.outputs[0] for o, _ in step.carried)
            positions = len(a.positions(node.outputs[0]))
            share = len(step.emitted[node.outputs[0]]) / positions
            place = "split" if halved or share < 1 else "on"
        inputs = tuple(i for i in node.inputs if i and not graph.is_static(i))
        outputs = tuple(o for o in node.outputs if o)
        work = cost.macs_of(node, graph.shapes)
        operators.append(Operator(node.name, node.op, place, inputs, outputs, work, share))
    return tuple(operators)


def _states(a: Analysis, step: GraphBuilder) -> tuple[State, ...]:
    graph = a.graph
    states: list[State] = []
    entries: list[tuple[str, int, tuple[int, ...], bool]] = []
    for held in step.held.values():
        dims = list(graph.shapes[held.tensor])
        axis = a.flow(held.tensor).axis
        if axis is not None:
            dims[axis] = len(held.positions)
        entries.append((held.name, graph.dtypes[held.tensor], tuple(dims), False))
    for c in step.carried.values():
        entries.append((c.name, c.dtype, c.shape, c.recurrent))
    for name, dtype, shape, recurrent in entries:
        open_axes = [i for i, d in enumerate(shape) if d < 0]
        fixed = graph.shapes[graph.input][0]
        batch = open_axes[0] if open_axes else (0 if shape and shape[0] == fixed else -1)
        size = prod(abs(d) for d in shape) * DTYPE_SIZE[dtype]
        states.append(State(name, shape, dtype_name(dtype), batch, recurrent, size))
    return tuple(states)


def _costs(graph: Graph, step: Built, pre: Built | None) -> tuple[OutputCost, ...]:
    costs = []
    for output in graph.outputs:
        whole, _ = live(graph.nodes, [output])
        on, reads = live(step.nodes, [output])
        off = 0
        if pre is not None:
            needed = [n for s in pre.outputs if s in reads for n in live(pre.nodes, [s])[0]]
            off = cost.macs(list({id(n): n for n in needed}.values()), pre.shapes)
        costs.append(
            OutputCost(
                output,
                cost.macs(whole, graph.shapes),
                cost.macs(on, step.shapes),
                off,
            )
        )
    return tuple(costs)


def _whole(model: onnx.ModelProto, input: str | None, stateful: bool) -> SplitResult:
    names = [entry.name for entry in inputs_of(model)]
    return SplitResult(
        input=input or (names[0] if names else ""),
        window=0,
        time_axis=-1,
        row_shape=(),
        stateful=stateful,
        outputs=tuple(o.name for o in model.graph.output),
        dtype="",
        pre=None,
        step=None,
        advance=None,
        states=(),
        bank=(),
        costs=(),
        reasons=(),
    )


def _unsplit(result: SplitResult, why: str) -> SplitResult:
    return _changed(result, pre=None, step=None, advance=None, states=(), bank=(), why_not=why)


def write(result: SplitResult, folder: str | Path) -> list[Path]:
    """Write ``pre.onnx``, ``step.onnx``, ``advance.onnx`` where it exists, and ``split.json``.

    Raises:
        SplitError: the model was not split.
    """
    if not result.is_split:
        raise SplitError(f"nothing to write: {result.why_not}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for name in ("pre", "step", "advance"):
        model = getattr(result, name)
        if model is not None:
            paths.append(folder / f"{name}.onnx")
            onnx.save(model, str(paths[-1]))
    paths.append(folder / "split.json")
    paths[-1].write_text(json.dumps(result.summary(), indent=1) + "\n")
    return paths
