"""ONNX models of whole windows in ONNX Runtime, many streams in one call.

The rows that are ready make a batch of windows [n, T, F], and the model runs at the smallest bucket
1, 2, 4 … that holds them, filled up with zeros.

Entry points: `warm`, `load`, `load_batch`, as `registry` asks for them; `parcel` makes what they
take; `WindowKernel`.

Limits: the whole window runs for each row: what tick-split moves off the path is not. The CPU. Rows
of a batch must not see each other, as the models' contract says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tickrt.errors import EngineError, IncompatibleError
from tickrt.host.batch import buckets
from tickrt.host.kernels.registry import Payloads
from tickrt.host.parcel import Parcel

__all__ = ["FORMAT", "WindowKernel", "load", "load_batch", "parcel", "warm"]

FORMAT = "onnx_windows"
_ROLE = "full"


def parcel(where: str, model: bytes, window: int, width: int, threads: int = 1) -> Parcel:
    """A model that is in no bundle, for a host; `where` is what messages call it."""
    facts = {"engines": {_ROLE: FORMAT}, "window": window, "width": width, "threads": threads}
    return Parcel(where, FORMAT, {FORMAT: model}, facts)


def warm() -> None:
    """Import what runs it."""
    import onnxruntime  # noqa: F401


class WindowKernel:
    """One model, the windows of many streams.

    Args:
        content: the model: one input [batch, T, F], one output [batch, outputs], float32.
        window, width: T and F.
        members: streams.
        max_batch: rows of one call.
        threads: of ONNX Runtime.

    Raises:
        EngineError: ONNX Runtime cannot load or run it.
        IncompatibleError: it takes one window only, and `max_batch` is more.
    """

    def __init__(
        self, content: bytes, window: int, width: int, members: int, max_batch: int, threads: int
    ) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4  # what goes wrong is raised
        try:
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # of ONNX Runtime's own kinds
            raise EngineError(f"ONNX Runtime cannot load it: {error}") from error
        self._input = self._session.get_inputs()[0].name
        batch = self._session.get_inputs()[0].shape[0]
        if max_batch > 1 and isinstance(batch, int):
            raise IncompatibleError(
                f"its input {self._input!r} has the fixed batch {batch}: export it with a batch "
                "that has a name, or set max_batch = 1"
            )
        self.max_rows, self._buckets = max_batch, buckets(max_batch)
        self._window = window
        self._rows = np.zeros((members, 2 * window, width), np.float32)
        self._windows = sliding_window_view(self._rows, window, axis=1).transpose(0, 1, 3, 2)
        self._count, self._last = np.zeros(members, np.int64), np.zeros(members, np.int64)
        self._batch = np.zeros((self._buckets[-1], window, width), np.float32)
        for bucket in self._buckets:  # each allocates what it needs, once
            self._run(bucket)

    def _run(self, n: int) -> NDArray[np.float32]:
        """The outputs of the first `n` windows of the batch."""
        bucket = next(b for b in self._buckets if b >= n)
        self._batch[n:bucket] = 0.0
        try:
            (values,) = self._session.run(None, {self._input: self._batch[:bucket]})
        except Exception as error:  # of ONNX Runtime's own kinds
            raise EngineError(f"ONNX Runtime: {error}") from error
        outputs: NDArray[np.float32] = values[:n]
        return outputs

    def _store(
        self, members: NDArray[np.int64], seqs: NDArray[np.int64], rows: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        """Put rows where windows are read; where each one's window begins."""
        at = seqs % self._window
        self._rows[members, at] = self._rows[members, at + self._window] = rows
        return np.asarray(at + 1)

    def answer_batch(
        self,
        members: NDArray[np.int64],
        seqs: NDArray[np.int64],
        rows: NDArray[np.float32],
        out: NDArray[np.float32],
    ) -> Mapping[int, str]:
        """Each row's window, all in one call; a row whose window is not complete is refused."""
        count, last = self._count[members], self._last[members]
        short = (count < self._window - 1) | ((count > 0) & (seqs != last + 1))
        begins = self._store(members, seqs, rows)
        good = np.flatnonzero(~short)
        if len(good):
            self._batch[: len(good)] = self._windows[members[good], begins[good]]
            out[good] = self._run(len(good))
        return {
            i: f"row {seqs[i]}: the engine has the {count[i]} rows up to {last[i]}, it needs "
            f"{self._window - 1} rows right before"
            for i in np.flatnonzero(short).tolist()
        }

    def advance_batch(
        self, members: NDArray[np.int64], seqs: NDArray[np.int64], rows: NDArray[np.float32]
    ) -> None:
        """The rows are in their windows. A gap in a stream's numbers is a reset of it."""
        gap = (self._count[members] > 0) & (seqs != self._last[members] + 1)
        self._count[members[gap]] = 0
        self._store(members, seqs, rows)
        self._count[members] += 1
        self._last[members] = seqs

    def reset_member(self, member: int) -> None:
        """Its rows no longer count."""
        self._count[member] = 0

    def close(self) -> None:
        """Nothing but memory."""


class _OneStream:
    """The same for one stream, as `registry.Kernel` has it."""

    def __init__(self, kernel: WindowKernel) -> None:
        self._kernel, self._member = kernel, np.zeros(1, np.int64)

    def answer(self, seq: int, rows: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """The window's outputs. Raises EngineError while it is not complete."""
        for why in self._kernel.answer_batch(self._member, np.array([seq]), rows, out).values():
            raise EngineError(why)

    def advance(self, seq: int, rows: NDArray[np.float32]) -> None:
        """The row is in the window."""
        self._kernel.advance_batch(self._member, np.array([seq]), rows)

    def reset(self) -> None:
        """Its rows no longer count."""
        self._kernel.reset_member(0)

    def close(self) -> None:
        """Nothing but memory."""


def load_batch(
    payloads: Payloads, facts: Mapping[str, Any], members: int, max_batch: int
) -> WindowKernel:
    """The kernel of the engine ``full``; raises as `WindowKernel` does."""
    content = bytes(payloads[facts["engines"][_ROLE]])
    sizes = (int(facts["window"]), int(facts["width"]), members, max_batch)
    return WindowKernel(content, *sizes, int(facts.get("threads", 1)))


def load(payloads: Payloads, facts: Mapping[str, Any]) -> _OneStream:
    """The same for one stream."""
    return _OneStream(load_batch(payloads, facts, 1, 1))
