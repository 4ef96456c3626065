"""The `onnxruntime` backend: ONNX Runtime's C API on the CPU, called by the compiled loop.

The window is read where the stream wrote it: one OrtValue is made in advance for each of the T
positions that a window can have in the mirrored ring, and `submit` picks the one of its row. The
output lies in memory of ours too, so nothing is copied and nothing is allocated by us per tick.

Limits: one input (the window), batch 1, float32.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickrt.compile.jit import CFunction, c_function
from tickrt.engines.graph.check import LoopModel
from tickrt.engines.graph.ort import ort_version
from tickrt.runtime.backends import kernels as k_
from tickrt.runtime.backends.handle import RowRing
from tickrt.runtime.backends.onnxruntime.api import OrtSession, error_text

__all__ = ["OrtBacked", "OrtEngine"]


@cache
def _functions() -> tuple[CFunction, CFunction, CFunction, CFunction]:
    return (
        c_function(k_.ort_submit, 3),
        c_function(k_.poll, 2),
        c_function(k_.nothing, 2),
        c_function(k_.ort_reset, 1),
    )


class OrtBacked:
    """What every engine on ONNX Runtime shares: its output, its stamp, its handle, its errors.

    A subclass has `_ctx`, the context of its C functions, with the last failure at `status_column`.
    """

    backend = "onnxruntime"
    status_column = k_.STATUS // 8

    def __init__(self, model: LoopModel, ring: RowRing, threads: int) -> None:
        self._model, self._ring, self._threads = model, ring, threads
        self._output = np.zeros((1, model.n_outputs), np.float32)
        self._stamp = np.zeros(1, np.int64)
        self._ctx: NDArray[np.int64] = np.zeros(0, np.int64)

    def functions(self) -> tuple[CFunction, CFunction, CFunction, CFunction]:
        """submit, poll, advance, reset."""
        return _functions()

    def handle(self) -> NDArray[np.int64]:
        """int64[10] in the order of `codes.ENGINE_*`."""
        functions = [f.address for f in self.functions()]
        buffers = [self._ctx.ctypes.data, self._ring.address]
        buffers += [self._output.ctypes.data, self._stamp.ctypes.data]
        return np.array([*functions, *buffers, self._model.n_outputs, 1], np.int64)

    def describe(self) -> dict[str, Any]:
        """Backend, its version, threads, and the model's digest."""
        return {
            "backend": self.backend,
            "version": ort_version(),
            "threads": self._threads,
            "model": self._model.name,
            "model_sha256": self._model.sha256,
        }

    def error(self) -> str:
        """The text of the last failure; reading it lets the engine run again."""
        status = int(self._ctx[self.status_column])
        self._ctx[self.status_column] = 0
        return error_text(status) if status else ""


class OrtEngine(OrtBacked):
    """A whole-window model in ONNX Runtime.

    Args:
        model: the checked model (`engines.onnx_check.check_model`).
        ring: the stream's rows; T and F are those of the model.
        threads: intra-op threads; with 1 the loop's own thread does all the work.

    Raises:
        ModelError: ONNX Runtime cannot load the model.
    """

    def __init__(self, model: LoopModel, ring: RowRing, threads: int = 1) -> None:
        super().__init__(model, ring, threads)
        self._session = OrtSession(model.content, threads)
        self._names = [
            ctypes.create_string_buffer(name.encode()) for name in (model.input, model.output)
        ]
        row_bytes = 4 * ring.width
        shape = (1, ring.window, ring.width)
        self._inputs = np.array(
            [
                self._session.tensor(ring.address + (position + 1) * row_bytes, shape)
                for position in range(ring.window)
            ],
            np.int64,
        )
        self._outputs = np.array(
            [self._session.tensor(self._output.ctypes.data, self._output.shape)], np.int64
        )
        self._pointers = np.array([ctypes.addressof(name) for name in self._names], np.int64)
        self._ctx = self._context()

    def _context(self) -> NDArray[np.int64]:
        names = self._pointers.ctypes.data
        columns = {
            k_.STAMP: self._stamp.ctypes.data,
            k_.RUN: self._session.run_address,
            k_.SESSION: self._session.address,
            k_.INPUT_NAMES: names,
            k_.INPUTS: self._inputs.ctypes.data,
            k_.N_INPUTS: 1,
            k_.OUTPUT_NAMES: names + 8,
            k_.OUTPUTS: self._outputs.ctypes.data,
            k_.N_OUTPUTS: 1,
            k_.WINDOWS: self._ring.window,
        }
        ctx = np.zeros(k_.CTX_BYTES // 8, np.int64)
        for offset, value in columns.items():
            ctx[offset // 8] = value
        return ctx

    def close(self) -> None:
        """Release the session and its tensors."""
        self._session.close()
