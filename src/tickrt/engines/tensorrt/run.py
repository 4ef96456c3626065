"""Runs a TensorRT plan on this machine's GPU, for parity checks; not for the hot path.

Entry points: `PlanRunner`, `why_not_here`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tickrt.engines.bundle.machine import gpus
from tickrt.engines.bundle.manifest import Builder
from tickrt.engines.graph.interface import Feed
from tickrt.engines.tensorrt.builder import RTX_TARGETS, Library, load_plan
from tickrt.engines.tensorrt.device import Device
from tickrt.errors import EngineError

__all__ = ["PlanRunner", "why_not_here"]


def why_not_here(built: Builder) -> str:
    """Why this machine cannot run the engine; empty when it can."""
    here = gpus()
    if not here:
        return "no GPU on this machine"
    arch = here[0].arch
    if arch not in built.gpu_arch:
        return f"this machine's GPU is {arch}, the engine is for {', '.join(built.gpu_arch)}"
    if built.library == "tensorrt_rtx" and arch not in RTX_TARGETS:
        return f"TensorRT-RTX does not run on GPU {arch}"
    return ""


class PlanRunner:
    """One plan, loaded; a context manager. Shapes may differ from call to call.

    Raises:
        EngineError: no GPU, or the plan does not load here.
    """

    def __init__(self, library: Library, data: bytes) -> None:
        self._library = library
        self._messages: list[tuple[int, str]] = []
        self._engine = load_plan(library, data, self._messages)
        if self._engine is None:
            raise EngineError(self._why("the plan does not load here"))
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise EngineError(self._why("no execution context"))

    def _why(self, what: str) -> str:
        reason = self._messages[-1][1].splitlines()[0] if self._messages else "no reason given"
        return f"{self._library.name}: {what}: {reason}"

    def run(self, feed: Feed) -> dict[str, np.ndarray[Any, Any]]:
        """Outputs by name for inputs by name. Raises EngineError when it fails."""
        trt, engine, context = self._library.trt, self._engine, self._context
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        modes = {name: engine.get_tensor_mode(name) for name in names}
        inputs = [name for name in names if modes[name] == trt.TensorIOMode.INPUT]
        outputs = [name for name in names if modes[name] == trt.TensorIOMode.OUTPUT]
        with Device() as device:
            for name in inputs:
                dtype = trt.nptype(engine.get_tensor_dtype(name))
                array = np.ascontiguousarray(feed[name], dtype)
                if not context.set_input_shape(name, array.shape):
                    raise EngineError(self._why(f"input {name!r} of shape {array.shape}"))
                context.set_tensor_address(name, device.put(array))
            results, addresses = {}, {}
            for name in outputs:
                shape = tuple(context.get_tensor_shape(name))
                dtype = trt.nptype(engine.get_tensor_dtype(name))
                results[name] = np.empty(shape, dtype)
                addresses[name] = device.empty(results[name].nbytes)
                context.set_tensor_address(name, addresses[name])
            if not context.execute_async_v3(device.stream):
                raise EngineError(self._why("execution failed"))
            for name, array in results.items():
                device.get(addresses[name], array)
        return results
