"""As much of TensorRT 8.5's bindings as a plan needs, for errors that cannot be had without a GPU.

A plan is an ONNX graph, which ONNX Runtime runs on the addresses that it was bound to, through the
driver that stands in for CUDA's (tests/cpu/host/cuda.c). What the variable FAKE_REFUSES names is
refused: ``plan``, ``context``, ``shape``, ``address``, ``run``, ``recording``; ``Softmax`` by the
parser; ``build`` by the builder; with ``kill`` the process ends while it builds. FAKE_LACKS is an
operator that the parser does not know, FAKE_VERSION another version.
"""

from __future__ import annotations

import ctypes
import os
import signal
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime

__version__ = os.environ.get("FAKE_VERSION", "8.5.3.1")
_KINDS = {"tensor(float)": ("FLOAT", np.float32), "tensor(int64)": ("INT64", np.int64)}
_calls: list[Any] = []  # what the driver was given to call: it must live as long as the graphs

TensorIOMode = SimpleNamespace(INPUT=1, OUTPUT=2)
TensorLocation = SimpleNamespace(DEVICE=0, HOST=1)


NetworkDefinitionCreationFlag = IntEnum("NetworkDefinitionCreationFlag", "EXPLICIT_BATCH", start=0)
BuilderFlag = IntEnum("BuilderFlag", "FP16 INT8 REFIT TF32 SPARSE_WEIGHTS", start=0)
MemoryPoolType = IntEnum("MemoryPoolType", "WORKSPACE", start=0)
ProfilingVerbosity = IntEnum("ProfilingVerbosity", "DETAILED", start=2)
LayerInformationFormat = IntEnum("LayerInformationFormat", "JSON", start=1)
TacticSource = IntEnum(
    "TacticSource", "CUBLAS CUBLAS_LT CUDNN EDGE_MASK_CONVOLUTIONS JIT_CONVOLUTIONS", start=0
)


def _refused(what: str) -> bool:
    return os.environ.get("FAKE_REFUSES") == what


class ILogger:
    WARNING = 2

    def log(self, severity: int, msg: str) -> None: ...


class Cache:
    def serialize(self) -> bytes:
        return b"timings"


class Config:
    def __init__(self) -> None:
        self.sources, self.flags = 31, {int(BuilderFlag.TF32)}
        self.profiles: list[Any] = []

    def set_memory_pool_limit(self, pool: int, pool_size: int) -> None:
        assert pool_size > 0

    def set_flag(self, flag: int) -> None:
        self.flags.add(int(flag))

    def clear_flag(self, flag: int) -> None:
        self.flags.discard(int(flag))

    def get_tactic_sources(self) -> int:
        return self.sources

    def set_tactic_sources(self, tactic_sources: int) -> bool:
        self.sources = tactic_sources
        return True

    def add_optimization_profile(self, profile: Any) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> Cache:
        return Cache()

    def set_timing_cache(self, cache: Cache, ignore_mismatch: bool) -> bool:
        return True

    def get_timing_cache(self) -> Cache:
        return Cache()


class Profile:
    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        assert len(min) == len(opt) == len(max)


class Builder:
    def __init__(self, logger: ILogger) -> None:
        self.logger = logger

    def create_network(self, flags: int = 0) -> SimpleNamespace:
        assert flags == 1  # an explicit batch
        return SimpleNamespace(model=b"", num_layers=7)

    def create_builder_config(self) -> Config:
        return Config()

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: SimpleNamespace, config: Config) -> bytes | None:
        assert config.sources == 1 << int(TacticSource.EDGE_MASK_CONVOLUTIONS)
        if _refused("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        if _refused("build"):
            words = "Could not find any implementation for node {ForeignNode[lstm0]}."
            self.logger.log(1, f"10: [optimizer.cpp::computeCosts::3728] {words}")
            return None
        return bytes(network.model)


class OnnxParser:
    def __init__(self, network: SimpleNamespace, logger: ILogger) -> None:
        self.network, self.num_errors = network, 1

    def supports_operator(self, op_name: str) -> bool:
        return op_name != os.environ.get("FAKE_LACKS")

    def parse(self, model: bytes) -> bool:
        self.network.model = model
        return not _refused("Softmax")

    def get_error(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(node=lambda: 1, desc=lambda: "Assertion failed: axis")


class Inspector:
    def get_engine_information(self, format: int) -> str:
        return '{"Layers": [{"Name": "a"}, "b"]}'


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self.logger = logger

    def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
        if _refused("plan"):
            self.logger.log(1, "Version tag does not match: found 213, expected 239\nmore")
            return None
        return Engine(data, self.logger)


class Engine:
    def __init__(self, data: bytes, logger: ILogger) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.logger = logger
        self.session = onnxruntime.InferenceSession(data, options)
        self.inputs = {value.name: value for value in self.session.get_inputs()}
        self.outputs = {value.name: value for value in self.session.get_outputs()}
        self.tensors = {**self.inputs, **self.outputs}
        self.num_io_tensors = len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=_KINDS[self.tensors[name].type][0])

    def get_tensor_location(self, name: str) -> int:
        return TensorLocation.DEVICE

    def get_tensor_mode(self, name: str) -> int:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def create_engine_inspector(self) -> Inspector:
        return Inspector()

    def create_execution_context(self) -> Context | None:
        return None if _refused("context") else Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.driver = ctypes.CDLL("libcuda.so.1")

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return not _refused("shape")

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return not _refused("address")

    def execute_async_v3(self, stream_handle: int) -> bool:
        recording = self.driver.stub_is_recording()
        if _refused("run") or (recording and _refused("recording")):
            self.engine.logger.log(1, "Error Code 1: Cuda Runtime (operation not permitted)")
            return False
        addresses, shapes = dict(self.addresses), dict(self.shapes)
        assert set(addresses) == set(self.engine.tensors)

        def call(_: int) -> None:
            feed = {n: _at(addresses[n], shapes[n], self._kind(n)) for n in self.engine.inputs}
            names = list(self.engine.outputs)
            for name, value in zip(names, self.engine.session.run(names, feed), strict=True):
                ctypes.memmove(addresses[name], value.ctypes.data, value.nbytes)

        held = ctypes.CFUNCTYPE(None, ctypes.c_long)(call)
        _calls.append(held)
        self.driver.stub_enqueue(held, ctypes.c_long(0))
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(
            size if isinstance(size, int) else 1 for size in self.engine.tensors[name].shape
        )

    def _kind(self, name: str) -> Any:
        return _KINDS[self.engine.tensors[name].type][1]


def _at(address: int, shape: tuple[int, ...], kind: Any) -> Any:
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    data = ctypes.string_at(address, size)
    return np.frombuffer(data, kind).reshape(shape).copy()
