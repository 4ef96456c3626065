"""The `onnxruntime` backend for a split model: `step` on the path, `pre` or `advance` after it.

All buffers and OrtValues are made here, once: rows are read where the stream wrote them, states lie
in memory of ours and go from graph to graph without a copy. Window semantics hold: a signal never
comes from states of a window that never existed, since a reset forgets them all.

Limits: batch 1, float32; one engine per symbol, each with its own states.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickrt.compile.jit import CFunction, c_function
from tickrt.engines.graph.check import LoopModel
from tickrt.engines.split.plan import SplitPlan
from tickrt.runtime.backends import kernels as backend_kernels
from tickrt.runtime.backends.handle import RowRing
from tickrt.runtime.backends.onnxruntime import kernels as k_
from tickrt.runtime.backends.onnxruntime.api import OrtSession
from tickrt.runtime.backends.onnxruntime.whole import OrtBacked

__all__ = ["SplitEngine"]

_MODES = {"pre": k_.MODE_PRE, "bank": k_.MODE_BANK, "carry": k_.MODE_CARRY}


@cache
def _functions() -> tuple[CFunction, CFunction, CFunction, CFunction]:
    return (
        c_function(k_.split_submit, 3),
        c_function(backend_kernels.poll, 2),
        c_function(k_.split_advance, 2),
        c_function(k_.split_reset, 1),
    )


class _Graph:
    """A session with its table of input and output sets: one block of the context."""

    def __init__(self, model: bytes, threads: int, inputs: Sequence[str], outputs: Sequence[str]):
        self.session = OrtSession(model, threads)
        texts = [ctypes.create_string_buffer(name.encode()) for name in (*inputs, *outputs)]
        self._texts = texts
        self._names = np.array([ctypes.addressof(text) for text in texts], np.int64)
        self._n = len(inputs), len(outputs)
        self._inputs = self._outputs = np.zeros(0, np.int64)

    def bind(self, inputs: list[list[int]], outputs: list[list[int]]) -> list[int]:
        """The block for these sets of OrtValues."""
        self._inputs = np.array(inputs, np.int64).ravel()
        self._outputs = np.array(outputs, np.int64).ravel()
        names = self._names.ctypes.data
        return [
            self.session.address,
            names,
            self._inputs.ctypes.data,
            self._n[0],
            names + 8 * self._n[0],
            self._outputs.ctypes.data,
            self._n[1],
            0,
        ]


class SplitEngine(OrtBacked):
    """A split model in ONNX Runtime.

    Args:
        model: the whole model, for its names and digest.
        plan: its checked split (`engines.split.plan.plan`), usable.
        ring: the stream's rows.
        threads: intra-op threads of every graph.
    """

    status_column = k_.STATUS // 8

    def __init__(self, model: LoopModel, plan: SplitPlan, ring: RowRing, threads: int = 1) -> None:
        super().__init__(model, ring, threads)
        self._plan = plan
        copies = 2 if plan.mode == "carry" else 1
        self._states = [
            {name: np.zeros(shape, np.float32) for name, shape in plan.states}
            for _ in range(copies)
        ]
        self._spare = np.zeros_like(self._output)  # of the steps that only warm the cache
        self._bank = self._new_bank()
        self._start = self._bank[0].copy()
        self._graphs: list[_Graph] = []
        self._ctx = np.zeros(k_.CTX_BYTES // 8, np.int64)
        self._fill()
        self.reset()

    def _new_bank(self) -> list[NDArray[np.float32]]:
        """Two buffers that hold every tensor of the bank, each starting at an even offset."""
        size = sum(entry.start.size + entry.start.size % 2 for entry in self._plan.bank)
        return [np.zeros(size, np.float32) for _ in range(2)]

    def _bank_values(self, graph: _Graph, buffer: NDArray[np.float32]) -> list[int]:
        values, offset = [], 0
        for entry in self._plan.bank:
            values.append(graph.session.tensor(buffer.ctypes.data + 4 * offset, entry.start.shape))
            offset += entry.start.size + entry.start.size % 2
        return values

    def _row(self, graph: _Graph, first: int, count: int) -> int:
        """An OrtValue over `count` rows that start at ring row `first`."""
        address = self._ring.address + 4 * self._ring.width * first
        return graph.session.tensor(address, (1, count, self._ring.width))

    def _state_values(self, graph: _Graph, copy: int) -> list[int]:
        states = self._states[copy % len(self._states)].values()
        return [graph.session.tensor(state.ctypes.data, state.shape) for state in states]

    def _new(self, model: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> _Graph:
        graph = _Graph(model, self._threads, inputs, outputs)
        self._graphs.append(graph)
        return graph

    def _step(self) -> list[int]:
        plan, t = self._plan, self._ring.window
        names = [name for name, _ in plan.states]
        graph = self._new(plan.step, [plan.newest, *names], [self._model.output])
        rows = [self._row(graph, slot, 1) for slot in range(t)]
        inputs = []
        for copy in range(len(self._states)):
            states = self._state_values(graph, copy)
            inputs += [[row, *states] for row in rows]
        outputs = [self._output, self._spare]
        return graph.bind(
            inputs, [[graph.session.tensor(out.ctypes.data, out.shape)] for out in outputs]
        )

    def _pre(self) -> list[int]:
        plan, t = self._plan, self._ring.window
        graph = self._new(plan.pre, [plan.known], [name for name, _ in plan.states])
        inputs = [[self._row(graph, first, t - 1)] for first in range(1, t + 2)]
        outputs = [self._state_values(graph, copy) for copy in range(len(self._states))]
        return graph.bind(inputs, outputs)

    def _advance(self) -> list[int]:
        plan, t = self._plan, self._ring.window
        if plan.mode == "pre":
            return [0] * 8
        names = [name for name, _ in plan.states]
        if plan.mode == "bank":
            read = [entry.name for entry in plan.bank]
            write = [entry.following for entry in plan.bank] + names
        else:
            read, write = names, [f"{name}_next" for name in names]
        graph = self._new(plan.advance, [plan.newest, *read], write)
        rows = [self._row(graph, slot, 1) for slot in range(t)]
        if plan.mode == "bank":
            held = [self._bank_values(graph, buffer) for buffer in self._bank]
            states = self._state_values(graph, 0)
            outputs = [held[1] + states, held[0] + states]
        else:
            held = [self._state_values(graph, copy) for copy in range(2)]
            outputs = [held[1], held[0]]
        return graph.bind([[row, *held[p]] for p in range(2) for row in rows], outputs)

    def _fill(self) -> None:
        offset = 0
        for entry in self._plan.bank:
            self._start[offset : offset + entry.start.size] = entry.start.ravel()
            offset += entry.start.size + entry.start.size % 2
        ctx = self._ctx
        for block, made in ((k_.STEP, self._step()), (k_.PRE, self._pre())):
            ctx[block // 8 : block // 8 + 8] = made
        ctx[k_.ADVANCE // 8 : k_.ADVANCE // 8 + 8] = self._advance()
        ctx[k_.STAMP // 8] = self._stamp.ctypes.data
        ctx[k_.RUN // 8] = self._graphs[0].session.run_address
        ctx[k_.WINDOW // 8] = self._ring.window
        ctx[k_.MODE // 8] = _MODES[self._plan.mode]
        ctx[k_.START // 8] = self._start.ctypes.data
        ctx[k_.BANK // 8] = self._bank[0].ctypes.data
        ctx[k_.BANK_WORDS // 8] = self._start.nbytes // 8

    def reset(self) -> None:
        """Forget every state, as the loop does through the handle."""
        ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(_functions()[3].address)(
            self._ctx.ctypes.data
        )

    @property
    def waits(self) -> int:
        """Rows whose states had to be prepared on the path."""
        return int(self._ctx[k_.WAITS // 8])

    @property
    def drawing(self) -> str:
        """The model's graph with the on-path part marked, as SVG; empty for a bundle's."""
        return str(self._plan.figures.get("drawing", ""))

    def functions(self) -> tuple[CFunction, CFunction, CFunction, CFunction]:
        """submit, poll, advance, reset."""
        return _functions()

    def describe(self) -> dict[str, Any]:
        """Also what the split does, its error, and the rows a second that it can sustain."""
        figures = self._plan.figures
        return super().describe() | {
            "split": self._plan.mode,
            "on_path_share": figures["on_path_share"],
            "split_error": figures["parity"]["max_rel"],
            "rows_per_s": figures["rows_per_s"],
            "waits": self.waits,
        }

    def close(self) -> None:
        """Release the sessions and their tensors."""
        for graph in self._graphs:
            graph.session.close()
