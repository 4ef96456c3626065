"""The `resident` backend: a persistent CUDA kernel generated from the model, in an engine host.

Entry points: `probe`, `prepare`, `load`, as `tickrt.backends` calls them. The loop's process calls
no CUDA: it stores rows into memory that the kernel watches, and reads its answers.

Limits: Hopper GPUs (compute capability 9.0); split models whose step fits into a cluster; nvcc on
the machine.
"""

from __future__ import annotations

import ctypes.util
from typing import TYPE_CHECKING

from tickrt.backends import Probe

if TYPE_CHECKING:
    from tickrt.config import SessionConfig
    from tickrt.engines.resident.compile import Built
    from tickrt.host.mps import Sharing
    from tickrt.host.parcel import Parcel
    from tickrt.program import StreamProgram
    from tickrt.runtime.backends.handle import Engine, RowRing
    from tickrt.runtime.model_source import Source

__all__ = ["ON_GPU", "load", "parcel_of", "prepare", "probe"]

ON_GPU = True
_NAME = "resident"
_NEEDS = (
    ": it needs a Hopper GPU, NVIDIA's driver and nvcc of the CUDA toolkit (`tickrt doctor` says "
    "what is missing); --backend native runs on the CPU"
)


def probe(targets: tuple[str, ...] = ()) -> Probe:
    """It runs where CUDA's driver and a compiler for kernels are. No GPU is touched."""
    from tickrt.engines.resident.compile import compiler

    if ctypes.util.find_library("cuda") is None:
        return Probe(runs=f"no CUDA driver here (libcuda.so.1){_NEEDS}")
    return Probe(runs="" if compiler()[0] else f"no nvcc on the path{_NEEDS}")


def parcel_of(where: str, built: Built, program: StreamProgram) -> Parcel:
    """What a host needs of a kernel; `where` is what messages call it."""
    from tickrt.host.kernels.resident import FORMAT, PAYLOAD, pack
    from tickrt.host.parcel import Parcel

    kernel = built.kernel
    facts = {
        "architecture": built.architecture,
        "blocks": kernel.blocks,
        "threads": built.threads,
        "shared_bytes": kernel.shared_bytes,
        "width": program.width,
        "outputs": program.outputs,
        "marks": list(kernel.marks) if built.profiled else [],
    }
    arrays = {name: getattr(kernel, name) for name in ("starts", "constants", "weights")}
    content = pack(facts, arrays, built.cubin)
    return Parcel(where, FORMAT, {PAYLOAD: content}, {"engines": {"full": PAYLOAD}})


class _Loader:
    """Loads the engines of a session, each into a host of its own, which share one GPU."""

    def __init__(self, sharing: Sharing) -> None:
        self._sharing = sharing

    def load(self, source: Source, ring: RowRing, settings: SessionConfig) -> Engine:
        """The model in a host process of its own. Raises as `load`."""
        from tickrt.engines.resident.compile import build
        from tickrt.engines.translate import stream_program
        from tickrt.host.cores import cores_beside
        from tickrt.host.memory.registry import AUTO, ORDINARY, choose
        from tickrt.host.process import HostProcess
        from tickrt.runtime.backends.mailbox.engine import MailboxEngine
        from tickrt.runtime.backends.wanted import onnx_source, wanted_split

        onnx_source(source, _NAME)
        program = stream_program(source.model, wanted_split(source, settings))
        memory = choose(AUTO)
        built = build(program, one_poller=memory == ORDINARY)
        parcel = parcel_of(str(source.path), built, program)
        host = HostProcess(
            settings.engine_python or "",
            environment=self._sharing.environment(),
            cores=cores_beside(settings.pin_cpu),
        )
        return MailboxEngine(_NAME, source.model, ring, host, parcel, memory, direct=True)

    def close(self) -> None:
        """End what the hosts shared; they have ended."""
        self._sharing.close()


def prepare(engines: int, settings: SessionConfig) -> _Loader:
    """Make ready for that many engines: more than one share the GPU under MPS.

    Raises:
        ConfigError: more than one, and there is no MPS; time slices must be allowed by name.
    """
    from tickrt.host.mps import share_gpu

    return _Loader(share_gpu(engines, allow_time_slicing=settings.allow_time_slicing))


def load(source: Source, ring: RowRing, settings: SessionConfig) -> Engine:
    """The model, alone on the GPU, in a host process of its own.

    Raises:
        ConfigError: the settings ask for what the model does not have.
        ModelError: an operator has no rule, or the model does not fit a cluster; says why.
        BuildError: the kernel does not compile.
        HostError: the host or the GPU refuses it.
    """
    return prepare(1, settings).load(source, ring, settings)
