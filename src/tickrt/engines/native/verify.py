"""Is a compiled program exact? Found by running it beside NumPy and ONNX Runtime.

Entry point: `verify(kernel, expected, limits)` → `Parity`.

Errors are relative to the largest value that an output has in its window, those of states to the
largest value of the state.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tickrt.engines.native.kernel import Kernel, KernelEngine
from tickrt.program import StreamProgram
from tickrt.program.ir import OUTPUT, ROWS
from tickrt.program.reference import run

__all__ = ["LIMITS", "Errors", "Parity", "verify"]

Array = NDArray[np.float32]
_WINDOWS = 128  # compared after each of two starts
_CHUNK = 32
_ENOUGH_S = 3.0  # a large model is compared on fewer windows


@dataclass(frozen=True)
class Errors:
    """Relative errors, or how large they may be.

    Attributes:
        step: of the outputs, against the program in NumPy, whose sums are exact, from equal states.
        states: of the states after one row, against the same; a deep network's rounding errors
            add up in them, here as in ONNX Runtime.
        model: of the outputs, against the model in ONNX Runtime, over many rows.
    """

    step: float
    states: float
    model: float


LIMITS = {
    "fp32": Errors(1e-6, 5e-5, 1e-5),
    "bf16": Errors(5e-3, 2e-2, 1e-2),
    "int8": Errors(1e-2, 5e-2, 3e-2),
}


@dataclass(frozen=True)
class Parity:
    """What was compared, and the largest errors; `why_not` is empty where they are small enough."""

    rows: int
    windows: int
    errors: Errors
    why_not: str


def _error(got: Array, want: Array) -> float:
    """Largest difference, relative to the largest value."""
    if not np.array_equal(np.isfinite(got), np.isfinite(want)):
        return float("inf")
    scale = max(float(np.abs(np.nan_to_num(want)).max()), 1e-30)
    return float(np.abs(np.nan_to_num(got) - np.nan_to_num(want)).max()) / scale


class _Stream:
    """An engine on a ring of its own, and the rows that it has seen."""

    def __init__(self, kernel: Kernel) -> None:
        self.program = kernel.native.program
        size = (2 * self.program.window, self.program.width)
        self.ring = np.zeros(size, np.float32)
        self.engine = kernel.engine(self.ring.ctypes.data)
        self.seq = 0

    def write(self, row: Array) -> int:
        self.seq += 1
        slot = self.seq % self.program.window
        self.ring[slot] = self.ring[slot + self.program.window] = row
        return self.seq


def _against_program(stream: _Stream) -> tuple[float, float]:
    """Submit and advance the newest row, in both; the largest errors of outputs and states.

    Both start from the engine's own states, so that they differ by one row's errors.
    """
    program, engine, seq = stream.program, stream.engine, stream.seq
    memory = _memory(program, engine, stream.ring)
    with np.errstate(all="ignore"):
        run(memory, program.sections["step"], {"seq": seq})
        step = _error(engine.submit(seq), memory[OUTPUT])
        run(memory, program.sections["advance"], {"seq": seq})
        engine.advance(seq)
        if program.sections["advance"]:
            run(memory, program.sections["step"], {"seq": seq + 1})  # as the engine's warm step
    errors = [_error(state, memory[name]) for name, state in engine.states().items()]
    return step, max(errors, default=0.0)


def _memory(program: StreamProgram, engine: KernelEngine, ring: Array) -> dict[str, Array]:
    memory: dict[str, Array] = {
        name: np.zeros(b.size, np.float32) for name, b in program.buffers.items()
    }
    for name, buffer in program.buffers.items():
        if buffer.kind == "constant" and buffer.start is not None:
            memory[name][:] = buffer.start
    memory[ROWS][:] = ring.ravel()
    for name, state in engine.states().items():
        memory[name][:] = state
    return memory


def verify(
    kernel: Kernel,
    expected: Callable[[Array], Array] | None,
    limits: Errors,
    *,
    carried: bool = False,
) -> Parity:
    """Run it over consecutive rows, twice from the start.

    Args:
        expected: the model's outputs [n, outputs] of windows [n, T, F]; None: only the program is
            compared with.
        carried: states come from all rows: only the first window after a start is the model's.
    """
    stream, rng = _Stream(kernel), np.random.default_rng(0)
    worst = Errors(0.0, 0.0, 0.0)
    windows = 0
    for _ in range(2):
        stream.engine.reset()
        began = time.perf_counter()
        rows, outputs, pairs = _run(stream, rng, 1 if carried else _WINDOWS)
        seen = np.lib.stride_tricks.sliding_window_view(rows, stream.program.window, axis=0)
        seen, model = np.moveaxis(seen, -1, 1), worst.model
        for at in range(0, len(outputs) if expected else 0, _CHUNK):
            assert expected is not None
            want = expected(np.ascontiguousarray(seen[at : at + _CHUNK]))
            errors = [_error(g, w) for g, w in zip(outputs[at : at + _CHUNK], want, strict=True)]
            model = max(model, *errors)
            windows += len(want)
            if time.perf_counter() - began > 2 * _ENOUGH_S:
                break
        steps, states = zip(*pairs, strict=True)
        worst = Errors(max(worst.step, *steps), max(worst.states, *states), model)
    return Parity(stream.seq, windows, worst, _why_not(worst, limits))


def _rows(rng: np.random.Generator, count: int, width: int) -> Array:
    """Rows of which every other one keeps most columns of the one before, as a book's do."""
    rows = rng.standard_normal((count, width)).astype(np.float32)
    for i in range(1, count, 2):
        kept = rng.random(width) < rng.random()
        rows[i][kept] = rows[i - 1][kept]
    return rows


def _run(
    stream: _Stream, rng: np.random.Generator, windows: int
) -> tuple[Array, Array, list[tuple[float, float]]]:
    """From a start to that many complete windows: rows, outputs, errors at three of them."""
    window, width = stream.program.window, stream.program.width
    rows = _rows(rng, window + windows - 1, width)
    outputs: list[Array] = []
    errors, began = [], time.perf_counter()
    for count, row in enumerate(rows, 1):
        stream.write(row)
        if count in (window, window + 1, window + 8):
            errors.append(_against_program(stream))
            outputs.append(stream.engine.output.copy())
            continue
        if count > window:
            outputs.append(stream.engine.submit(stream.seq))
        stream.engine.advance(stream.seq)
        if len(outputs) >= _CHUNK and time.perf_counter() - began > _ENOUGH_S:
            break
    return rows[: window - 1 + len(outputs)], np.stack(outputs), errors


def _why_not(found: Errors, limits: Errors) -> str:
    for name in ("step", "states", "model"):
        error, limit = getattr(found, name), getattr(limits, name)
        if not error <= limit:
            return f"not exact: the error of {name!r} is {error:.2g}, at most {limit:g} is let pass"
    return ""
