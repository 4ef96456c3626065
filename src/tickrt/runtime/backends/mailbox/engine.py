"""An engine in a host process, as the loop has engines: a handle, facts, an error, an end.

Entry points: `LoopSide` (the mailbox's memory and the context of the handle's functions),
`MailboxEngine` (that with its host).

Limits: batch 1: one engine per stream, as the loop submits them.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickrt.compile.jit import CFunction, c_function
from tickrt.engines.graph.check import LoopModel
from tickrt.host.mailbox import CONTROL_BYTES, ERROR, GONE, TAKEN, Layout, Mailbox
from tickrt.host.memory.registry import ORDINARY, allocate, choose
from tickrt.host.parcel import Parcel
from tickrt.host.process import HostProcess
from tickrt.runtime.backends.handle import RowRing
from tickrt.runtime.backends.mailbox import kernels as k_

__all__ = ["LoopSide", "MailboxEngine", "slots_for"]

_MIN_SLOTS = 256
Parity = tuple[NDArray[np.float32], NDArray[np.float32], float]


@cache
def _functions(direct: bool) -> tuple[CFunction, CFunction, CFunction, CFunction]:
    if direct:
        from tickrt.runtime.backends.mailbox import direct_kernels as d_

        return (
            c_function(d_.direct_submit, 3),
            c_function(d_.direct_poll, 2),
            c_function(d_.direct_advance, 2),
            c_function(k_.mail_reset, 1),
        )
    return (
        c_function(k_.mail_submit, 3),
        c_function(k_.mail_poll, 2),
        c_function(k_.mail_advance, 2),
        c_function(k_.mail_reset, 1),
    )


def slots_for(window: int) -> int:
    """Slots of a mailbox: room for the rows of two windows, which are sent without waiting."""
    return max(_MIN_SLOTS, 1 << (2 * window).bit_length())


class LoopSide:
    """The memory of a mailbox, and the handle whose functions write and read it.

    Args:
        ring: the stream's rows.
        outputs: of the model.
        row_memory: a kind of `host.memory.registry`, or ``auto``.
        direct: the kernel watches the rows themselves (`direct_kernels`).

    Attributes:
        layout: the mailbox's sizes.
        rows, host: its two memories; they belong to this object.
        box: our view of it.

    Raises:
        ConfigError: that kind of memory cannot be had here.
        HostError: there is not enough of it.
    """

    def __init__(
        self, ring: RowRing, outputs: int, row_memory: str = ORDINARY, direct: bool = False
    ) -> None:
        self.direct = direct
        self.layout = Layout(ring.width, outputs, slots=slots_for(ring.window))
        self._ring = ring
        self.rows = allocate(self.layout.row_bytes, choose(row_memory))
        self.host = allocate(self.layout.host_bytes)
        assert self.host.view is not None
        self.box = Mailbox(self.layout, self.host.view, fresh=True)
        if direct:  # zeros would be an answer to every row whose low bits are zero
            self.host.view[CONTROL_BYTES:] = 0xFF
        self._output = np.zeros(-(-outputs // 2) * 2, np.float32)  # whole words are copied
        self._stamp = np.zeros(1, np.int64)
        self._ctx = self._context()

    def _context(self) -> NDArray[np.int64]:
        layout, host = self.layout, self.host.address
        columns = {
            k_.STAMP: self._stamp.ctypes.data,
            k_.OUTPUT: self._output.ctypes.data,
            k_.RING: self._ring.address,
            k_.WINDOW: self._ring.window,
            k_.ROW_BYTES: 4 * layout.width,
            k_.MAIL: self.rows.address,
            k_.MAIL_BYTES: layout.mail_bytes,
            k_.MASK: layout.slots - 1,
            k_.REPLIES: host + CONTROL_BYTES,
            k_.REPLY_BYTES: layout.reply_bytes,
            k_.OUTPUT_BYTES: 4 * layout.outputs,
            k_.FENCE: self.rows.fence,
            k_.TAKEN_AT: host + TAKEN,
            k_.ERROR_AT: host + ERROR,
            k_.GONE_AT: host + GONE,
        }
        ctx = np.zeros(k_.CTX_BYTES // 8, np.int64)
        for offset, value in columns.items():
            ctx[offset // 8] = value
        return ctx

    def column(self, offset: int) -> int:
        """A column of the context: ``kernels.MESSAGES``, ``kernels.DROPPED``, …"""
        return int(self._ctx[offset // 8])

    def handle(self) -> NDArray[np.int64]:
        """int64[10] in the order of `codes.ENGINE_*`."""
        functions = [f.address for f in _functions(self.direct)]
        buffers = [self._ctx.ctypes.data, self._ring.address]
        buffers += [self._output.ctypes.data, self._stamp.ctypes.data]
        return np.array([*functions, *buffers, self.layout.outputs, 1], np.int64)

    def close(self) -> None:
        """Give the memory back; the loop must have ended."""
        self.rows.close()
        self.host.close()


class MailboxEngine:
    """A model that a host process runs.

    Args:
        backend: its name, for reports.
        model: the checked model.
        ring: the stream's rows.
        host: a host without an engine; it belongs to this object from now on.
        parcel: what the host loads.
        row_memory, direct: as for `LoopSide`.
        parity: rows, what is expected of them and a tolerance, as for `HostProcess.verify`; None:
            nothing is compared.

    Raises:
        EngineError: its answers differ from what is expected.
        HostError: the host has failed; also whatever it refuses the parcel with.
    """

    def __init__(
        self,
        backend: str,
        model: LoopModel,
        ring: RowRing,
        host: HostProcess,
        parcel: Parcel,
        row_memory: str = ORDINARY,
        direct: bool = False,
        parity: Parity | None = None,
    ) -> None:
        self.backend, self._model, self.host = backend, model, host
        try:
            self.side = LoopSide(ring, model.n_outputs, row_memory, direct)
            try:
                side = self.side
                host.load(parcel, side.layout, (side.rows, side.host), side.box)
                self.max_error = None if parity is None else host.verify(*parity)
                host.start()
            except BaseException:
                host.close()  # before the memory that it looks at goes
                self.side.close()
                raise
        except BaseException:
            host.close()
            raise

    def handle(self) -> NDArray[np.int64]:
        """int64[10] in the order of `codes.ENGINE_*`."""
        return self.side.handle()

    def describe(self) -> dict[str, Any]:
        """Backend, interpreter, the model's digest, the kind of its row memory."""
        checked = {} if self.max_error is None else {"parity_max_abs": self.max_error}
        return checked | {
            "backend": self.backend,
            "version": f"Python {self.host.facts['python']}",
            "model": self._model.name,
            "model_sha256": self._model.sha256,
            "row_memory": self.side.rows.kind,
            "rows_dropped": self.side.column(k_.DROPPED),
        }

    def error(self) -> str:
        """Why the host is gone, or what it said last; an empty string where all is well."""
        if self.host.why:
            return ": ".join(filter(None, (f"its host {self.host.why}", self.host.log())))
        if dropped := self.side.column(k_.DROPPED):
            return f"{dropped} rows came faster than its host takes them"
        gone = "its host has ended" if self.side.box.get(GONE) else ""  # and has not yet said why
        return self.side.box.text or gone

    def close(self) -> None:
        """End the host and give the memory back."""
        self.host.close()
        self.side.close()
