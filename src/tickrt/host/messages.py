"""What our process and a host say to each other: JSON messages with file descriptors, bytes sealed.

Entry points: `channels` (a connected pair), `Channel.send` and `Channel.receive`; `sealed` and
`read_sealed` (bytes that nobody can change any more); `error_to_wire`, `error_from_wire`.

The socket is a Unix pair of kind SEQPACKET without a name: only the two processes have it, a
message arrives whole, and the end of either side is an end of the channel.

Invariants: no call waits longer than its timeout; a message that does not fit or is not JSON is an
error of the channel, not of the caller's thread.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import select
import socket
import time
from array import array
from collections.abc import Sequence
from typing import Any

from tickrt import errors
from tickrt.errors import EngineError, HostError, TamperedError, TickrtError

__all__ = [
    "PROTOCOL",
    "Channel",
    "channels",
    "error_from_wire",
    "error_to_wire",
    "read_sealed",
    "sealed",
]

PROTOCOL = 1  # of the requests, and of their answers
_MAX_BYTES, _MAX_FDS = 1 << 17, 80
# linux/fcntl.h; Python 3.9 does not name them everywhere.
_ADD_SEALS, _GET_SEALS = 1033, 1034
_ALL_SEALS = 1 | 2 | 4 | 8  # no more seals, no shrinking, no growing, no writing


def sealed(data: bytes) -> int:
    """A file descriptor of memory that holds `data` and can never be changed. The caller closes it.

    Raises:
        HostError: there is not enough memory.
    """
    try:
        fd = os.memfd_create("tickrt-sealed", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            rest = memoryview(data)
            while len(rest):
                rest = rest[os.write(fd, rest) :]
            fcntl.fcntl(fd, _ADD_SEALS, _ALL_SEALS)
        except BaseException:
            os.close(fd)
            raise
    except OSError as error:
        raise HostError(f"{len(data)} bytes of memory for a host: {error.strerror}") from error
    return fd


def read_sealed(fd: int, what: str) -> memoryview:
    """The bytes behind `fd`, without a copy.

    Raises:
        TamperedError: somebody could still change them.
    """
    try:
        seals = fcntl.fcntl(fd, _GET_SEALS)
    except OSError:
        seals = 0
    if seals & _ALL_SEALS != _ALL_SEALS:
        raise TamperedError(f"{what}: its memory is not sealed")
    size = os.fstat(fd).st_size
    if size == 0:
        return memoryview(b"")
    return memoryview(mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ))


def error_to_wire(error: BaseException) -> dict[str, str]:
    """An exception as part of a message: its kind is the nearest that the other side knows."""
    if isinstance(error, MemoryError):
        return {"kind": "EngineError", "text": f"out of memory: {error or 'no more is free'}"}
    if isinstance(error, TickrtError):
        known = (k.__name__ for k in type(error).__mro__ if k.__module__ == errors.__name__)
        return {"kind": next(known), "text": str(error)}
    return {"kind": "EngineError", "text": f"{type(error).__name__}: {error}"}


def error_from_wire(wire: dict[str, Any], where: str) -> TickrtError:
    """The exception that a host put into its answer, as the same kind."""
    kind = getattr(errors, str(wire.get("kind")), None)
    if not (isinstance(kind, type) and issubclass(kind, TickrtError)):
        kind = EngineError
    return kind(f"{where}: {wire.get('text')}")


class Channel:
    """One end. `where` is what messages call the other side."""

    def __init__(self, connection: socket.socket, where: str) -> None:
        self._socket, self._where = connection, where

    def fileno(self) -> int:
        """For `select.poll`."""
        return self._socket.fileno()

    def send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Send it; `fds` stay the caller's.

        Raises:
            HostError: the other side is gone or reads nothing, or the message is too long.
        """
        data = json.dumps(message).encode()
        if len(data) > _MAX_BYTES or len(fds) > _MAX_FDS:
            raise HostError(
                f"{self._where}: a message of {len(data)} bytes and {len(fds)} files, at most "
                f"{_MAX_BYTES} and {_MAX_FDS}"
            )
        files = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
        try:
            self._socket.sendmsg([data], files, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            raise HostError(f"{self._where} reads nothing any more") from None
        except OSError as error:
            raise HostError(f"{self._where} is gone ({error.strerror})") from error

    def receive(self, timeout_s: float | None = None) -> tuple[dict[str, Any], list[int]]:
        """The next message and its files, which are the caller's then.

        Args:
            timeout_s: None: without end.

        Raises:
            TimeoutError: nothing came.
            EOFError: the other side has closed its end.
            HostError: what came is not a message.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN)
        while not waiting.poll(None if end is None else max(0.0, end - time.monotonic()) * 1000):
            if end is not None and time.monotonic() >= end:
                raise TimeoutError(f"{self._where}: nothing came for {timeout_s:g} s")
        fds = array("i")
        room = socket.CMSG_SPACE(_MAX_FDS * fds.itemsize)
        try:
            data, files, flags, _ = self._socket.recvmsg(_MAX_BYTES, room, socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            raise EOFError(f"{self._where}: {error.strerror}") from error
        for level, kind, content in files:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(content[: len(content) // fds.itemsize * fds.itemsize])
        if not data:
            raise EOFError(f"{self._where} has closed the channel")
        try:
            message = json.loads(data)
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or not isinstance(message, dict):
                raise ValueError
        except ValueError:
            for fd in fds:
                os.close(fd)
            raise HostError(f"{self._where}: what came is not a message") from None
        return message, list(fds)

    def hang_up(self) -> None:
        """End the channel for both sides; a thread that waits in `receive` wakes up."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # the other side was first

    def close(self) -> None:
        """Close this end."""
        self._socket.close()


def channels() -> tuple[socket.socket, socket.socket]:
    """A connected pair of sockets, ours and the host's."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
