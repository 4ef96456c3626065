"""Programs (`tickrt.program`) in NumPy: slow and exact, for tests and as the measure of the others.

Entry points: `warm`, `load`, as `registry` asks for them; `parcel` makes what `load` takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickrt.host.kernels.registry import Payloads
from tickrt.host.parcel import Parcel

__all__ = ["FORMAT", "ReferenceKernel", "load", "parcel", "warm"]

FORMAT = "program"
_ROLE = "full"


def parcel(where: str, program: bytes) -> Parcel:
    """A program that is in no bundle, for a host; `where` is what messages call it."""
    return Parcel(where, FORMAT, {FORMAT: program}, {"engines": {_ROLE: FORMAT}})


def warm() -> None:
    """Import what runs it."""
    import tickrt.program.reference  # noqa: F401


class ReferenceKernel:
    """One program on one stream of rows."""

    def __init__(self, content: bytes) -> None:
        from tickrt.program import from_bytes
        from tickrt.program.reference import Reference

        self._engine = Reference(from_bytes(content))

    def answer(self, seq: int, rows: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """The program's step. Raises EngineError while its window is not complete."""
        out[0] = self._engine.submit(seq, rows[0])

    def advance(self, seq: int, rows: NDArray[np.float32]) -> None:
        """The program's advance."""
        self._engine.advance(seq, rows[0])

    def reset(self) -> None:
        """States start anew."""
        self._engine.reset()

    def close(self) -> None:
        """Nothing but memory."""


def load(payloads: Payloads, facts: Mapping[str, Any]) -> ReferenceKernel:
    """The kernel of the engine ``full``. Raises EngineError when it is damaged."""
    return ReferenceKernel(bytes(payloads[facts["engines"][_ROLE]]))
