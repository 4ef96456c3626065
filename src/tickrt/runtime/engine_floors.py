"""What a launch costs without a model: an empty kernel, and a CUDA graph of one.

Entry point: `open_floor(kind)`, which `engine_child.ChildRunner` calls in a process of its own. The
time runs from the launch to its end seen (``cuStreamQuery``); compiled code calls both, so nothing
of Python lies between. No engine that is launched for each row can answer sooner.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from tickrt.errors import EngineError, HostError
from tickrt.host.cuda import Device
from tickrt.observe.clock import ticks_per_ns
from tickrt.observe.kernels import read_clock
from tickrt.runtime.engine_bench import Fed, Floats
from tickrt.runtime.engine_floor_kernels import time_launches
from tickrt.runtime.engine_peers_base import Skipped

__all__ = ["KINDS", "open_floor"]

KINDS = ("launch", "graph")
_PTX = b".version 6.0\n.target sm_50\n.address_size 64\n.visible .entry empty()\n{\n ret;\n}\n"
_PATIENCE_US = 1e6
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL


class _Config(ctypes.Structure):
    """CUlaunchConfig (cuda.h): one thread of one block."""

    _fields_ = [
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("count", ctypes.c_uint),
    ]


class _Launcher(Device):
    """A GPU with an empty kernel; `parameters` are those of the driver's function `name`."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        function = self.load(_PTX).function("empty")
        ones = (ctypes.c_uint * 3)(1, 1, 1)
        self._config = _Config(ones, ones, 0, self._stream, None, 0)
        self.parameters: tuple[int, ...]
        if kind == "graph":
            self.name_of, self.parameters = "cuGraphLaunch", self._recorded(function)
        else:
            kernel = (ctypes.addressof(self._config), int(function.value or 0), 0, 0)
            self.name_of, self.parameters = "cuLaunchKernelEx", kernel
        self._driver.call("cuCtxSynchronize")

    def _recorded(self, function: Any) -> tuple[int, int]:
        call, graph, ready = self._driver.call, ctypes.c_void_p(), ctypes.c_void_p()
        call("cuStreamBeginCapture_v2", self._stream, _THREAD_LOCAL)
        self.launch(function, 1, 1, 0, b"\0")
        call("cuStreamEndCapture", self._stream, ctypes.byref(graph))
        call("cuGraphInstantiateWithFlags", ctypes.byref(ready), graph, ctypes.c_ulonglong(0))
        return int(ready.value or 0), int(self._stream.value or 0)

    def address(self, name: str) -> int:
        """Of a function of the driver. Raises Skipped: it is too old to have it."""
        library = ctypes.CDLL("libcuda.so.1")
        try:
            return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0
        except AttributeError:
            raise Skipped(f"the CUDA driver has no {name}") from None

    def time(self, count: int, gap_us: float) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Ticks of `count` launches. Raises EngineError: one failed."""
        took, rate = np.zeros(count, np.int64), ticks_per_ns() * 1e3
        launch = np.array([len(self.parameters), *self.parameters, 0, 0][:5], np.int64)
        query = np.array([self.address("cuStreamQuery"), int(self._stream.value or 0)], np.int64)
        start = self.address(self.name_of)
        times = np.array([gap_us * rate, _PATIENCE_US * rate], np.int64)
        code, done = time_launches(launch, start, query, times, took)
        if code:
            why = self._driver.reason(int(code))
            raise EngineError(f"launch {done + 1}: {self.name_of}: {why}")
        return took


class Floor:
    """Rows as launches: their values do not matter, and nothing is answered.

    Raises:
        Skipped: there is no GPU, or it refuses an empty kernel; says why.
    """

    def __init__(self, kind: str) -> None:
        try:
            self._launcher = _Launcher(kind)
        except HostError as error:
            raise Skipped(str(error)) from None

    def run(self, rows: Floats, gap_us: float) -> Fed:
        """As many launches as rows."""
        began = int(read_clock())
        took = self._launcher.time(len(rows), gap_us)
        ticks = int(read_clock()) - began
        return Fed(took, np.zeros_like(took), np.zeros((len(rows), 0), np.float32), ticks)

    def describe(self) -> dict[str, Any]:
        """The card and what is called."""
        return {"backend": "cuda", "card": self._launcher.name, "call": self._launcher.name_of}

    def close(self) -> None:
        """It ends with its process."""


def open_floor(kind: str) -> Floor:
    """One of `KINDS`. Raises Skipped."""
    return Floor(kind)
