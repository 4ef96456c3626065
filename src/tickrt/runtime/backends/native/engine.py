"""The `native` backend's engine: a compiled program on a stream's rows, called by the loop itself.

The object exports the handle's functions, so nothing lies between the loop and the model.

Limits: batch 1, float32; one engine per symbol, each with its own states.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickrt.engines.graph.check import LoopModel
from tickrt.engines.native import Prepared
from tickrt.engines.split.plan import SplitPlan
from tickrt.runtime.backends.handle import RowRing

__all__ = ["NativeEngine"]


class NativeEngine:
    """A model as code of its own.

    Args:
        model: the whole model, for its names and digest.
        plan: its split; None: it runs whole.
        prepared: its compiled program.
        ring: the stream's rows.
    """

    backend = "native"

    def __init__(
        self, model: LoopModel, plan: SplitPlan | None, prepared: Prepared, ring: RowRing
    ) -> None:
        self._model, self._plan, self._prepared, self._ring = model, plan, prepared, ring
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

    @property
    def drawing(self) -> str:
        """The model's graph with the on-path part marked, as SVG; empty without a split."""
        return "" if self._plan is None else str(self._plan.figures.get("drawing", ""))

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
        if self._plan is not None:
            figures = self._plan.figures
            facts |= {
                "split": self._plan.mode,
                "on_path_share": figures["on_path_share"],
                "split_error": figures["parity"]["max_rel"],
                "waits": self.waits,
            }
        return facts

    def error(self) -> str:
        """It cannot fail."""
        return ""

    def close(self) -> None:
        """Nothing to release: its memory is NumPy's, its object stays with the process."""
