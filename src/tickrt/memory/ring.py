"""The one queue: 64-byte records from a producer to a consumer, in shared memory or this process's.

`Ring` is a single-producer single-consumer queue of events, orders, reports or other records
(`memory.records`). In `multiprocessing.shared_memory` one side calls `Ring.create`, the other
`Ring.attach`, from another process, another thread or the same one; `Ring.local` lies in this
process's memory. `FeedView` is what compiled code gets of it; `array_view` makes the same view over
an array of events in which everything has been published already.

Layout in bytes: header int64[24] (`[0]` published, `[8]` consumed, `[16]` closed, `[17]` producer's
heartbeat, `[18]` producer's process id, `[19]` capacity, `[20]` magic, `[21]` the dtype's
checksum; the three hot words are 64 bytes apart), stamps int64[capacity] (CPU `clock()` at
publication, 0 for recorded events), records[capacity].

Invariants: counts never fall; published − consumed ≤ capacity; nothing is overwritten unread;
`closed` is set after the last publication, so a consumer that sees it set must look at `published`
once more. The memory stays mapped while any array of it is referenced.

Limits: one producer and one consumer, neither is locked out but a second live producer is refused;
a batch longer than the ring becomes visible in parts; process ids are compared within one PID
namespace. A consumer that dies leaves a full ring: `publish` then returns 0.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker, shared_memory
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tickrt.errors import ConfigError, DataError, EngineError
from tickrt.memory import kernels
from tickrt.memory.records import EVENT_DTYPE

__all__ = ["FeedView", "Ring", "array_view"]

Events = npt.NDArray[Any]

_HEADER = 24
_PUBLISHED, _CONSUMED, _CLOSED, _HEARTBEAT, _PRODUCER, _CAPACITY, _MAGIC = 0, 8, 16, 17, 18, 19, 20
_DTYPE = 21
_MAGIC_NUMBER = 0x7469636B72740002  # "tickrt", layout 2
_MAX_CAPACITY = 1 << 32
_tracker_lock = threading.Lock()


class FeedView(NamedTuple):
    """A ring as compiled code sees it. Record number q (from 0) is ``events[q & mask]``."""

    events: Events  # [capacity] of the ring's dtype
    stamps: npt.NDArray[np.int64]  # [capacity]: clock() at publication, 0 for recorded events
    mask: int  # capacity − 1; −1 for a plain array
    published: int  # address of the int64 count of events that may be read
    consumed: int  # address of the int64 count of events that have been read
    closed: int  # address of the int64 flag: 1 when nothing more will come


def array_view(events: Events) -> tuple[FeedView, Any]:
    """A `FeedView` over `events`, all of them published and the feed closed.

    Args:
        events: `EVENT_DTYPE[n]`. Used in place if contiguous and writable, else copied.

    Returns:
        The view and its owner: keep the owner alive while the view's addresses are in use.

    Raises:
        DataError: `events` is not a one-dimensional event array.
    """
    events = _as_events(events)
    header = np.zeros(_HEADER, np.int64)
    header[_PUBLISHED] = len(events)
    header[_CLOSED] = 1
    stamps = np.zeros(len(events), np.int64)
    return _view(events, stamps, -1, header), header


def _as_events(events: Events) -> Events:
    if events.dtype != EVENT_DTYPE or events.ndim != 1:
        raise DataError(
            f"expected a one-dimensional array of the 64-byte event dtype, got {events.dtype} with "
            f"shape {events.shape}: load files with tickrt.market.event_file.load_events"
        )
    return _as_records(events, EVENT_DTYPE)


def _as_records(records: Events, dtype: np.dtype[Any]) -> Events:
    if records.dtype != dtype or records.ndim != 1:
        raise DataError(
            f"expected a one-dimensional array of {dtype.names}, got {records.dtype} with shape "
            f"{records.shape}"
        )
    # Compiled code is typed by these flags; a read-only array would be compiled for again.
    return np.require(records, requirements=["C", "A", "W"]).view(dtype)


def _check_capacity(capacity: int) -> None:
    if not 2 <= capacity <= _MAX_CAPACITY or capacity & (capacity - 1):
        raise ConfigError(f"ring capacity: expected a power of two from 2, got {capacity}")


def _checksum(dtype: np.dtype[Any]) -> int:
    """Tells one kind of record from another."""
    return zlib.crc32(repr(dtype.descr).encode())


def _allocate(
    capacity: int, dtype: np.dtype[Any]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Events]:
    """Header, stamps and records in this process's memory, with their pages touched."""
    header = np.zeros(_HEADER, np.int64)
    header[_CAPACITY], header[_MAGIC], header[_DTYPE] = capacity, _MAGIC_NUMBER, _checksum(dtype)
    records = np.zeros(capacity, dtype)
    records.view(np.uint8).fill(0)
    return header, np.zeros(capacity, np.int64), records


def _view(
    events: Events, stamps: npt.NDArray[np.int64], mask: int, header: npt.NDArray[np.int64]
) -> FeedView:
    base = header.ctypes.data
    return FeedView(
        events, stamps, mask, base + 8 * _PUBLISHED, base + 8 * _CONSUMED, base + 8 * _CLOSED
    )


class Ring:
    """A single-producer single-consumer ring of 64-byte records.

        ring = tr.Ring.create(None)
        ring.publish(tr.load_events("btc.npz").data[:1000])
        ring.read(10)
        ring.unlink()

    Make one with `create` or `attach`. The consumer uses `view` (compiled code) or `read` (copies);
    the producer uses `publish`, `beat` and `close`. Whoever created it calls `unlink` at the end.
    """

    def __init__(
        self,
        memory: shared_memory.SharedMemory | None,
        dtype: np.dtype[Any],
        *,
        fresh_capacity: int = 0,
    ) -> None:
        self.name = memory.name if memory is not None else "local"
        self.dtype = dtype
        self._created = memory if fresh_capacity else None
        if memory is None:
            header, stamps, events = _allocate(fresh_capacity, dtype)
        else:
            header, stamps, events = _map(memory, fresh_capacity, dtype)
        self._header = header
        self._claimed = False
        self.capacity = len(events)
        self.view = _view(events, stamps, self.capacity - 1, header)

    @classmethod
    def create(
        cls, name: str | None, capacity: int = 1 << 16, dtype: np.dtype[Any] = EVENT_DTYPE
    ) -> Ring:
        """Create the shared memory `name` (None: a free name is chosen) for `capacity` records.

        Raises:
            ConfigError: capacity is not a power of two from 2 to 2^32, or the name exists.
        """
        _check_capacity(capacity)
        size = 8 * _HEADER + capacity * (8 + dtype.itemsize)
        try:
            memory = shared_memory.SharedMemory(name, create=True, size=size)
        except FileExistsError:
            raise ConfigError(
                f"ring {name!r} exists already: attach to it, choose another name, or remove "
                f"/dev/shm/{name} if its process has died"
            ) from None
        return cls(memory, dtype, fresh_capacity=capacity)

    @classmethod
    def local(cls, capacity: int = 1 << 16, dtype: np.dtype[Any] = EVENT_DTYPE) -> Ring:
        """A ring in this process's own memory, for another thread or compiled code.

        Raises:
            ConfigError: capacity is not a power of two from 2 to 2^32.
        """
        _check_capacity(capacity)
        return cls(None, dtype, fresh_capacity=capacity)

    @classmethod
    def attach(cls, name: str, dtype: np.dtype[Any] = EVENT_DTYPE) -> Ring:
        """Attach to a ring that another process or thread created.

        Raises:
            ConfigError: there is no such shared memory, or it is not a ring of this layout and
                these records.
        """
        try:
            memory = _open_untracked(name)
        except (FileNotFoundError, ValueError):  # ValueError: created this instant, no size yet
            raise ConfigError(
                f"ring {name!r} does not exist: start the process that creates it first"
            ) from None
        return cls(memory, dtype)

    @property
    def published(self) -> int:
        """How many events were ever published."""
        return int(self._header[_PUBLISHED])

    @property
    def consumed(self) -> int:
        """How many events were ever read."""
        return int(self._header[_CONSUMED])

    @property
    def closed(self) -> bool:
        """Whether the producer said that nothing more will come."""
        return bool(kernels.is_closed(self.view))

    def publish(self, events: Events, *, stamped: bool = True) -> int:
        """Publish from the front of `events` what there is room for, without waiting.

        Whole batches (up to a `BATCH_END`) become visible at once; only a batch that is longer than
        the ring passes in parts. Call again with the rest: ``events[taken:]``.

        Args:
            events: records of the ring's dtype.
            stamped: events only: note when they were published. Recorded ones have no such time;
                the loop then takes them as those of a file.

        Returns:
            How many events were taken, 0 when the ring is full.

        Raises:
            EngineError: the ring is closed, or another live process is its producer.
            DataError: `events` is not an event array.
        """
        if not self._claimed:
            self._claim()
        if self._header[_CLOSED]:
            raise EngineError(f"ring {self.name}: publish after close: open a new ring")
        if self.dtype != EVENT_DTYPE:
            return int(kernels.push_records(self.view, _as_records(events, self.dtype)))
        return int(kernels.push(self.view, _as_events(events), stamped))

    def read(self, limit: int = 4096) -> Events:
        """Take up to `limit` unread events as a copy; empty when there are none."""
        out = np.empty(limit, self.dtype)
        return out[: int(kernels.pop(self.view, out, np.empty(limit, np.int64)))]

    def beat(self) -> None:
        """Tell the consumer that the producer is alive though the market is quiet."""
        if not self._claimed:
            self._claim()
        kernels.beat(self.view)

    def heartbeat_age(self) -> int:
        """CPU clock ticks since the producer last published or beat."""
        return int(kernels.heartbeat_age(self.view))

    def producer_alive(self) -> bool:
        """Whether a producer has claimed the ring and its process still runs."""
        return _alive(int(self._header[_PRODUCER]))

    def close(self) -> None:
        """Producer: mark the end. The consumer still reads what was published."""
        kernels.close(self.view)

    def unlink(self) -> None:
        """Creator: remove the name. The memory lives as long as anyone has it mapped.

        Does nothing on a ring that was attached to, or a second time.
        """
        created, self._created = self._created, None
        if created is not None:
            with suppress(FileNotFoundError):
                created.unlink()

    def _claim(self) -> None:
        owner, me = int(self._header[_PRODUCER]), os.getpid()
        if owner not in (0, me) and _alive(owner):
            raise EngineError(
                f"ring {self.name}: process {owner} is its producer and alive: stop that one first"
            )
        self._header[_PRODUCER] = me
        self._claimed = True


def _map(
    memory: shared_memory.SharedMemory, fresh_capacity: int, dtype: np.dtype[Any]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Events]:
    """Header, stamps and events as arrays that keep `memory` mapped for as long as they live.

    Arrays straight over `memory.buf` would make its `close` fail while they exist; these refer to
    it by address and hold the object itself.
    """
    assert memory.buf is not None
    probe = np.frombuffer(memory.buf, np.uint8)
    address, size = probe.ctypes.data, len(probe)
    del probe
    block_type: Any = type("RingBlock", (ctypes.c_char * size,), {})
    block = block_type.from_address(address)
    block.memory = memory
    header = np.frombuffer(block, np.int64, _HEADER if size >= 8 * _HEADER else 0)
    if fresh_capacity:
        header[_CAPACITY] = fresh_capacity
        header[_MAGIC] = _MAGIC_NUMBER
        header[_DTYPE] = _checksum(dtype)
    if not len(header) or header[_MAGIC] != _MAGIC_NUMBER:
        raise ConfigError(
            f"shared memory {memory.name!r} is not a tickrt ring of this version: "
            "use the same tickrt on both sides"
        )
    if header[_DTYPE] != _checksum(dtype):
        raise ConfigError(
            f"shared memory {memory.name!r} is a ring of other records than {dtype.names}: "
            "check the name"
        )
    capacity = int(header[_CAPACITY])
    stamps = np.frombuffer(block, np.int64, capacity, 8 * _HEADER)
    events = np.frombuffer(block, dtype, capacity, 8 * (_HEADER + capacity))
    return header, stamps, events


def _alive(pid: int) -> bool:
    if pid <= 0:
        return False
    with suppress(OSError, IndexError):  # Linux: a dead child that nobody has waited for yet
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _open_untracked(name: str) -> shared_memory.SharedMemory:
    """Open without registering: the tracker would remove the creator's memory when we exit."""
    if sys.version_info >= (3, 13):
        return shared_memory.SharedMemory(name, track=False)
    with _untracked():
        return shared_memory.SharedMemory(name)


@contextmanager
def _untracked() -> Iterator[None]:
    with _tracker_lock:
        register = resource_tracker.register
        resource_tracker.register = lambda *_: None
        try:
            yield
        finally:
            resource_tracker.register = register
