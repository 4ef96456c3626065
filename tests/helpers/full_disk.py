"""A disk that is full, for this process alone: `room`."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["room"]


@contextmanager
def room(size: int) -> Iterator[None]:
    """Files of at most `size` bytes: the kernel refuses what goes beyond, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
