"""What peers of `tickrt bench engine` have in common: they are called from Python, a row at a time.

Entry points: `PythonPeer`, `Skipped`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from tickrt.engines.graph.check import LoopModel
from tickrt.engines.graph.load import first_line
from tickrt.errors import EngineError, TickrtError
from tickrt.observe.clock import ticks_per_ns
from tickrt.runtime.engine_bench import Fed, Floats

__all__ = ["PythonPeer", "Skipped"]


class Skipped(TickrtError):
    """It cannot be measured on this machine; says why."""


class PythonPeer(ABC):
    """The whole model in a library of its own; who derives from it says how a window is answered.

    Args:
        library: what messages call it.
    """

    def __init__(self, model: LoopModel, library: str) -> None:
        self.model, self._library = model, library
        self._rows = np.zeros((model.window, model.width), np.float32)
        self._sent = 0

    @abstractmethod
    def answer(self, window: Floats) -> Any:
        """The outputs of a window float32 [1, T, F]: this is what is timed."""

    def run(self, rows: Floats, gap_us: float) -> Fed:
        """As `engine_bench.Feed.run`, called from Python."""
        model, rate = self.model, ticks_per_ns()
        answers, advances = np.zeros((2, len(rows)), np.int64)
        outputs = np.full((len(rows), model.n_outputs), np.nan, np.float32)
        start = time.perf_counter_ns()
        for i, row in enumerate(rows):
            self._rows = np.concatenate([self._rows[1:], row[None]])
            self._sent += 1
            if self._sent >= model.window:
                began = time.perf_counter_ns()
                try:
                    found = self.answer(self._rows[None])
                except Exception as error:  # its exceptions have no common public base
                    where = f"row {self._sent}: {self._library}"
                    raise EngineError(f"{where}: {first_line(error)}") from None
                answers[i] = round((time.perf_counter_ns() - began) * rate)
                outputs[i] = np.ravel(found)
            until = time.perf_counter_ns() + gap_us * 1e3
            while time.perf_counter_ns() < until:
                pass
        ticks = round((time.perf_counter_ns() - start) * rate)
        return Fed(answers, advances, outputs, ticks)
