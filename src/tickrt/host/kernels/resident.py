"""A resident kernel in the host: launched once, it serves the mailbox by itself.

Entry points: `warm`, `load`, as `registry` asks for them; `pack` makes the payload that `load`
takes, from a kernel that `engines.resident` has made.

The kernel reads rows as `engines.resident` says: the data is the flag. A message's head is its
spare words, a reply's pieces are its values. While it does not serve (parity rows) it runs on a
mailbox of this module's own.

Invariants: every return code of the driver is checked; a kernel that failed is named by `problem`.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickrt.compile import codes
from tickrt.errors import HostError, IncompatibleError
from tickrt.host.cuda import open_device
from tickrt.host.kernels.registry import Payloads
from tickrt.host.mailbox import CONTROL_BYTES, TAKEN, Layout, Mailbox
from tickrt.host.memory.registry import Attached

__all__ = ["FORMAT", "ResidentKernel", "load", "pack", "warm"]

FORMAT = "resident"
PAYLOAD = "kernel"
_MAGIC = b"tickrt-resident 1\n"
_ARRAYS = ("starts", "constants", "weights")
_MOST = {"blocks": 16, "threads": 1024, "shared_bytes": 1 << 20, "width": 1 << 24}
_MOST["outputs"] = 1 << 24
_EMPTY = 0xFFFFFFFF
_PIECE = 16
_END_S, _ANSWER_S = 1.0, 5.0
_SLOTS = 16  # of the mailbox for parity rows


def pack(
    facts: Mapping[str, Any], arrays: Mapping[str, NDArray[np.float32]], cubin: bytes
) -> bytes:
    """A kernel as bytes.

    Args:
        facts: ``blocks``, ``threads``, ``shared_bytes``, ``architecture``, ``width``, ``outputs``,
            ``marks`` (of what the kernel notes the cycles, in a build for that); plain data.
        arrays: ``starts``, ``constants``, ``weights``, float32.
    """
    parts = [np.ascontiguousarray(arrays[name], "<f4").tobytes() for name in _ARRAYS]
    sizes = [len(part) for part in parts]
    head = json.dumps({**facts, "sizes": sizes, "cubin": len(cubin)}).encode()
    return b"".join([_MAGIC, head, b"\n", *parts, cubin])


def _unpack(content: memoryview) -> tuple[dict[str, Any], list[NDArray[np.float32]], bytes]:
    data = bytes(content)
    end = data.find(b"\n", len(_MAGIC))
    if not data.startswith(_MAGIC) or end < 0:
        raise HostError("not a resident kernel of this version: build the engine again")
    try:
        facts = json.loads(data[len(_MAGIC) : end])
        sizes = [*facts["sizes"], facts["cubin"]]
        _check(facts, sizes)
        at, parts = end + 1, []
        for size in sizes:
            parts.append(data[at : at + size])
            at += size
        if at != len(data):
            raise ValueError(f"{len(data)} bytes instead of {at}")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise HostError(f"the resident kernel is damaged: {error}") from error
    return facts, [np.frombuffer(part, "<f4") for part in parts[:-1]], parts[-1]


def _check(facts: dict[str, Any], sizes: list[Any]) -> None:
    """Raises KeyError, TypeError or ValueError where something cannot be."""
    for name, most in _MOST.items():
        if type(facts[name]) is not int or not 0 <= facts[name] <= most:
            raise ValueError(f"{name}: {facts[name]!r}")
    for name, kind in (("architecture", str), ("marks", list)):
        if not isinstance(facts[name], kind):
            raise ValueError(f"{name}: {facts[name]!r}")
    if len(sizes) != len(_ARRAYS) + 1 or any(type(n) is not int or n <= 0 for n in sizes):
        raise ValueError(f"sizes: {sizes}")
    if any(size % 4 for size in sizes[:-1]):
        raise ValueError(f"sizes: {sizes}: no whole numbers")


def warm() -> None:
    """Bring CUDA up and connect to the GPU; its first launch is done, too."""
    device = open_device()
    device.fill(device.scratch(), 0, 4)
    device.wait()


class _Box:
    """A mailbox in this process's memory, for rows that come by request."""

    def __init__(self, layout: Layout, register: Callable[[NDArray[np.uint8]], int]) -> None:
        self.layout = layout
        self.rows = np.frombuffer(mmap.mmap(-1, _pages(layout.row_bytes)), np.uint8)
        self.host = np.frombuffer(mmap.mmap(-1, _pages(layout.host_bytes)), np.uint8)
        self.rows.fill(255)
        self.device_rows, self.device_host = register(self.rows), register(self.host)

    def send(self, number: int, seq: int, row: NDArray[np.float32], kind: int) -> None:
        """One row: all but its head, then its head."""
        slot = ((number - 1) % self.layout.slots) * self.layout.mail_bytes
        words = np.zeros(self.layout.row_stride // 4, np.float32)
        words[: len(row)] = np.where(np.isnan(row), np.float32(np.nan), row)
        place = slot + codes.MAIL_ROWS
        self.rows[place : place + words.nbytes] = words.view(np.uint8)
        head = np.array([seq & 0x3FFFFFFF, seq >> 30, kind, 0], np.uint32)
        at = slot + codes.MAIL_HEAD
        self.rows[at : at + _PIECE] = head.view(np.uint8)

    @property
    def taken(self) -> int:
        """Rows that the kernel has read."""
        return int(self.host[TAKEN : TAKEN + 8].view(np.uint64)[0])

    def answer(self, seq: int) -> NDArray[np.uint32]:
        """The pieces of the reply to row `seq`, uint32 [n, 4]."""
        place = CONTROL_BYTES + (seq % self.layout.slots) * self.layout.reply_bytes
        place += codes.REPLY_VALUES
        size = _PIECE * self.layout.answer_pieces
        return self.host[place : place + size].view(np.uint32).reshape(-1, 4)


def _pages(size: int) -> int:
    return -(-size // 4096) * 4096


class ResidentKernel:
    """One kernel on one GPU, loaded; it runs from the first row that it is asked for."""

    def __init__(self, content: memoryview) -> None:
        facts, arrays, cubin = _unpack(content)
        self._device = device = open_device()
        if device.architecture != facts["architecture"].rstrip("a"):
            raise IncompatibleError(
                f"the kernel was compiled for {facts['architecture']}, this GPU ({device.name}) is "
                f"{device.architecture}: build it for this one"
            )
        self._facts = facts
        self._module = device.load(cubin)
        self._memory: list[int] = []
        self._imported: list[int] = []
        self._registered: list[NDArray[np.uint8]] = []  # kept: the GPU looks at them
        self._running = False
        self._own: _Box | None = None
        self._number, self._pending_reset = 0, 0
        try:
            self._function = self._module.function(
                "resident", facts["shared_bytes"], facts["blocks"] > 8
            )
            self._memory.append(device.allocate(arrays[0].nbytes))
            for array in arrays:
                self._memory.append(device.upload(array))
            stop, self._stop_device = self._page()
            self._stop = stop.view(np.uint32)
            profile, self._profile_device = self._page() if facts["marks"] else (stop, 0)
            self._profile = profile.view(np.int32)
        except HostError:
            self.close()
            raise

    def _register(self, view: NDArray[np.uint8]) -> int:
        """The GPU's address of memory of this process; until `close`."""
        address = self._device.register(int(view.ctypes.data), _pages(len(view)))
        self._registered.append(view)
        return address

    def _page(self) -> tuple[NDArray[np.uint8], int]:
        page = np.frombuffer(mmap.mmap(-1, 4096), np.uint8)
        return page, self._register(page)

    def _launch(self, rows: int, host: int, layout: Layout) -> None:
        device = self._device
        pieces = [layout.mail_bytes // _PIECE, layout.reply_bytes // _PIECE]
        pieces += [codes.MAIL_HEAD // _PIECE, codes.MAIL_ROWS // _PIECE]
        answers = host + CONTROL_BYTES + codes.REPLY_VALUES
        addresses = [rows, answers, self._stop_device, host + TAKEN, *self._memory]
        addresses.append(self._profile_device)
        self._stop[0] = 0
        arguments = struct.pack("<9Q6I", *addresses, layout.slots - 1, *pieces, 0)
        device.launch(
            self._function,
            int(self._facts["blocks"]),
            int(self._facts["threads"]),
            int(self._facts["shared_bytes"]),
            arguments,
        )
        self._running = True

    def _end(self) -> None:
        """Stop the kernel that runs."""
        if not self._running:
            return
        self._stop[0] = 1
        until = time.monotonic() + _END_S
        while not self._device.finished():
            if time.monotonic() > until:
                raise HostError("the resident kernel does not stop: end its host")
            time.sleep(50e-6)
        self._running = False

    def _parity_box(self) -> _Box:
        if self._own is None:
            layout = Layout(int(self._facts["width"]), int(self._facts["outputs"]), slots=_SLOTS)
            self._own = _Box(layout, self._register)
            self._launch(self._own.device_rows, self._own.device_host, layout)
        return self._own

    def _send(self, seq: int, row: NDArray[np.float32], kind: int) -> _Box:
        box, until = self._parity_box(), time.monotonic() + _ANSWER_S
        while self._number - box.taken >= _SLOTS:
            if self._device.finished() or time.monotonic() > until:
                raise HostError(f"row {seq}: the resident kernel does not take rows")
        self._number += 1
        box.send(self._number, seq, row, kind | self._pending_reset)
        self._pending_reset = 0
        return box

    def answer(self, seq: int, rows: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """Row `seq` with an answer; the kernel then advances by itself.

        Raises:
            HostError: the window is not complete, or the kernel does not answer.
        """
        self._answered = seq
        box = self._send(seq, rows[0], codes.MAIL_ANSWER)
        until = time.monotonic() + _ANSWER_S
        while True:
            pieces = box.answer(seq)
            numbers = pieces[:, 3]
            if (numbers == (seq & 0x3FFFFFFF)).all():
                out[0] = pieces[:, :3].ravel().view(np.float32)[: out.shape[1]]
                return
            if (numbers == ((seq & 0x3FFFFFFF) | codes.ANSWER_REFUSED)).all():
                raise HostError(f"row {seq}: the window is not complete")
            if self._device.finished() or time.monotonic() > until:
                raise HostError(f"row {seq}: the resident kernel does not answer")

    _answered = 0

    def advance(self, seq: int, rows: NDArray[np.float32]) -> None:
        """Row `seq` without an answer; nothing to do where it had one."""
        if seq != self._answered:
            self._send(seq, rows[0], 0)

    def reset(self) -> None:
        """The next row starts anew."""
        self._pending_reset = codes.MAIL_RESET

    def begin(self, box: Mailbox, rows: Attached, host: Attached) -> None:
        """Serve that mailbox."""
        self._end()
        assert host.view is not None
        device_host = self._register(host.view)
        if rows.fd >= 0:
            from tickrt.host.memory.vulkan import rounded

            # The driver takes the descriptor over.
            size = rounded(box.layout.row_bytes)
            device_rows = self._device.import_memory(os.dup(rows.fd), size)
            self._imported.append(device_rows)
            self._device.fill(device_rows, _EMPTY, box.layout.row_bytes // 4)
        else:
            assert rows.view is not None
            rows.view.fill(255)
            device_rows = self._register(rows.view)
        self._device.wait()
        self._launch(device_rows, device_host, box.layout)

    def stats(self) -> dict[str, Any]:
        """Cycles of the last row's parts, in a build for that."""
        cycles = self._profile.tolist()
        names = [str(name) for name in self._facts["marks"]]
        return {"cycles": list(zip(names, cycles))} if names else {}

    def problem(self) -> str:
        """Why the kernel has ended."""
        try:
            return "the resident kernel has ended by itself" if self._device.finished() else ""
        except HostError as error:
            return str(error)

    def finish(self) -> None:
        """Serve no more."""
        self._end()

    def close(self) -> None:
        """Give the GPU back what is ours."""
        self._end()
        for view in self._registered:
            self._device.unregister(int(view.ctypes.data))
        self._registered.clear()
        self._module.close()
        for address in self._imported:
            self._device.give_back(address)
        self._imported.clear()
        for address in self._memory:
            self._device.free(address)
        self._memory.clear()


def load(payloads: Payloads, facts: Mapping[str, Any]) -> ResidentKernel:
    """The kernel of the payload that the facts name.

    Raises:
        HostError: it is damaged, or the driver refuses something; names the call.
        IncompatibleError: it was compiled for another GPU.
    """
    return ResidentKernel(payloads[facts["engines"]["full"]])
