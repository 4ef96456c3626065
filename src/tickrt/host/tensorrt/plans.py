"""A plan as an engine on this machine's GPU.

Entry points: `PlanEngine` (its tensors, their addresses, its launch), `PlanRunner` (a function of
named arrays, for parity checks), `plan_layers`, `plan_validity`, `logger_of`.

Invariants: a GPU is looked for before the library is asked for a runtime, which may crash without
one. What the library refuses is an error with its own words. Host code in a plan stays forbidden.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickrt.engines.bundle.machine import gpus
from tickrt.errors import EngineError, HostError, IncompatibleError
from tickrt.host.cuda import CudaError, Device, open_device
from tickrt.host.tensorrt.versions import Library, members

__all__ = ["PlanEngine", "PlanRunner", "logger_of", "plan_layers", "plan_validity"]

Array = NDArray[Any]

# By the names of `DataType`: not every release can say what NumPy calls them.
_DTYPES = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT32": np.int32,
    "INT64": np.int64,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "BOOL": np.bool_,
}


def logger_of(trt: Any, messages: list[tuple[int, str]]) -> Any:
    """A logger that keeps warnings and errors."""

    class Logger(trt.ILogger):
        def log(self, severity: Any, msg: str) -> None:
            if int(severity) <= int(trt.ILogger.WARNING):
                messages.append((int(severity), msg.strip()))

    return Logger()


def _runtime(trt: Any, logger: Any) -> Any:
    """A runtime, or None."""
    try:
        runtime = trt.Runtime(logger)
    except TypeError:  # pybind11: "factory function returned nullptr"
        return None
    if hasattr(runtime, "engine_host_code_allowed"):
        setattr(runtime, "engine_host_code_allowed", False)  # noqa: B010
    return runtime


class PlanEngine:
    """One plan, loaded, with one execution context.

    Attributes:
        inputs, outputs: by name, NumPy's type of each tensor.

    Raises:
        HostError: no GPU, or a tensor of a kind that cannot be bound.
        IncompatibleError: the library refuses the plan; with both versions where it says so.
    """

    def __init__(self, library: Library, data: bytes | memoryview) -> None:
        if not gpus():
            raise HostError("no GPU here: nothing can run a plan")
        trt = library.trt
        self._library = library
        self._messages: list[tuple[int, str]] = []
        self._logger = logger_of(trt, self._messages)  # the library keeps a bare pointer to it
        self._runtime = _runtime(trt, self._logger)
        if self._runtime is None:
            raise HostError(self.why("no runtime"))
        runtime = self._runtime
        self._engine = runtime.deserialize_cuda_engine(bytes(data))
        if self._engine is None:
            raise IncompatibleError(self.why("it refuses the plan"))
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise HostError(self.why("no execution context"))
        self.inputs: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}
        self._read_tensors()

    def _read_tensors(self) -> None:
        trt, engine = self._library.trt, self._engine
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            kind = engine.get_tensor_dtype(name).name
            if kind not in _DTYPES:
                raise HostError(f"{self._library.name}: tensor {name!r} is of type {kind}")
            if engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
                raise HostError(f"{self._library.name}: tensor {name!r} is wanted in host memory")
            is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            (self.inputs if is_input else self.outputs)[name] = _DTYPES[kind]

    def why(self, what: str) -> str:
        """`what` went wrong, with the library's last words."""
        library, lines = self._library, [text for _, text in self._messages]
        reason = lines[-1].splitlines()[0] if lines and lines[-1] else "no reason given"
        return f"{library.name} {library.version}: {what}: {reason}"

    def set_shape(self, name: str, shape: tuple[int, ...]) -> None:
        """The shape of an input from now on. Raises HostError where it is refused."""
        context = self._context
        if not context.set_input_shape(name, tuple(shape)):
            raise HostError(self.why(f"input {name!r} of shape {tuple(shape)}"))

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, once those of the inputs are set."""
        context = self._context
        found = tuple(int(size) for size in context.get_tensor_shape(name))
        if any(size < 0 for size in found):
            raise HostError(self.why(f"the shape of {name!r} is open: {found}"))
        return found

    def bind(self, name: str, address: int) -> None:
        """Where a tensor lies from now on. Raises HostError where that is refused."""
        context = self._context
        if not context.set_tensor_address(name, int(address)):
            raise HostError(self.why(f"the address of {name!r}"))

    def enqueue(self, stream: int) -> None:
        """Launch it. Raises HostError where that is refused."""
        context = self._context
        if not context.execute_async_v3(int(stream)):
            raise HostError(self.why("it refuses to run"))

    def close(self) -> None:
        """Release it, the engine before its runtime."""
        self._context = self._engine = self._runtime = None


class PlanRunner:
    """A plan as a function; shapes may differ from call to call. Not for the hot path.

    Raises:
        HostError, IncompatibleError: as `PlanEngine`.
    """

    def __init__(self, library: Library, data: bytes | memoryview) -> None:
        self._plan = PlanEngine(library, data)
        self._device = open_device()

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name for inputs by name. Raises EngineError when it fails."""
        plan, device = self._plan, self._device
        missing = [name for name in plan.inputs if name not in feed]
        if missing:
            raise EngineError(f"the plan reads {missing[0]!r}, which was not given")
        memory: list[int] = []
        try:
            for name, dtype in plan.inputs.items():
                array = np.ascontiguousarray(feed[name], dtype)
                plan.set_shape(name, array.shape)
                memory.append(device.upload(array))
                plan.bind(name, memory[-1])
            results = {}
            addresses = {}
            for name, dtype in plan.outputs.items():
                results[name] = np.empty(plan.shape(name), dtype)
                memory.append(device.allocate(results[name].nbytes))
                addresses[name] = memory[-1]
                plan.bind(name, memory[-1])
            device.settle()
            plan.enqueue(device.stream)
            device.wait()
            for name, array in results.items():
                device.download(array, addresses[name])
        finally:
            self._free(device, memory)
        return results

    @staticmethod
    def _free(device: Device, memory: list[int]) -> None:
        for address in memory:
            try:
                device.free(address)
            except CudaError:  # what failed before says more
                return


def plan_layers(library: Library, data: bytes) -> list[str] | None:
    """The layers of a plan after fusion, by name; None where this machine cannot load it."""
    trt = library.trt
    if not gpus():
        return None
    logger = logger_of(trt, [])
    runtime = _runtime(trt, logger)
    engine = None if runtime is None else runtime.deserialize_cuda_engine(data)
    if engine is None:
        return None
    inspector = engine.create_engine_inspector()
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    try:
        layers = json.loads(text).get("Layers", [])
    except ValueError:
        return None
    return [str(layer.get("Name", "?") if isinstance(layer, dict) else layer) for layer in layers]


def plan_validity(library: Library, data: bytes) -> tuple[str, list[str]]:
    """TensorRT-RTX's own verdict on a plan, on this machine.

    Returns:
        ``valid``, ``suboptimal``, ``invalid``, or ``unknown`` (the library has no such check, or
        the machine no GPU); and the reasons by name.

    Raises:
        EngineError: the runtime cannot be made.
    """
    trt = library.trt
    if not library.is_rtx:
        return "unknown", []
    messages: list[tuple[int, str]] = []
    logger = logger_of(trt, messages)
    runtime = _runtime(trt, logger)
    if runtime is None:
        raise EngineError(f"{library.name}: no runtime: {messages[-1][1] if messages else '?'}")
    validity, bits = runtime.get_engine_validity(data)
    reasons = [
        name
        for name, member in members(trt, "EngineInvalidityDiagnostics").items()
        if int(bits) & int(member)
    ]
    if not reasons and not gpus():
        return "unknown", ["no GPU here to check it against"]
    return str(validity.name).lower(), reasons
