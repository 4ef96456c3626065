"""The `native` backend's engine: a compiled program on a stream's rows, called by the loop itself.

The object exports the handle's functions, so nothing lies between the loop and the model.

Limits: batch 1, float32; one engine per symbol, each with its own states.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickrt.engines.graph.check import LoopModel
from tickrt.engines.native import Prepared
from tickrt.runtime.backends.handle import RowRing

__all__ = ["NativeEngine"]


class NativeEngine:
    """A model as code of its own.

    Args:
        model: the whole model, for its names and digest.
        prepared: its compiled program.
        ring: the stream's rows.
        split: what its split does, for `describe`; None: it runs whole.
        drawing: its graph with the on-path part marked, as SVG, where there is one.
    """

    backend = "native"

    def __init__(
        self,
        model: LoopModel,
        prepared: Prepared,
        ring: RowRing,
        split: Mapping[str, Any] | None = None,
        drawing: str = "",
    ) -> None:
        self._model, self._prepared, self._ring, self._split = model, prepared, ring, split
        self.drawing = drawing
        self._engine = prepared.kernel.engine(ring.address)

    def handle(self) -> NDArray[np.int64]:
        """int64[10] in the order of `codes.ENGINE_*`."""
        engine, addresses = self._engine, self._prepared.kernel.addresses
        functions = [addresses[name] for name in ("submit", "poll", "advance", "reset")]
        buffers = [engine.ctx.ctypes.data, self._ring.address]
        buffers += [engine.output.ctypes.data, engine.stamp.ctypes.data]
        return np.array([*functions, *buffers, self._model.n_outputs, 1], np.int64)

    @property
    def waits(self) -> int:
        """Rows whose states had to be built on the path."""
        return self._engine.waits

    def describe(self) -> dict[str, Any]:
        """Backend, compiler, the model's digest, its errors, what the split does."""
        parity = self._prepared.parity
        facts: dict[str, Any] = {
            "backend": self.backend,
            "version": self._prepared.compiler,
            "threads": 1,
            "weights": self._prepared.weights,
            "model": self._model.name,
            "model_sha256": self._model.sha256,
            "rows_compared": parity.rows,
            "error_against_onnxruntime": parity.errors.model,
            "error_of_a_step": parity.errors.step,
            "memory_bytes": self._engine.memory.nbytes,
        }
        if self._split is not None:
            facts |= {**self._split, "waits": self.waits}
        return facts

    def error(self) -> str:
        """It cannot fail."""
        return ""

    def close(self) -> None:
        """Nothing to release: its memory is NumPy's, its object stays with the process."""
