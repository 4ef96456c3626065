"""Engines of the `native` backend: a model as a compiled program, for this machine's processor.

Entry point: `NativeBuilder` (`bundle.toolchain.EngineBuilder`, and its own opener).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tickrt import __version__
from tickrt.engines.bundle.manifest import Builder
from tickrt.engines.bundle.toolchain import EngineOrder, MadeEngine, Phase
from tickrt.engines.graph.interface import Array, Feed, Run
from tickrt.engines.native.compiler import why_not
from tickrt.engines.native.package import pack, read, unpack
from tickrt.engines.native.prepared import Prepared, prepare
from tickrt.engines.native.source import count_operations
from tickrt.engines.translate.ordered import ordered
from tickrt.errors import BuildError, BundleError

__all__ = ["NativeBuilder"]


@dataclass(frozen=True)
class NativeBuilder:
    """Builds for the processor of this machine; others compile the source in the bundle."""

    backend = "native"
    library = "native"
    version = __version__
    format = "native"
    suffix = "native"
    driver = None
    reproducible = "with the same compiler on the same processor"
    options = ()
    precisions = ("fp32",)
    splits = True
    typed = True
    skips_prefix = False

    def targets(self) -> tuple[str, ...]:
        """None: it is for the CPU."""
        return ()

    def build(self, order: EngineOrder, progress: Phase | None) -> MadeEngine:
        """The whole model, split where that is wanted, possible and exact.

        Raises:
            TranslateError, BuildError: it cannot be generated, or is not exact.
        """
        if why := why_not():
            raise BuildError(f"--backend native: {why}")
        model, split = ordered(order)
        prepared = prepare(model, split)
        operations = count_operations(prepared.kernel.native.original)
        return MadeEngine(pack(prepared, split), len(order.model.graph.node), operations)

    def check(self, data: bytes) -> tuple[str, str]:
        """Whether it can be read; nothing of it is executed."""
        try:
            read(data, "the engine")
        except BundleError as error:
            return "failed", str(error)
        return "ok", ""

    def runner(self, data: bytes) -> Run:
        """The engine as a function of windows [n, T, F]. Raises what `unpack` raises."""
        prepared, _ = unpack(data, "the engine")
        return _Windows(prepared).run

    def why_not_here(self, built: Builder) -> str:
        """It runs where its code was compiled, and where there is a compiler."""
        return ""


class _Windows:
    """An engine on windows: consecutive ones as rows of one stream."""

    def __init__(self, prepared: Prepared) -> None:
        program = prepared.kernel.native.program
        self._window, self._output = program.window, program.facts["output"]
        self._mode = program.facts["mode"]
        self._ring = np.zeros((2 * program.window, program.width), np.float32)
        self._engine = prepared.kernel.engine(self._ring.ctypes.data)
        self._seq = 0

    def _row(self, row: Array) -> None:
        self._seq += 1
        slot = self._seq % self._window
        self._ring[slot] = self._ring[slot + self._window] = row

    def run(self, feed: Feed) -> dict[str, Array]:
        """The outputs of every window."""
        (windows,) = feed.values()
        answers, last = [], None
        going_on = self._mode != "carry"  # whose states are of all rows, not of the window
        for window in windows:
            if going_on and last is not None and np.array_equal(window[:-1], last[1:]):
                self._engine.advance(self._seq)
                self._row(window[-1])
            else:
                self._engine.reset()
                for row in window:
                    self._row(row)
            answers.append(self._engine.submit(self._seq))
            last = window
        return {self._output: np.stack(answers)}
