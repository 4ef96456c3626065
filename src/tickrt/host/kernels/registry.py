"""Kernels by the name of the format that they run: what each has to offer, and how it is found.

A kernel is a module, or any object, with two functions:

    warm()                    what can be done before there is an engine: load libraries, connect
    load(payloads, facts)     a `Kernel` of the payloads (verified bytes by name)

and, where the engine can answer many streams at once, a third:

    load_batch(payloads, facts, members, max_batch)     a `BatchKernel`

A `Kernel` answers rows one by one when it is asked (`answer`, `advance`); with ``spins = True`` the
host's thread never rests between two rows. One that takes them from
the mailbox by itself, as a kernel on a GPU does, is a `SelfServing` one: the host's thread then
only beats the heart and watches it.

Entry points: `Kernels`, `Kernel`, `SelfServing`, `BatchKernel`; `load_batch`, which makes one of
any kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tickrt.errors import EngineError, HostError, IncompatibleError
from tickrt.host.mailbox import Mailbox
from tickrt.host.memory.registry import Attached
from tickrt.host.parcel import Parcel

__all__ = [
    "BUILT_IN",
    "BatchKernel",
    "Kernel",
    "Kernels",
    "OneByOne",
    "Payloads",
    "SelfServing",
    "load_batch",
]

Payloads = Mapping[str, memoryview]

BUILT_IN: dict[str, str] = {
    "program": "tickrt.host.kernels.reference",
    "resident": "tickrt.host.kernels.resident",
    "tensorrt": "tickrt.host.kernels.tensorrt:TENSORRT",
    "tensorrt_rtx": "tickrt.host.kernels.tensorrt:TENSORRT_RTX",
    "onnx": "tickrt.host.kernels.onnxruntime_cuda",
    "onnx_windows": "tickrt.host.kernels.onnx_windows",
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


class BatchKernel(Protocol):
    """An engine with the states of many streams, `members`. What `answer_batch` refuses are those
    rows' errors alone; whatever a method raises ends the engine.

    In one call each member is there once: `members` and `seqs` are int64[n], `rows` float32 [n, F].
    """

    max_rows: int  # of one `answer_batch`

    def answer_batch(
        self,
        members: NDArray[np.int64],
        seqs: NDArray[np.int64],
        rows: NDArray[np.float32],
        out: NDArray[np.float32],
    ) -> Mapping[int, str]:
        """Write the outputs, float32 [n, outputs], into `out`; of those that have none, why."""
        ...

    def advance_batch(
        self, members: NDArray[np.int64], seqs: NDArray[np.int64], rows: NDArray[np.float32]
    ) -> None:
        """These rows are in and their answers are out."""
        ...

    def reset_member(self, member: int) -> None:
        """Forget every row of one stream."""
        ...

    def close(self) -> None:
        """Release everything."""
        ...


class OneByOne:
    """A `BatchKernel` of kernels for one stream each: every answer is out as soon as it is there.

    Args:
        kernels: one for each stream.
    """

    max_rows = 1

    def __init__(self, kernels: Sequence[Kernel]) -> None:
        self._kernels = kernels

    def answer_batch(
        self,
        members: NDArray[np.int64],
        seqs: NDArray[np.int64],
        rows: NDArray[np.float32],
        out: NDArray[np.float32],
    ) -> Mapping[int, str]:
        """Each by its own kernel."""
        refused = {}
        for i, (member, seq) in enumerate(zip(members.tolist(), seqs.tolist())):
            try:
                self._kernels[member].answer(seq, rows[i : i + 1], out[i : i + 1])
            except EngineError as error:
                refused[i] = str(error)
        return refused

    def advance_batch(
        self, members: NDArray[np.int64], seqs: NDArray[np.int64], rows: NDArray[np.float32]
    ) -> None:
        """Each by its own kernel."""
        for i, (member, seq) in enumerate(zip(members.tolist(), seqs.tolist())):
            self._kernels[member].advance(seq, rows[i : i + 1])

    def reset_member(self, member: int) -> None:
        """That kernel alone."""
        self._kernels[member].reset()

    def close(self) -> None:
        """All of them."""
        for kernel in self._kernels:
            kernel.close()


def load_batch(library: Any, parcel: Parcel, members: int, max_batch: int) -> BatchKernel:
    """The kernel of many streams, or a kernel for each of them.

    Raises:
        IncompatibleError: it serves the mailbox of one stream by itself.
    """
    payloads, facts = parcel.payloads, parcel.facts
    if hasattr(library, "load_batch"):
        batched: BatchKernel = library.load_batch(payloads, facts, members, max_batch)
        return batched
    kernels = [library.load(payloads, facts) for _ in range(members)]
    if hasattr(kernels[0], "begin"):
        for kernel in kernels:
            kernel.close()
        raise IncompatibleError(
            "this kernel takes rows from the mailbox of one stream: max_batch = 1 gives each "
            "stream an engine of its own"
        )
    return OneByOne(kernels)


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
