"""The narrow seam to ONNX Runtime's C API: sessions and tensors as addresses.

ONNX Runtime's wheel ships the shared library with its C API; its functions are found by their
position in the `OrtApi` table, which only ever grows (onnxruntime_c_api.h, "All APIs in this
struct are stable"). Python is used to set a session up; running it is one call of `run_address`
from compiled code.

Entry points: `OrtSession(model, threads)`, `OrtSession.tensor(address, shape)`.
Limits: CPU execution provider, float32 tensors.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from tickrt.engines.graph.ort import ort_version
from tickrt.errors import EngineError, ModelError

__all__ = ["OrtSession", "api", "error_text"]

_API_VERSION = 17  # ONNX Runtime 1.17 or later
_POSITION = {
    "GetErrorMessage": 2,
    "CreateEnv": 3,
    "CreateSessionFromArray": 8,
    "Run": 9,
    "CreateSessionOptions": 10,
    "SetSessionGraphOptimizationLevel": 23,
    "SetIntraOpNumThreads": 24,
    "SetInterOpNumThreads": 25,
    "CreateTensorWithDataAsOrtValue": 49,
    "CreateCpuMemoryInfo": 69,
    "ReleaseStatus": 93,
    "ReleaseSession": 95,
    "ReleaseValue": 96,
    "ReleaseSessionOptions": 100,
    "AddSessionConfigEntry": 130,
}
_OPTIMISE_ALL = 99
_LOG_ERROR = 3
_FLOAT = 1
_ARENA, _MEM_DEFAULT = 1, 0


class _Api:
    """ONNX Runtime's function table, its one environment and its CPU memory description."""

    def __init__(self) -> None:
        # The package itself is not imported: its Python binding would stay resident, 30 MB of it.
        found = importlib.util.find_spec("onnxruntime")
        if found is None or found.origin is None:
            raise EngineError("onnxruntime is not installed: pip install onnxruntime")
        folder = Path(found.origin).parent / "capi"
        libraries = sorted(folder.glob("libonnxruntime.so*")) + sorted(
            folder.glob("libonnxruntime*.dylib")
        )
        if not libraries:
            raise EngineError(
                f"onnxruntime {ort_version()} in {folder} ships no libonnxruntime: "
                "install its wheel (pip install --force-reinstall onnxruntime)"
            )
        self.library = ctypes.CDLL(str(libraries[0]))
        base = self.library.OrtGetApiBase
        base.restype = ctypes.POINTER(ctypes.c_void_p)
        get_api = ctypes.CFUNCTYPE(ctypes.POINTER(ctypes.c_void_p), ctypes.c_uint32)(base()[0] or 0)
        self.table = get_api(_API_VERSION)
        if not self.table:
            raise EngineError(
                f"onnxruntime {ort_version()} has no C API version {_API_VERSION}: "
                "tickrt needs onnxruntime >= 1.20"
            )
        self.env = ctypes.c_void_p()
        self.call("CreateEnv", _LOG_ERROR, b"tickrt", ctypes.byref(self.env))
        self.memory = ctypes.c_void_p()
        self.call("CreateCpuMemoryInfo", _ARENA, _MEM_DEFAULT, ctypes.byref(self.memory))

    def address(self, name: str) -> int:
        """Address of a function of the table."""
        return int(self.table[_POSITION[name]] or 0)

    def call(self, name: str, *args: object) -> None:
        """Call a function that returns an OrtStatus; raise EngineError with its text."""
        function = ctypes.CFUNCTYPE(ctypes.c_void_p)(self.address(name))
        status = function(*args)
        if status:
            raise EngineError(f"onnxruntime: {self.take_error(status)}")

    def release(self, kind: str, pointer: ctypes.c_void_p) -> None:
        """Release an object of `kind` (Session, Value, …)."""
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.address(f"Release{kind}"))(pointer)

    def take_error(self, status: int) -> str:
        """The text of a status, which is released."""
        get = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p)(self.address("GetErrorMessage"))
        text = (get(status) or b"").decode(errors="replace")
        self.release("Status", ctypes.c_void_p(status))
        return text


@functools.cache
def api() -> _Api:
    """The process's one connection to ONNX Runtime's C API, made when first asked for."""
    return _Api()


def error_text(status: int) -> str:
    """The text of a status that `Run` returned to compiled code; releases the status."""
    return api().take_error(status)


class OrtSession:
    """One loaded model; `address` is the OrtSession pointer.

    Args:
        model: serialised ONNX model.
        threads: intra-op threads; 1 runs the model on the calling thread.

    Raises:
        ModelError: ONNX Runtime cannot load the model; its own message is included.
    """

    def __init__(self, model: bytes, threads: int = 1) -> None:
        self._api = api()
        self._values: list[ctypes.c_void_p] = []
        options = ctypes.c_void_p()
        self._api.call("CreateSessionOptions", ctypes.byref(options))
        self._session = ctypes.c_void_p()
        try:
            self._api.call("SetSessionGraphOptimizationLevel", options, _OPTIMISE_ALL)
            self._api.call("SetIntraOpNumThreads", options, threads)
            self._api.call("SetInterOpNumThreads", options, 1)
            self._api.call(
                "CreateSessionFromArray",
                self._api.env,
                ctypes.c_char_p(model),
                ctypes.c_size_t(len(model)),
                options,
                ctypes.byref(self._session),
            )
        except EngineError as error:
            raise ModelError(f"onnxruntime cannot load the model: {error}") from None
        finally:
            self._api.release("SessionOptions", options)

    @property
    def address(self) -> int:
        """The OrtSession pointer."""
        return int(self._session.value or 0)

    @property
    def run_address(self) -> int:
        """Address of `OrtApi::Run`."""
        return self._api.address("Run")

    def tensor(self, address: int, shape: Sequence[int]) -> int:
        """An OrtValue over float32 memory at `address`, without a copy; lives as long as this."""
        value = ctypes.c_void_p()
        dims = (ctypes.c_int64 * len(shape))(*shape)
        size = 4
        for length in shape:
            size *= length
        self._api.call(
            "CreateTensorWithDataAsOrtValue",
            self._api.memory,
            ctypes.c_void_p(address),
            ctypes.c_size_t(size),
            dims,
            ctypes.c_size_t(len(shape)),
            _FLOAT,
            ctypes.byref(value),
        )
        self._values.append(value)
        return int(value.value or 0)

    def close(self) -> None:
        """Release the tensors and the session."""
        for value in self._values:
            self._api.release("Value", value)
        self._values.clear()
        if self._session:
            self._api.release("Session", self._session)
            self._session = ctypes.c_void_p()
