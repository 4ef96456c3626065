"""What a host's Python and a launch cost without a model: kernels for `benchmarks.tensorrt`.

Formats (`KERNELS`): ``echo`` answers from the host's thread without a GPU; ``empty`` launches a
recorded graph whose only node hands three numbers over. Both serve the mailbox as TensorRT's does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickrt.host.cuda import open_device
from tickrt.host.kernels.answer import Answer, Memory

__all__ = ["KERNELS", "Echo", "Empty"]

Floats = NDArray[np.float32]
KERNELS = {"echo": "benchmarks._floor_kernel:Echo", "empty": "benchmarks._floor_kernel:Empty"}


class Echo:
    """Three numbers of the row, from the host's thread."""

    spins = True

    @staticmethod
    def warm() -> None:
        """Nothing to bring up."""

    @classmethod
    def load(cls, payloads: Any, facts: Mapping[str, Any]) -> Echo:
        """It has no use for payloads."""
        return cls()

    def answer(self, seq: int, rows: Floats, out: Floats) -> None:
        """The row's first three columns."""
        out[0] = rows[0, :3]

    def advance(self, seq: int, rows: Floats) -> None:
        """Nothing to prepare."""

    def reset(self) -> None:
        """Nothing to forget."""

    def stats(self) -> dict[str, Any]:
        """None."""
        return {}

    def close(self) -> None:
        """Nothing to release."""


class Empty(Echo):
    """A graph of one node, launched for each row: what every launched engine pays at least."""

    def __init__(self) -> None:
        self._device = open_device()
        self._memory = Memory(self._device)
        self._answer = Answer(self._device, self._memory, 3)
        self._device.settle()
        self._graph = self._device.record(self._answer.launch)
        self._graph.upload()

    def answer(self, seq: int, rows: Floats, out: Floats) -> None:
        """Launch, and wait for the stamp."""
        self._answer.launched()
        self._graph.launch()
        self._answer.wait()
        out[0] = self._answer.values

    def stats(self) -> dict[str, Any]:
        """How the end is seen."""
        return {"completion": "stamp" if self._answer.stamped else "stream"}

    def close(self) -> None:
        """Give the GPU back what is ours."""
        self._graph.close()
        self._answer.close()
        self._memory.close()
