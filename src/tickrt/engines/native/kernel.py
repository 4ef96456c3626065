"""A compiled program: its functions, and engines on rows of their own.

Entry points: `Kernel(native, path)`, `Kernel.engine(rows)` → `KernelEngine`.

Invariants: the object holds no state; an engine's is in its arena and its context.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickrt.engines.native.source import Native
from tickrt.errors import BuildError
from tickrt.program.ir import ROWS

__all__ = ["Kernel", "KernelEngine"]

# Columns of a context: handle.c has the same.
_STAMP, _ROWS, _MEMORY, _OUTPUT, _COUNT, _LAST, _PREPARED, _WAITS = range(8)
_FUNCTIONS = {"submit": 3, "poll": 2, "advance": 2, "reset": 1}


class Kernel:
    """The functions of a compiled program, by address.

    Raises:
        BuildError: the object cannot be loaded.
    """

    def __init__(self, native: Native, path: Path) -> None:
        self.native = native
        try:
            self._library = ctypes.CDLL(str(path))
            found = {name: getattr(self._library, f"tickrt_{name}") for name in _FUNCTIONS}
        except (OSError, AttributeError) as error:
            raise BuildError(f"{path}: not a compiled program: {error}") from error
        self.addresses = {
            name: int(ctypes.cast(function, ctypes.c_void_p).value or 0)
            for name, function in found.items()
        }
        self.calls: dict[str, Any] = {
            name: ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * count)(self.addresses[name])
            for name, count in _FUNCTIONS.items()
        }

    def engine(self, rows: int) -> KernelEngine:
        """An engine on the ring of rows at that address."""
        return KernelEngine(self, rows)


class KernelEngine:
    """An engine: arena, context, output and stamp."""

    def __init__(self, kernel: Kernel, rows: int) -> None:
        self.kernel = kernel
        program = kernel.native.program
        self.memory = kernel.native.arena.new(program)
        self.output = np.zeros(program.outputs, np.float32)
        self.stamp = np.zeros(1, np.int64)
        self.ctx = np.zeros(8, np.int64)
        self.ctx[_STAMP] = self.stamp.ctypes.data
        self.ctx[_ROWS] = rows
        self.ctx[_MEMORY] = self.memory.ctypes.data
        self.ctx[_OUTPUT] = self.output.ctypes.data
        self.reset()

    def submit(self, seq: int) -> NDArray[np.float32]:
        """The outputs of row `seq`, which lies in the ring."""
        self.kernel.calls["submit"](self.ctx.ctypes.data, seq, 1)
        return self.output.copy()

    def advance(self, seq: int) -> None:
        """Prepare for the row after `seq`."""
        self.kernel.calls["advance"](self.ctx.ctypes.data, seq)

    def reset(self) -> None:
        """Forget every row."""
        self.kernel.calls["reset"](self.ctx.ctypes.data)

    @property
    def waits(self) -> int:
        """Rows whose states were built on the path."""
        return int(self.ctx[_WAITS])

    def states(self) -> dict[str, NDArray[np.float32]]:
        """Every state as it is now, by name; views."""
        arena, buffers = self.kernel.native.arena, self.kernel.native.program.buffers
        return {
            name: self.memory[offset : offset + buffers[name].size]
            for name, offset in arena.buffers.items()
            if buffers[name].kind == "state" and name != ROWS
        }
