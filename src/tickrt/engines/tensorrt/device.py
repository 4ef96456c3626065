"""Plain memory on the first NVIDIA GPU, through the driver's own library.

Entry point: `Device` (memory, copies, a stream: what it takes to run an engine for a parity check).

Invariants: nothing is installed for it: `libcuda` comes with the driver. Off-path only.

Known limits: one device, the first; synchronous copies.
"""

from __future__ import annotations

import ctypes
from types import TracebackType
from typing import Any

import numpy as np

from tickrt.engines.bundle.machine import cuda_library
from tickrt.errors import EngineError

__all__ = ["Device"]


class Device:
    """The first GPU's primary context, with memory that is freed at the end of the `with`.

    Raises:
        EngineError: no GPU, or the driver refused.
    """

    def __init__(self) -> None:
        cuda = cuda_library()
        if cuda is None or cuda.cuInit(0) != 0:
            raise EngineError("no CUDA driver or GPU on this machine")
        self._cuda = cuda
        self._device = ctypes.c_int()
        self._context = ctypes.c_void_p()
        self._stream = ctypes.c_void_p()
        self._memory: list[ctypes.c_uint64] = []

    def _check(self, what: str, code: int) -> None:
        if code != 0:
            text = ctypes.c_char_p()
            self._cuda.cuGetErrorString(code, ctypes.byref(text))
            raise EngineError(f"CUDA: {what}: {(text.value or b'?').decode()} ({code})")

    def __enter__(self) -> Device:
        cuda = self._cuda
        self._check("device", cuda.cuDeviceGet(ctypes.byref(self._device), 0))
        retained = cuda.cuDevicePrimaryCtxRetain(ctypes.byref(self._context), self._device)
        self._check("context", retained)
        self._check("context", cuda.cuCtxSetCurrent(self._context))
        self._check("stream", cuda.cuStreamCreate(ctypes.byref(self._stream), 0))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for address in self._memory:
            self._cuda.cuMemFree_v2(address)
        self._cuda.cuStreamDestroy_v2(self._stream)
        self._cuda.cuDevicePrimaryCtxRelease_v2(self._device)

    @property
    def stream(self) -> int:
        """The stream's handle, as `execute_async_v3` takes it."""
        return self._stream.value or 0

    def empty(self, size: int) -> int:
        """`size` bytes of device memory; returns their address."""
        address = ctypes.c_uint64()
        self._check("memory", self._cuda.cuMemAlloc_v2(ctypes.byref(address), max(size, 1)))
        self._memory.append(address)
        return address.value

    def put(self, array: np.ndarray[Any, Any]) -> int:
        """Copy an array to the device; returns its address."""
        data = np.ascontiguousarray(array)
        address = self.empty(data.nbytes)
        source = ctypes.c_void_p(data.ctypes.data)
        copied = self._cuda.cuMemcpyHtoD_v2(
            ctypes.c_uint64(address), source, ctypes.c_size_t(data.nbytes)
        )
        self._check("copy", copied)
        return address

    def get(self, address: int, out: np.ndarray[Any, Any]) -> None:
        """Wait for the stream, then copy from the device into `out`."""
        self._check("stream", self._cuda.cuStreamSynchronize(self._stream))
        copied = self._cuda.cuMemcpyDtoH_v2(
            ctypes.c_void_p(out.ctypes.data), ctypes.c_uint64(address), ctypes.c_size_t(out.nbytes)
        )
        self._check("copy", copied)
