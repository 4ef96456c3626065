"""The host's side of a build: engines made, checked and run offline under this interpreter.

Entry point: `Workshop`, whose requests `service` answers. Each names a ``format``; its kernel has
what the request needs (`kernels.tensorrt.Plans`), or says so.

Files of a request and of its answer lie in sealed memory. Tensors travel as one file, one after the
other, with ``[name, dtype, shape]`` of each in the message.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickrt.errors import HostError
from tickrt.host.kernels.registry import Kernels
from tickrt.host.messages import Channel, read_sealed, sealed

__all__ = ["Workshop", "pack_tensors", "unpack_tensors"]

Tensors = dict[str, NDArray[Any]]
_REPORT_S = 0.02  # between two messages of progress


def pack_tensors(tensors: Tensors) -> tuple[list[list[Any]], bytes]:
    """What a message says of tensors, and their bytes."""
    dense = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    said = [[name, value.dtype.str, list(value.shape)] for name, value in dense.items()]
    return said, b"".join(value.tobytes() for value in dense.values())


def unpack_tensors(said: Any, content: memoryview) -> Tensors:
    """The tensors that `pack_tensors` packed.

    Raises:
        HostError: the message and the bytes do not fit.
    """
    tensors, at = {}, 0
    try:
        for name, kind, shape in said:
            dtype = np.dtype(str(kind))
            size = int(np.prod([int(n) for n in shape], dtype=np.int64)) * dtype.itemsize
            part = content[at : at + size]
            tensors[str(name)] = np.frombuffer(part, dtype).reshape([int(n) for n in shape])
            at += size
        if at != len(content):
            raise ValueError(f"{len(content)} bytes instead of {at}")
    except (TypeError, ValueError) as error:
        raise HostError(f"the tensors of a message are damaged: {error}") from error
    return tensors


class Workshop:
    """Builds and tries engines.

    Attributes:
        requests: by name.
    """

    def __init__(self, channel: Channel, kernels: Kernels) -> None:
        self._channel, self._kernels = channel, kernels
        self.requests: dict[str, Callable[[dict[str, Any], list[int]], dict[str, Any]]] = {
            "look": self._look,
            "build": self._build,
            "check": self._check,
            "open": self._open,
            "run": self._run,
        }

    def _function(self, request: dict[str, Any], name: str) -> Callable[..., Any]:
        format_ = str(request["format"])
        found: Callable[..., Any] | None = getattr(self._kernels.find(format_), name, None)
        if found is None:
            raise HostError(f"engines of the format {format_!r} are not made in a host")
        return found

    def _look(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """``operators``: which of them does the library lack?"""
        found: dict[str, Any] = self._function(request, "look")(request)
        return found

    def _build(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """One file: the model. The answer has one: the engine."""
        build = self._function(request, "build")
        model = read_sealed(fds[0], "the model")
        facts, content = build(model, request["options"], self._reporter(request))
        return {**facts, "files": [sealed(content)]}

    def _reporter(self, request: dict[str, Any]) -> Callable[[str, int, int], None]:
        """Sends progress while the request is under way; what comes too fast is left out."""
        last = 0.0

        def report(phase: str, done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last < _REPORT_S:
                return
            last = now
            self._channel.send({"id": request.get("id"), "progress": [phase, done, total]})

        return report

    def _check(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """One file: an engine. Is it sound, and for here?"""
        verdict, reasons = self._function(request, "validity")(read_sealed(fds[0], "the engine"))
        return {"verdict": verdict, "reasons": reasons}

    def _open(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """One file: an engine, for ``run``."""
        return {"engine": self._function(request, "open")(read_sealed(fds[0], "the engine"))}

    def _run(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """One file: tensors. The answer has one: the outputs."""
        feed = unpack_tensors(request["tensors"], read_sealed(fds[0], "tensors"))
        outputs = self._function(request, "run")(str(request["engine"]), feed)
        said, content = pack_tensors(outputs)
        return {"tensors": said, "files": [sealed(content)]}
