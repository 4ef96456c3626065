"""The kinds of shared memory: `choose` one, `allocate` in the loop's process, `attach` in the host.

A kind is a module with three functions:

    probe() -> str                      why it cannot be had here; empty where it can
    allocate(size) -> Allocated         in the loop's process: zeroed, its pages touched
    attach(fd, size) -> Attached        in the host; `fd` stays the caller's: a copy may be kept

Memory that the loop only writes (the GPU's own) is a kind like any other: its `Allocated` may ask
for a fence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickrt.errors import ConfigError

__all__ = [
    "AUTO",
    "GPU",
    "ORDINARY",
    "Allocated",
    "Attached",
    "allocate",
    "attach",
    "choose",
    "kinds",
]

AUTO = "auto"
GPU = "vulkan"  # the GPU's own memory, which the loop stores into
ORDINARY = "memfd"  # what every machine has
# In the order in which `auto` asks them: the quickest first.
_KINDS = {
    "vulkan": "tickrt.host.memory.vulkan",
    ORDINARY: "tickrt.host.memory.memfd",
}


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Allocated:
    """Shared memory in the process that made it.

    Attributes:
        kind: its kind's name.
        address: where this process has it mapped.
        size: in bytes.
        fd: what the other process attaches to; it belongs to this object.
        close: gives it back; nothing may use the address afterwards.
        view: it as uint8, where this process may read it; None: it may only write.
        fence: address of a C function ``int64 f(int64)`` to call after the data and again after
            the stamp, where stores are not seen in order by themselves; 0: they are.
    """

    kind: str
    address: int
    size: int
    fd: int
    close: Callable[[], None]
    view: NDArray[np.uint8] | None = None
    fence: int = 0


@dataclass(frozen=True)
class Attached:
    """The same memory in the host.

    Attributes:
        view: it as uint8, where the host's processor can read it; else None.
        fd: a file descriptor of the host's own, for a kernel that maps it by itself because only a
            GPU's driver can; -1 where there is a view.
        close: gives it back.
    """

    kind: str
    view: NDArray[np.uint8] | None
    fd: int = -1
    close: Callable[[], None] = field(default=_nothing)


def kinds() -> list[str]:
    """Every kind, the quickest first."""
    return list(_KINDS)


def _find(kind: str) -> Any:
    if kind not in _KINDS:
        raise ConfigError(f"row memory {kind!r}: unknown; there are {AUTO}, {', '.join(_KINDS)}")
    return import_module(_KINDS[kind])


def choose(kind: str = AUTO) -> str:
    """`kind`, or for ``auto`` the first that can be had here.

    Raises:
        ConfigError: there is no such kind, or it cannot be had here; says why.
    """
    if kind != AUTO:
        why = _find(kind).probe()
        if why:
            raise ConfigError(f"row memory {kind!r} cannot be had here: {why}")
        return kind
    reasons = []
    for name in _KINDS:
        why = _find(name).probe()
        if not why:
            return name
        reasons.append(f"{name}: {why}")
    raise ConfigError(f"no memory can be shared here: {'; '.join(reasons)}")


def allocate(size: int, kind: str = ORDINARY) -> Allocated:
    """Memory of that kind. Raises ConfigError for an unknown kind, HostError as the kind does."""
    memory: Allocated = _find(kind).allocate(size)
    return memory


def attach(kind: str, fd: int, size: int) -> Attached:
    """The memory behind `fd`. Raises like `allocate`."""
    memory: Attached = _find(kind).attach(fd, size)
    return memory
