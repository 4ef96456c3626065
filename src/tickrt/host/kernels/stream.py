"""One stream of rows through a model's graphs, whatever runs them: whole, or split.

Entry points: `StreamKernel` (a `registry.Kernel`), `StreamFacts` (what it has to know of the
model), `Graphs` (what runs them). The order of the graphs is that of
`runtime.backends.onnxruntime.kernels`: `step` on the path, the rest after the answer.

Modes: ``whole``, the window as it is; ``pre``, states from the T−1 known rows; ``bank``, T−1
staggered states that each row moves on; ``carry``, states of the last row, the first from `pre`.

Invariants: an answer comes from states of the very window that ends before its row, or the row is
refused. When a graph fails the kernel is done for: every later call says so, and nothing that was
computed before can be taken for an answer.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tickrt.errors import EngineError, HostError

__all__ = ["BankEntry", "Graphs", "KernelFailed", "StreamFacts", "StreamKernel"]

Floats = NDArray[np.float32]
_MODES = ("whole", "pre", "bank", "carry")
_MOST = 1 << 24


class KernelFailed(RuntimeError):
    """A graph failed: no error of one row, but of the engine."""


@dataclass(frozen=True)
class BankEntry:
    """A tensor of the bank: read as `name`, put out as `following`."""

    name: str
    following: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class StreamFacts:
    """A model's interface and how it is split, as `engines.split.plan.SplitPlan` has them.

    Attributes:
        mode: ``whole``, ``pre``, ``bank`` or ``carry``.
        window, width, outputs: T rows of F columns, n outputs.
        input: name of the window where it is whole, of the T−1 known rows else.
        newest: name of the newest row; empty where the model is whole.
        output: name of the output.
        states: what goes from `pre` or `advance` to `step`, by name.
        bank: what `advance` keeps, in the order of the start values.
    """

    mode: str
    window: int
    width: int
    outputs: int
    input: str
    newest: str
    output: str
    states: Mapping[str, tuple[int, ...]]
    bank: tuple[BankEntry, ...]

    @classmethod
    def read(cls, facts: Mapping[str, Any]) -> StreamFacts:
        """From plain data, as `to_dict` gives it.

        Raises:
            HostError: something is missing or cannot be; names it.
        """
        try:
            sizes = [facts[name] for name in ("window", "width", "outputs")]
            if any(type(n) is not int or not 0 < n < _MOST for n in sizes):
                raise ValueError(f"sizes {sizes}")
            if facts["mode"] not in _MODES:
                raise ValueError(f"mode {facts['mode']!r}")
            _ = [facts[name] for name in ("input", "newest", "output")]
            states = {str(name): _shape(shape) for name, shape in facts["states"]}
            bank = tuple(
                BankEntry(str(name), str(following), _shape(shape))
                for name, following, shape in facts["bank"]
            )
        except (KeyError, TypeError, ValueError) as error:
            raise HostError(f"the facts of the engine are damaged: {error}") from error
        names = (str(facts["input"]), str(facts["newest"]), str(facts["output"]))
        window, width, outputs = sizes
        return cls(str(facts["mode"]), window, width, outputs, *names, states, bank)

    def to_dict(self) -> dict[str, Any]:
        """For a parcel."""
        names = ("mode", "window", "width", "outputs", "input", "newest", "output")
        plain: dict[str, Any] = {name: getattr(self, name) for name in names}
        plain["states"] = [[name, list(shape)] for name, shape in self.states.items()]
        plain["bank"] = [[e.name, e.following, list(e.shape)] for e in self.bank]
        return plain

    @property
    def roles(self) -> tuple[str, ...]:
        """The graphs that run."""
        return {
            "whole": ("full",),
            "pre": ("step", "pre"),
            "bank": ("step", "advance"),
            "carry": ("step", "pre", "advance"),
        }[self.mode]

    def starts(self, content: bytes | memoryview) -> list[Floats]:
        """The bank's start values, one array for each entry. Raises HostError: damaged."""
        values = np.frombuffer(content, "<f4").astype(np.float32)
        arrays, at = [], 0
        sizes = [int(np.prod(entry.shape)) for entry in self.bank]
        if sum(sizes) != len(values):
            raise HostError(
                f"the bank's start values are damaged: {len(values)} instead of {sum(sizes)}"
            )
        for entry, size in zip(self.bank, sizes):
            arrays.append(values[at : at + size].reshape(entry.shape))
            at += size
        return arrays


def _shape(sizes: Any) -> tuple[int, ...]:
    shape = tuple(abs(int(size)) for size in sizes)  # an open batch is −1: one stream has one row
    if not all(0 < size < _MOST for size in shape):
        raise ValueError(f"shape {list(sizes)}")
    return shape


class Graphs(Protocol):
    """What runs a model's graphs on buffers of its own. Any method may raise; that ends it."""

    history: Floats  # [2·T, F], the stream's rows twice, one T behind the other

    def begin(self) -> None:
        """The bank is at its start again."""
        ...

    def prepare(self, first: int, copy: int) -> None:
        """The T−1 rows from `history[first]` on are known: states into that copy of them."""
        ...

    def step(self, row: Floats, copy: int, out: Floats) -> None:
        """The outputs of the newest row, float32 [F] → [n]."""
        ...

    def advance(self, row: Floats, parity: int) -> None:
        """The row is in: from buffer `parity` of bank or states into the other."""
        ...

    def stats(self) -> dict[str, Any]:
        """For reports; plain data."""
        ...

    def close(self) -> None:
        """Release everything."""
        ...


class StreamKernel:
    """One model on one stream of rows.

    Args:
        facts: the model.
        graphs: what runs it; they belong to this object.

    Attributes:
        spins: the host's thread never rests while it waits for a row.
    """

    spins = True

    def __init__(self, facts: StreamFacts, graphs: Graphs) -> None:
        self._facts, self._graphs = facts, graphs
        self._count = 0  # rows since the stream began
        self._last: int | None = None
        self._prepared: int | None = None  # states are ready for the row after this one
        self._parity = 0
        self._waits = 0
        self._why = ""
        self._begun = False
        gc.collect()
        gc.freeze()  # what is here stays: no collection of garbage looks at it again

    def _try(self, what: str, call: Callable[..., None], *arguments: Any) -> None:
        """Run a graph. Raises KernelFailed, from then on always."""
        if self._why:
            raise KernelFailed(self._why)
        try:
            call(*arguments)
        except Exception as error:
            self._why = f"{what}: {error}"
            raise KernelFailed(self._why) from error

    def _fresh(self) -> None:
        if not self._begun:
            self._try("reset", self._graphs.begin)
            self._begun = True

    def _prepare(self, seq: int) -> None:
        """States for the row after `seq`, whose T−1 rows are in the history."""
        copy = self._parity if self._facts.mode == "carry" else 0
        self._try("pre", self._graphs.prepare, seq % self._facts.window + 2, copy)
        self._prepared = seq

    def answer(self, seq: int, rows: Floats, out: Floats) -> None:
        """The outputs of row `seq`.

        Raises:
            EngineError: its window is not complete; the row's error alone.
            KernelFailed: a graph failed.
        """
        if self._why:
            raise KernelFailed(self._why)
        if self._prepared is None or self._prepared != seq - 1:
            facts = self._facts
            ready = facts.mode != "bank" and self._last == seq - 1
            if not ready or self._count < facts.window - 1:
                raise EngineError(f"row {seq}: the window is not complete")
            self._waits += 1
            self._prepare(seq - 1)
        copy = self._parity if self._facts.mode == "carry" else 0
        self._try("step", self._graphs.step, rows[0], copy, out[0])

    def advance(self, seq: int, rows: Floats) -> None:
        """Row `seq` is in: states for the row after it. Raises KernelFailed."""
        if self._last != seq - 1:  # a row is missing in what was built
            self._forget()
        self._fresh()
        self._last, row = seq, rows[0]
        self._count += 1
        window, mode, graphs = self._facts.window, self._facts.mode, self._graphs
        complete = self._count >= window - 1
        if mode == "bank":
            self._move_on(row, seq if complete else None)
            return
        slot = seq % window
        graphs.history[slot] = graphs.history[slot + window] = row
        if not complete:
            return
        if mode != "carry" or self._prepared != seq - 1:
            self._prepare(seq)
        else:
            self._move_on(row, seq)

    def _move_on(self, row: Floats, prepared: int | None) -> None:
        self._try("advance", self._graphs.advance, row, self._parity)
        self._parity ^= 1
        self._prepared = prepared

    def _forget(self) -> None:
        self._count, self._parity = 0, 0
        self._last = self._prepared = None
        self._begun = False

    def reset(self) -> None:
        """Forget every row. Raises KernelFailed."""
        self._forget()
        self._fresh()

    def stats(self) -> dict[str, Any]:
        """Rows whose states had to be prepared on the path, and what the graphs say."""
        return {"waits": self._waits, **self._graphs.stats()}

    def close(self) -> None:
        """Release everything."""
        self._graphs.close()
