"""The `null` backend: answers at once with a constant. For tests, and to measure all the rest.

Entry points: `probe`, `load`, as `tickrt.backends` calls them.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickrt.backends import Probe
from tickrt.compile.jit import CFunction, c_function
from tickrt.runtime.backends import kernels as k_

__all__ = ["NullEngine", "load", "probe"]


@cache
def _functions() -> tuple[CFunction, CFunction, CFunction, CFunction]:
    return (
        c_function(k_.null_submit, 3),
        c_function(k_.poll, 2),
        c_function(k_.nothing, 2),
        c_function(k_.ort_reset, 1),
    )


class NullEngine:
    """An engine without a model.

    Args:
        signal: what it always answers: (down, flat, up).
    """

    backend = "null"

    def __init__(self, signal: tuple[float, float, float] = (0.0, 0.0, 1.0)) -> None:
        self._output = np.array(signal, np.float32)
        self._stamp = np.zeros(1, np.int64)
        self._ctx = np.zeros(k_.CTX_BYTES // 8, np.int64)
        self._ctx[k_.STAMP // 8] = self._stamp.ctypes.data

    def handle(self) -> NDArray[np.int64]:
        """int64[10] in the order of `codes.ENGINE_*`."""
        functions = [f.address for f in _functions()]
        buffers = [self._ctx.ctypes.data, 0, self._output.ctypes.data, self._stamp.ctypes.data]
        return np.array([*functions, *buffers, 3, 1], np.int64)

    def describe(self) -> dict[str, Any]:
        """Backend and its constant answer."""
        return {"backend": self.backend, "signal": self._output.tolist()}

    def error(self) -> str:
        """It cannot fail."""
        return ""

    def close(self) -> None:
        """Nothing to release."""


def probe(targets: tuple[str, ...] = ()) -> Probe:
    """It runs everywhere, and needs no model."""
    return Probe(needs_model=False)


def load(source: object, ring: object, settings: object) -> NullEngine:
    """The engine; it has no use for a model, rows or settings."""
    return NullEngine()
