"""The CUDA driver, as much of it as an engine host calls, through `ctypes`.

Entry points: `open_device()` → `Device`, with allocations, modules, launches and recorded graphs;
`CudaError`.

Every return code is checked; what failed is named as the driver names it. Nothing here imports more
than the standard library and NumPy, and it runs on Python 3.9.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from tickrt.errors import HostError

__all__ = ["CudaError", "Device", "Graph", "Module", "Pinned", "open_device"]

_PORTABLE_MAPPED = 0x3  # CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP
_REGISTER_MAPPED = 0x3  # CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP
_NON_BLOCKING = 0x1
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: only this thread is held to the rules
_OPAQUE_FD = 1  # CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD
_MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_NON_PORTABLE_CLUSTER = 14  # CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED
_ATTRIBUTES = {"major": 75, "minor": 76, "multiprocessors": 16}
_NOT_READY = 600


class CudaError(HostError):
    """A call of the driver failed."""


class _ExternalHandle(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("fd", ctypes.c_longlong),
        ("second", ctypes.c_longlong),  # the rest of the union of handles
        ("size", ctypes.c_ulonglong),
        ("flags", ctypes.c_uint),
        ("reserved", ctypes.c_uint * 16),
    ]


class _ExternalBuffer(ctypes.Structure):
    _fields_ = [
        ("offset", ctypes.c_ulonglong),
        ("size", ctypes.c_ulonglong),
        ("flags", ctypes.c_uint),
        ("reserved", ctypes.c_uint * 16),
    ]


class _Driver:
    """libcuda with checked calls; every thread that calls has the context."""

    def __init__(self) -> None:
        self._context = ctypes.c_void_p()
        self._thread = threading.local()
        try:
            self._library = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise CudaError(f"no CUDA driver here: {error}") from error

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the driver.

        Raises:
            CudaError: it failed; names the function and the driver's reason.
        """
        code = self.code(name, *arguments)
        if code:
            raise CudaError(f"{name}: {self.reason(code)}")

    def use(self, context: ctypes.c_void_p) -> None:
        """The context of every call from now on."""
        self._context = context

    def reason(self, code: int) -> str:
        """The driver's name and text of a return code."""
        texts = []
        for function in ("cuGetErrorName", "cuGetErrorString"):
            text = ctypes.c_char_p()
            getattr(self._library, function)(code, ctypes.byref(text))
            texts.append((text.value or b"?").decode())
        return f"{texts[0]} ({code}): {texts[1]}"

    def code(self, name: str, *arguments: Any) -> int:
        """The return code of a call whose failure is an answer."""
        if self._context and not getattr(self._thread, "has_context", False):
            self._thread.has_context = True  # first: this is a call, too
            try:
                self.call("cuCtxSetCurrent", self._context)
            except CudaError:
                self._thread.has_context = False
                raise
        return int(getattr(self._library, name)(*arguments))


class Module:
    """A loaded cubin or PTX and its kernels."""

    def __init__(self, driver: _Driver, content: bytes) -> None:
        self._driver, self._handle = driver, ctypes.c_void_p()
        driver.call("cuModuleLoadData", ctypes.byref(self._handle), content)

    def function(self, name: str, shared_bytes: int = 0, large_cluster: bool = False) -> Any:
        """A kernel, ready for a launch with that much dynamic shared memory."""
        found = ctypes.c_void_p()
        self._driver.call("cuModuleGetFunction", ctypes.byref(found), self._handle, name.encode())
        if shared_bytes:
            self._driver.call("cuFuncSetAttribute", found, _MAX_DYNAMIC_SHARED, shared_bytes)
        if large_cluster:
            self._driver.call("cuFuncSetAttribute", found, _NON_PORTABLE_CLUSTER, 1)
        return found

    def close(self) -> None:
        """Unload it; waits for its kernels."""
        self._driver.call("cuModuleUnload", self._handle)


class Pinned:
    """Memory of this process that the GPU reads and writes in place, page-locked.

    Attributes:
        view: it as uint8, zeroed.
        address: where it is for us; `device`: where it is for the GPU.
    """

    def __init__(self, driver: _Driver, size: int) -> None:
        self._driver = driver
        found = ctypes.c_void_p()
        driver.call(
            "cuMemHostAlloc",
            ctypes.byref(found),
            ctypes.c_size_t(size),
            ctypes.c_uint(_PORTABLE_MAPPED),
        )
        self.address = int(found.value or 0)
        there = ctypes.c_ulonglong()
        try:
            driver.call("cuMemHostGetDevicePointer_v2", ctypes.byref(there), found, 0)
        except CudaError:
            driver.code("cuMemFreeHost", found)
            raise
        self.device = there.value
        self.view = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(self.address))
        self.view.fill(0)

    def close(self) -> None:
        """Give it back; nothing may look at `view` any more."""
        self._driver.call("cuMemFreeHost", ctypes.c_void_p(self.address))


class Graph:
    """Work that was recorded once and is launched as a whole, always on the same addresses."""

    def __init__(self, driver: _Driver, recorded: ctypes.c_void_p, stream: ctypes.c_void_p) -> None:
        self._driver, self._recorded, self._stream = driver, recorded, stream
        self._ready = ctypes.c_void_p()
        count = ctypes.c_size_t()
        try:
            driver.call("cuGraphGetNodes", recorded, None, ctypes.byref(count))
            driver.call(
                "cuGraphInstantiateWithFlags",
                ctypes.byref(self._ready),
                recorded,
                ctypes.c_ulonglong(0),
            )
        except CudaError:
            driver.code("cuGraphDestroy", recorded)
            raise
        self.nodes = count.value

    def upload(self) -> None:
        """Do what the first launch would have to do besides."""
        self._driver.call("cuGraphUpload", self._ready, self._stream)

    def launch(self) -> None:
        """Start it; it runs after what was launched before."""
        self._driver.call("cuGraphLaunch", self._ready, self._stream)

    def close(self) -> None:
        """Release it; it must have ended."""
        self._driver.call("cuGraphExecDestroy", self._ready)
        self._driver.call("cuGraphDestroy", self._recorded)


class Device:
    """One GPU with its primary context current, and a stream of its own."""

    def __init__(self, index: int = 0) -> None:
        self._driver = _Driver()
        call = self._driver.call
        call("cuInit", 0)
        self._device = ctypes.c_int()
        call("cuDeviceGet", ctypes.byref(self._device), index)
        context = ctypes.c_void_p()
        call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device)
        self._driver.use(context)
        self._stream = ctypes.c_void_p()
        call("cuStreamCreate", ctypes.byref(self._stream), _NON_BLOCKING)
        self._external: dict[int, ctypes.c_void_p] = {}
        self._scratch = 0

    @property
    def name(self) -> str:
        """As the driver calls it."""
        text = ctypes.create_string_buffer(128)
        self._driver.call("cuDeviceGetName", text, 128, self._device)
        return text.value.decode()

    def attribute(self, name: str) -> int:
        """``major``, ``minor`` or ``multiprocessors``."""
        value = ctypes.c_int()
        self._driver.call(
            "cuDeviceGetAttribute", ctypes.byref(value), _ATTRIBUTES[name], self._device
        )
        return value.value

    @property
    def architecture(self) -> str:
        """``sm_90``"""
        return f"sm_{self.attribute('major')}{self.attribute('minor')}"

    @property
    def stream(self) -> int:
        """The handle of its stream, for libraries that launch by themselves."""
        return int(self._stream.value or 0)

    def pinned(self, size: int) -> Pinned:
        """Memory that both sides see; the caller closes it."""
        return Pinned(self._driver, max(size, 64))

    def copy_in(self, target: int, source: int, size: int) -> None:
        """From pinned memory to the GPU's, after what was launched before. Does not wait."""
        self._driver.call(
            "cuMemcpyHtoDAsync_v2",
            ctypes.c_ulonglong(target),
            ctypes.c_void_p(source),
            ctypes.c_size_t(size),
            self._stream,
        )

    def copy_out(self, target: int, source: int, size: int) -> None:
        """From the GPU's memory to pinned memory, likewise."""
        self._driver.call(
            "cuMemcpyDtoHAsync_v2",
            ctypes.c_void_p(target),
            ctypes.c_ulonglong(source),
            ctypes.c_size_t(size),
            self._stream,
        )

    def copy_within(self, target: int, source: int, size: int) -> None:
        """From the GPU's memory to its memory, likewise."""
        self._driver.call(
            "cuMemcpyDtoDAsync_v2",
            ctypes.c_ulonglong(target),
            ctypes.c_ulonglong(source),
            ctypes.c_size_t(size),
            self._stream,
        )

    def record(self, work: Callable[[], None]) -> Graph:
        """A graph of what `work` launches on the stream; nothing of it runs now.

        Raises:
            CudaError: it cannot be recorded; also whatever `work` raises. No graph is left then.
        """
        self._driver.call("cuStreamBeginCapture_v2", self._stream, ctypes.c_int(_THREAD_LOCAL))
        recorded = ctypes.c_void_p()
        try:
            work()
        except BaseException:
            self._driver.code("cuStreamEndCapture", self._stream, ctypes.byref(recorded))
            if recorded:
                self._driver.code("cuGraphDestroy", recorded)
            raise
        self._driver.call("cuStreamEndCapture", self._stream, ctypes.byref(recorded))
        return Graph(self._driver, recorded, self._stream)

    def allocate(self, size: int) -> int:
        """That many bytes of GPU memory; their address."""
        address = ctypes.c_ulonglong()
        self._driver.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(size, 16)))
        return address.value

    def upload(self, values: np.ndarray[Any, Any]) -> int:
        """A copy of `values` in GPU memory; its address."""
        dense = np.ascontiguousarray(values)
        address = self.allocate(dense.nbytes)
        try:
            self._driver.call(
                "cuMemcpyHtoD_v2",
                ctypes.c_ulonglong(address),
                ctypes.c_void_p(dense.ctypes.data),
                ctypes.c_size_t(dense.nbytes),
            )
        except CudaError:
            self._driver.code("cuMemFree_v2", ctypes.c_ulonglong(address))
            raise
        return address

    def download(self, values: np.ndarray[Any, Any], address: int) -> None:
        """Copy what lies at an address of the GPU into `values`; waits."""
        self._driver.call(
            "cuMemcpyDtoH_v2",
            ctypes.c_void_p(values.ctypes.data),
            ctypes.c_ulonglong(address),
            ctypes.c_size_t(values.nbytes),
        )

    def fill(self, address: int, word: int, words: int) -> None:
        """Store a 32-bit word again and again."""
        self._driver.call(
            "cuMemsetD32_v2",
            ctypes.c_ulonglong(address),
            ctypes.c_uint(word),
            ctypes.c_size_t(words),
        )

    def scratch(self) -> int:
        """A few bytes of GPU memory to try things on."""
        if not self._scratch:
            self._scratch = self.allocate(256)
        return self._scratch

    def free(self, address: int) -> None:
        """Give an allocation back; waits for the kernels that run."""
        self._driver.call("cuMemFree_v2", ctypes.c_ulonglong(address))

    def register(self, address: int, size: int) -> int:
        """Memory of this process, whole pages, as the GPU sees it; its address there."""
        self._driver.call(
            "cuMemHostRegister_v2",
            ctypes.c_void_p(address),
            ctypes.c_size_t(size),
            _REGISTER_MAPPED,
        )
        there = ctypes.c_ulonglong()
        try:
            self._driver.call(
                "cuMemHostGetDevicePointer_v2", ctypes.byref(there), ctypes.c_void_p(address), 0
            )
        except CudaError:
            self._driver.code("cuMemHostUnregister", ctypes.c_void_p(address))
            raise
        return there.value

    def unregister(self, address: int) -> None:
        """Undo `register`."""
        self._driver.call("cuMemHostUnregister", ctypes.c_void_p(address))

    def import_memory(self, fd: int, size: int) -> int:
        """GPU memory that another process allocated (Vulkan's opaque file descriptor); its address.

        The driver takes the descriptor over; where it refuses, it is closed.
        """
        handle = _ExternalHandle(type=_OPAQUE_FD, fd=fd, size=size)
        memory = ctypes.c_void_p()
        try:
            self._driver.call("cuImportExternalMemory", ctypes.byref(memory), ctypes.byref(handle))
        except CudaError:
            os.close(fd)
            raise
        part = _ExternalBuffer(offset=0, size=size)
        address = ctypes.c_ulonglong()
        try:
            self._driver.call(
                "cuExternalMemoryGetMappedBuffer", ctypes.byref(address), memory, ctypes.byref(part)
            )
        except CudaError:
            self._driver.code("cuDestroyExternalMemory", memory)
            raise
        self._external[address.value] = memory
        return address.value

    def give_back(self, address: int) -> None:
        """Undo `import_memory`."""
        self.free(address)
        self._driver.call("cuDestroyExternalMemory", self._external.pop(address))

    def load(self, content: bytes) -> Module:
        """A cubin or PTX."""
        return Module(self._driver, content)

    def launch(
        self, function: Any, blocks: int, threads: int, shared_bytes: int, arguments: bytes
    ) -> None:
        """Start a kernel whose one parameter is `arguments`."""
        held = ctypes.create_string_buffer(arguments, len(arguments))
        parameters = (ctypes.c_void_p * 1)(ctypes.addressof(held))
        self._driver.call(
            "cuLaunchKernel",
            function,
            *(blocks, 1, 1, threads, 1, 1, shared_bytes),
            self._stream,
            parameters,
            None,
        )

    def finished(self) -> bool:
        """True when everything that was launched has ended.

        Raises:
            CudaError: a kernel failed.
        """
        code = self._driver.code("cuStreamQuery", self._stream)
        if code not in (0, _NOT_READY):
            raise CudaError(f"the kernel ended: {self._driver.reason(code)}")
        return code == 0

    def settle(self) -> None:
        """Wait for everything on the GPU: what is filled or uploaded is there for every stream."""
        self._driver.call("cuCtxSynchronize")

    def wait(self) -> None:
        """Wait for everything that was launched."""
        self._driver.call("cuStreamSynchronize", self._stream)


@cache
def open_device(index: int = 0) -> Device:
    """GPU number `index`, opened once per process.

    Raises:
        CudaError: there is no driver, no such GPU, or it refuses; says which.
    """
    return Device(index)
