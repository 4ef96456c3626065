"""Kernels by the name of the format that they run: what each has to offer, and how it is found.

A kernel is a module, or any object, with two functions:

    warm()                    what can be done before there is an engine: load libraries, connect
    load(payloads, facts)     a `Kernel` of the payloads (verified bytes by name)

A `Kernel` answers rows one by one when it is asked (`answer`, `advance`); with ``spins = True`` the
host's thread never rests between two rows. One that takes them from
the mailbox by itself, as a kernel on a GPU does, is a `SelfServing` one: the host's thread then
only beats the heart and watches it.

Entry points: `Kernels`, `Kernel`, `SelfServing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tickrt.errors import HostError, IncompatibleError
from tickrt.host.mailbox import Mailbox
from tickrt.host.memory.registry import Attached

__all__ = ["BUILT_IN", "Kernel", "Kernels", "Payloads", "SelfServing"]

Payloads = Mapping[str, memoryview]

BUILT_IN: dict[str, str] = {
    "program": "tickrt.host.kernels.reference",
    "resident": "tickrt.host.kernels.resident",
    "tensorrt": "tickrt.host.kernels.tensorrt:TENSORRT",
    "tensorrt_rtx": "tickrt.host.kernels.tensorrt:TENSORRT_RTX",
    "onnx": "tickrt.host.kernels.onnxruntime_cuda",
}


class Kernel(Protocol):
    """An engine in the host. Every method may raise; an `EngineError` of `answer` is that row's
    error alone, anything else ends the engine."""

    def answer(self, seq: int, rows: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """The outputs of row `seq`: `rows` is float32 [n, F], `out` float32 [n, outputs]."""
        ...

    def advance(self, seq: int, rows: NDArray[np.float32]) -> None:
        """Row `seq` is in and its answer is out: do what does not depend on the next row."""
        ...

    def reset(self) -> None:
        """Forget every row."""
        ...

    def close(self) -> None:
        """Release everything."""
        ...


class SelfServing(Kernel, Protocol):
    """A kernel that serves the mailbox itself once it has begun.

    `answer` and `advance` are asked only while it does not (parity rows).
    """

    def begin(self, box: Mailbox, rows: Attached, host: Attached) -> None:
        """Serve from now on, and return."""
        ...

    def stats(self) -> dict[str, Any]:
        """What it knows of itself, for reports; plain data."""
        ...

    def problem(self) -> str:
        """Why it has failed; empty while all is well. Called many times a second."""
        ...

    def finish(self) -> None:
        """Serve no more: within a millisecond."""
        ...


class Kernels:
    """The kernels of one host.

    Args:
        more: further ones, by format: ``module`` or ``module:object``, imported when asked for.
    """

    def __init__(self, more: Mapping[str, str]) -> None:
        self._where = {**BUILT_IN, **more}

    def names(self) -> list[str]:
        """The formats that have one."""
        return sorted(self._where)

    def find(self, format_: str) -> Any:
        """The kernel for a format.

        Raises:
            IncompatibleError: there is none.
            HostError: it cannot be imported under this interpreter.
        """
        where = self._where.get(format_)
        if where is None:
            raise IncompatibleError(
                f"no kernel runs engines of the format {format_!r}; there are "
                f"{', '.join(self.names())}"
            )
        module, _, name = where.partition(":")
        try:
            found = import_module(module)
            return getattr(found, name) if name else found
        except (ImportError, AttributeError) as error:
            raise HostError(f"the kernel for {format_!r} cannot be imported: {error}") from error
