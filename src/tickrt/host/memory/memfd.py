"""Ordinary memory without a name: nobody finds it who was not given its file descriptor.

Entry points: `probe`, `allocate`, `attach`, as `registry` calls them.

Invariants: its size is sealed, so neither side can take pages away from the other.
"""

from __future__ import annotations

import fcntl
import mmap
import os

import numpy as np

from tickrt.errors import HostError
from tickrt.host.memory.registry import ORDINARY, Allocated, Attached

__all__ = ["allocate", "attach", "probe"]

# Python 3.9's fcntl has the numbers, but not everywhere (linux/fcntl.h).
_ADD_SEALS, _SEAL_SHRINK, _SEAL_GROW = 1033, 2, 4


def probe() -> str:
    """Linux has it."""
    return "" if hasattr(os, "memfd_create") else "it needs Linux"


def allocate(size: int) -> Allocated:
    """Zeroed memory with its pages touched.

    Raises:
        HostError: there is not enough.
    """
    try:
        fd = os.memfd_create("tickrt-mailbox", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.posix_fallocate(fd, 0, size)  # an error here, not a bus error later
            fcntl.fcntl(fd, _ADD_SEALS, _SEAL_SHRINK | _SEAL_GROW)
            view = np.frombuffer(mmap.mmap(fd, size), np.uint8)
        except BaseException:
            os.close(fd)
            raise
    except OSError as error:
        raise HostError(f"{size} bytes of shared memory: {error.strerror}") from error
    view.fill(0)

    def close() -> None:
        os.close(fd)  # the mapping goes with the last array that looks at it

    return Allocated(ORDINARY, int(view.ctypes.data), size, fd, close, view)


def attach(fd: int, size: int) -> Attached:
    """Map what another process made.

    Raises:
        HostError: it is smaller than `size`, or cannot be mapped.
    """
    try:
        held = os.fstat(fd).st_size
        if held < size:
            raise HostError(f"shared memory: {held} bytes, expected {size}")
        view = np.frombuffer(mmap.mmap(fd, size), np.uint8)
    except OSError as error:
        raise HostError(f"shared memory: {error.strerror}") from error
    return Attached(ORDINARY, view)
