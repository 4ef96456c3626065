"""The host's side of the control channel: one request after the other, each answered.

Entry point: `main`. Requests (see `process.HostProcess`): ``warm``, ``load``, ``verify``,
``start``, ``stats``, ``stop``, ``end``; and those of `workshop`, for formats that are built here:
``look``, ``build``, ``check``, ``open``, ``run``. An answer is ``{"ok": true, …}`` or
``{"error": {kind, text}}``, perhaps with files; messages with ``progress`` may come before it.

The process ends when it is told to, when our end of the channel is closed, when the abort word is
set, and by the kernel's hand when its parent dies.

Invariants: nothing of an engine is left after `stop`, so the next one can be loaded; an error of a
request leaves the host as it was before it.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickrt.errors import EngineError, HostError
from tickrt.host.batch import BatchLayout, BatchMailbox, layout_of
from tickrt.host.kernels.registry import Kernels, load_batch
from tickrt.host.mailbox import GENERATION, Mailbox
from tickrt.host.memory.registry import ORDINARY, Attached, attach
from tickrt.host.messages import PROTOCOL, Channel, error_to_wire, read_sealed
from tickrt.host.parcel import unpack
from tickrt.host.serve import Server
from tickrt.host.serve_batch import BatchServer
from tickrt.host.workshop import Workshop

__all__ = ["Service", "main"]

_STOP_S = 2.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass
class _Loaded:
    """An engine and the memory that it answers through."""

    kernel: Any
    box: Mailbox
    memories: tuple[Attached, Attached]
    server: Server


class Service:
    """Answers requests on `channel` until it is told to end."""

    def __init__(self, channel: Channel, kernels: Kernels) -> None:
        self._channel, self._kernels = channel, kernels
        self._loaded: _Loaded | None = None
        self._generation = 0
        self._requests: dict[str, Callable[[dict[str, Any], list[int]], dict[str, Any]]] = {
            "warm": self._warm,
            "load": self._load,
            "verify": self._verify,
            "start": self._start,
            "stats": self._stats,
            "stop": self._stop,
        }
        self._requests.update(Workshop(channel, kernels).requests)

    def run(self) -> None:
        """Greet, then answer until the end."""
        greeting = {
            "protocol": PROTOCOL,
            "python": sys.version.split()[0],
            "numpy": np.__version__,
            "formats": self._kernels.names(),
        }
        try:
            self._channel.send(greeting)
            while True:
                request, fds = self._channel.receive()
                try:
                    answer = self._answer(request, fds)
                finally:
                    for fd in fds:
                        os.close(fd)
                files = answer.pop("files", [])
                try:
                    self._channel.send({"id": request.get("id"), **answer}, files)
                finally:
                    for fd in files:
                        os.close(fd)
                if request.get("do") == "end":
                    return
        except EOFError:
            return  # our parent has closed its end, or the abort word was set
        finally:
            if self._loaded is not None:
                with suppress(Exception):
                    self._stop({}, [])

    def _answer(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        do = str(request.get("do"))
        if do == "end":
            return {"ok": True}
        if do not in self._requests:
            return {"error": error_to_wire(HostError(f"unknown request {do!r}"))}
        try:
            return {"ok": True, **self._requests[do](request, fds)}
        except Exception as error:
            return {"error": error_to_wire(error)}

    def _warm(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        self._kernels.find(str(request["format"])).warm()
        return {}

    def _load(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Files: row memory, host memory, then those of the parcel."""
        if self._loaded is not None:
            raise HostError("it has an engine already: stop that one first")
        layout = layout_of(request["layout"])
        parcel = unpack(request["parcel"], fds[2:])
        library = self._kernels.find(parcel.kernel or parcel.format)
        rows = attach(str(request["row_memory"]), fds[0], layout.row_bytes)
        host = attach(ORDINARY, fds[1], layout.host_bytes)
        assert host.view is not None
        memories, hang_up = (rows, host), self._channel.hang_up
        if isinstance(layout, BatchLayout):
            kernel = load_batch(library, parcel, layout.members, layout.max_batch)
            box: Mailbox = BatchMailbox(layout, host.view, rows.view)
            server: Server = BatchServer(box, kernel, memories, hang_up)
        else:
            kernel = library.load(parcel.payloads, parcel.facts)
            box = Mailbox(layout, host.view, rows.view)
            server = Server(box, kernel, memories, hang_up)
        self._generation += 1
        box.put(GENERATION, self._generation)
        self._loaded = _Loaded(kernel, box, (rows, host), server)
        return {"generation": self._generation}

    def _engine(self) -> _Loaded:
        if self._loaded is None:
            raise HostError("it has no engine: load one first")
        return self._loaded

    def _verify(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """One file: rows float32 [n, F], then the expected outputs [n, outputs]; a row of NaN
        expects nothing."""
        loaded, n = self._engine(), int(request["rows"])
        layout = loaded.box.layout
        if isinstance(layout, BatchLayout):
            raise HostError("parity rows are for an engine of one stream: load it as one")
        values = np.frombuffer(read_sealed(fds[0], "parity rows"), np.float32)
        if len(values) != n * (layout.width + layout.outputs):
            raise HostError(f"parity: {len(values)} numbers for {n} rows of {layout}")
        rows = values[: n * layout.width].reshape(n, 1, layout.width)
        expected = values[n * layout.width :].reshape(n, 1, layout.outputs)
        worst = _parity(loaded.kernel, rows, expected)
        tolerance = float(request["tolerance"])
        if not worst <= tolerance:
            raise EngineError(
                f"its answers to {n} parity rows differ by up to {worst:.3g}, at most "
                f"{tolerance:.3g} was asked for"
            )
        return {"max_abs": worst}

    def _start(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        self._engine().server.start()
        return {}

    def _stats(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        found: dict[str, Any] = {
            "generation": self._generation,
            "max_rss_mb": usage.ru_maxrss >> 10,
        }
        if self._loaded is not None:
            found.update(self._loaded.server.served.to_dict())
            found.update(getattr(self._loaded.kernel, "stats", dict)())
        return found

    def _stop(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        loaded = self._engine()
        if not loaded.server.stop(_STOP_S):
            raise HostError(f"its engine does not come to an end within {_STOP_S:g} s")
        self._loaded = None
        try:
            loaded.kernel.close()
        finally:
            for memory in loaded.memories:
                memory.close()
        return {}


def _parity(kernel: Any, rows: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The largest difference; NaN where an output is not finite."""
    worst = 0.0
    out = np.zeros(expected.shape[1:], np.float32)
    kernel.reset()
    for i in range(len(rows)):
        if not np.isnan(expected[i]).all():
            kernel.answer(i + 1, rows[i], out)
            if not np.isfinite(out).all():
                return float("nan")
            worst = max(worst, float(np.abs(out - expected[i]).max()))
        kernel.advance(i + 1, rows[i])
    kernel.reset()
    return worst


def _end_with_parent(parent: int) -> None:
    """Have the kernel end us when the thread that started us does; it may have done so already."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:
        sys.exit("its parent has died")


def main(arguments: Sequence[str]) -> int:
    """Serve until the end; the exit status."""
    parser = argparse.ArgumentParser("tickrt.host")
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--kernel", action="append", default=[], metavar="FORMAT=WHERE")
    options = parser.parse_args(arguments)
    _end_with_parent(options.parent)
    faulthandler.enable()
    connection = socket.socket(fileno=options.control_fd)
    connection.set_inheritable(False)
    kernels = Kernels(dict(entry.split("=", 1) for entry in options.kernel))
    Service(Channel(connection, "the session"), kernels).run()
    return 0
