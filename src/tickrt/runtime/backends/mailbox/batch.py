"""Many streams of one model on one engine host: a handle for each, a mailbox for all.

Entry points: `BatchSide` (the mailbox's memory and the contexts of the handles' functions), `group`
(the engines of a model on many streams).

Invariants: a stream's handle keeps the contract of any engine's; what fails one row fails no other;
when the host is gone, every handle says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickrt.compile import codes
from tickrt.compile.jit import CFunction, c_function
from tickrt.engines.graph.check import LoopModel
from tickrt.errors import ConfigError
from tickrt.host.batch import MAX_MEMBERS, BatchLayout, BatchMailbox
from tickrt.host.mailbox import CONTROL_BYTES, ERROR, GONE, TAKEN
from tickrt.host.memory.registry import ORDINARY, allocate, choose
from tickrt.host.parcel import Parcel
from tickrt.host.process import HostProcess
from tickrt.runtime.backends.handle import Engine, RowRing
from tickrt.runtime.backends.mailbox import batch_kernels as k_

__all__ = ["BatchSide", "BatchedEngine", "group", "slots_for"]

_MIN_SLOTS = 32


@cache
def _functions() -> tuple[CFunction, CFunction, CFunction, CFunction]:
    return (
        c_function(k_.batch_submit, 3),
        c_function(k_.batch_poll, 2),
        c_function(k_.batch_advance, 2),
        c_function(k_.batch_reset, 1),
    )


def slots_for(window: int, members: int, max_batch: int) -> int:
    """Slots of a mailbox: room for the rows of two windows of every stream, sent unasked."""
    messages = 2 * window * -(-members // max_batch)
    return max(_MIN_SLOTS, 1 << messages.bit_length())


class BatchSide:
    """The memory of a mailbox for many streams, and their handles.

    Args:
        rings: the rows of each stream, all of the same T and F.
        outputs: of the model.
        max_batch: rows of a message, at most.
        row_memory: a kind of `host.memory.registry`, or ``auto``.

    Attributes:
        layout: the mailbox's sizes.
        rows, host: its two memories; they belong to this object.
        box: our view of it.

    Raises:
        ConfigError: too many streams; that kind of memory cannot be had here.
        HostError: there is not enough of it.
    """

    def __init__(
        self, rings: Sequence[RowRing], outputs: int, max_batch: int, row_memory: str = ORDINARY
    ) -> None:
        if len(rings) > MAX_MEMBERS:
            raise ConfigError(
                f"{len(rings)} symbols share one engine host, at most {MAX_MEMBERS} can: split "
                "them into several sessions, or give each an engine of its own with max_batch = 1"
            )
        window, width = rings[0].window, rings[0].width
        slots = slots_for(window, len(rings), max_batch)
        self.layout = BatchLayout(width, outputs, max_batch, slots, members=len(rings))
        self._rings = rings
        self.rows = allocate(self.layout.row_bytes, choose(row_memory))
        self.host = allocate(self.layout.host_bytes)
        assert self.host.view is not None
        self.box = BatchMailbox(self.layout, self.host.view, fresh=True)
        self._outputs = np.zeros((len(rings), -(-outputs // 2) * 2), np.float32)  # whole words
        self._stamps = np.zeros((len(rings), 8), np.int64)  # a cache line each
        self._all = self._group_context()
        self._ctx = self._contexts()

    def _group_context(self) -> NDArray[np.int64]:
        layout, host = self.layout, self.host.address
        columns = {
            k_.MAIL: self.rows.address,
            k_.MAIL_BYTES: layout.mail_bytes,
            k_.MASK: layout.slots - 1,
            k_.ROW_BYTES: 4 * layout.width,
            k_.ROW_STRIDE: layout.row_stride,
            k_.MAX_BATCH: layout.max_batch,
            k_.REPLY_BYTES: layout.reply_bytes,
            k_.OUTPUT_BYTES: 4 * layout.outputs,
            k_.FENCE: self.rows.fence,
            k_.TAKEN_AT: host + TAKEN,
            k_.ERROR_AT: host + ERROR,
            k_.GONE_AT: host + GONE,
        }
        context = np.zeros(k_.GROUP_BYTES // 8, np.int64)
        for offset, value in columns.items():
            context[offset // 8] = value
        return context

    def _contexts(self) -> NDArray[np.int64]:
        replies = self.host.address + CONTROL_BYTES
        each = codes.BATCH_REPLIES * self.layout.reply_bytes
        contexts = np.zeros((len(self._rings), k_.CTX_BYTES // 8), np.int64)
        for member, ring in enumerate(self._rings):
            columns = {
                k_.GROUP: self._all.ctypes.data,
                k_.MEMBER: member,
                k_.STAMP: self._stamps[member].ctypes.data,
                k_.OUTPUT: self._outputs[member].ctypes.data,
                k_.RING: ring.address,
                k_.WINDOW: ring.window,
                k_.REPLIES: replies + member * each,
            }
            for offset, value in columns.items():
                contexts[member, offset // 8] = value
        return contexts

    def column(self, member: int, offset: int) -> int:
        """A column of a stream's context: ``batch_kernels.DROPPED``, …"""
        return int(self._ctx[member, offset // 8])

    def shared(self, offset: int) -> int:
        """A column of the context of all: ``batch_kernels.MESSAGES``, …"""
        return int(self._all[offset // 8])

    def handle(self, member: int) -> NDArray[np.int64]:
        """int64[10] in the order of `codes.ENGINE_*`, of one stream."""
        functions = [f.address for f in _functions()]
        buffers = [self._ctx[member].ctypes.data, self._rings[member].address]
        buffers += [self._outputs[member].ctypes.data, self._stamps[member].ctypes.data]
        layout = self.layout
        return np.array([*functions, *buffers, layout.outputs, layout.max_batch], np.int64)

    def close(self) -> None:
        """Give the memory back; the loop must have ended."""
        self.rows.close()
        self.host.close()


class _Shared:
    """The host and the memory that engines share; the last one to be closed closes them."""

    def __init__(self, side: BatchSide, host: HostProcess) -> None:
        self.side, self.host = side, host
        self._users = side.layout.members

    def release(self) -> None:
        self._users -= 1
        if self._users == 0:
            self.host.close()
            self.side.close()


class BatchedEngine:
    """One stream of a model that a host runs for many; `group` makes them.

    Attributes:
        backend: its name, for reports.
        lane: what the engines of one host have in common; they answer in order.
    """

    def __init__(self, backend: str, model: LoopModel, member: int, shared: _Shared) -> None:
        self.backend, self._model, self._member, self._shared = backend, model, member, shared
        self.lane, self._closed = id(shared), False

    @property
    def host(self) -> HostProcess:
        """The process."""
        return self._shared.host

    @property
    def side(self) -> BatchSide:
        """The mailbox."""
        return self._shared.side

    def handle(self) -> NDArray[np.int64]:
        """int64[10] in the order of `codes.ENGINE_*`."""
        return self.side.handle(self._member)

    def describe(self) -> dict[str, Any]:
        """Backend, interpreter, the model's digest, who shares the host, the rows it lost."""
        layout = self.side.layout
        return {
            "backend": self.backend,
            "version": f"Python {self.host.facts['python']}",
            "model": self._model.name,
            "model_sha256": self._model.sha256,
            "row_memory": self.side.rows.kind,
            "rows_dropped": self.side.column(self._member, k_.DROPPED),
            "batch_of": layout.members,
            "max_batch": layout.max_batch,
        }

    def error(self) -> str:
        """Why the host is gone, or what it said last; an empty string where all is well."""
        if self.host.why:
            return ": ".join(filter(None, (f"its host {self.host.why}", self.host.log())))
        if dropped := self.side.column(self._member, k_.DROPPED):
            return f"{dropped} rows came faster than its host takes them"
        gone = "its host has ended" if self.side.box.get(GONE) else ""  # and has not yet said why
        failed = self.side.box.get(ERROR) or self.side.column(self._member, k_.REFUSED)
        return (self.side.box.text if failed else "") or gone

    def close(self) -> None:
        """End the host and give the memory back, where this is the last that uses them."""
        if not self._closed:
            self._closed = True
            self._shared.release()


def group(
    backend: str,
    model: LoopModel,
    rings: Sequence[RowRing],
    host: HostProcess,
    parcel: Parcel,
    max_batch: int,
) -> list[Engine]:
    """A model on many streams, in one host.

    Args:
        backend: its name, for reports.
        model: the checked model.
        rings: the rows of each stream.
        host: a host without an engine; it belongs to the engines from now on.
        parcel: what the host loads.
        max_batch: rows of a message, at most.

    Returns:
        an engine for each ring; when the last of them is closed, the host ends.

    Raises:
        ConfigError: too many streams.
        HostError: the host has failed; also whatever it refuses the parcel with.
    """
    side = None
    try:
        side = BatchSide(rings, model.n_outputs, max_batch)
        host.load(parcel, side.layout, (side.rows, side.host), side.box)
        host.start()
    except BaseException:
        host.close()  # before the memory that it looks at goes
        if side is not None:
            side.close()
        raise
    shared = _Shared(side, host)
    return [BatchedEngine(backend, model, member, shared) for member in range(len(rings))]
