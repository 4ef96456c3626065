"""The `resident` backend: a persistent CUDA kernel generated from the model, in an engine host.

Entry points: `probe`, `prepare`, `load`, `builder`, `opener`, as `tickrt.backends` calls them. The
loop's process calls no CUDA: it stores rows into memory that the kernel watches, and reads its
answers.

Limits: Hopper GPUs (compute capability 9.0); split models whose step fits into a cluster; nvcc,
where the kernel does not come in a bundle (`resident_bundle`).
"""

from __future__ import annotations

import ctypes.util
from typing import TYPE_CHECKING

from tickrt.backends import Probe
from tickrt.errors import BuildError, ConfigError, HostError

if TYPE_CHECKING:
    from tickrt.config import SessionConfig
    from tickrt.engines.bundle.toolchain import EngineBuilder
    from tickrt.engines.resident.compile import Built
    from tickrt.host.mps import Sharing
    from tickrt.host.parcel import Parcel
    from tickrt.program import StreamProgram
    from tickrt.runtime.backends.handle import Engine, RowRing
    from tickrt.runtime.backends.mailbox.engine import Parity
    from tickrt.runtime.model_source import Source

__all__ = ["ON_GPU", "builder", "kernel_bytes", "load", "opener", "parcel_of", "prepare", "probe"]

ON_GPU = True
_NAME = "resident"
_TARGETS = {"9.0"}
_NEEDS = (
    ": it needs a Hopper GPU and NVIDIA's driver, and nvcc of the CUDA toolkit for what is in no "
    "bundle (`tickrt doctor` says what is missing); --backend native runs on the CPU"
)


def probe(targets: tuple[str, ...] = ()) -> Probe:
    """It runs where CUDA's driver is, without a compiler for kernels only bundles; it builds where
    that compiler is. No GPU is touched."""
    from tickrt.engines.resident.compile import compiler

    here = ctypes.util.find_library("cuda") is not None
    runs = "" if here else f"no CUDA driver here (libcuda.so.1){_NEEDS}"
    if wrong := sorted(set(targets) - _TARGETS):
        builds = f"it builds for compute capability 9.0, not {', '.join(wrong)}"
    else:
        builds = "" if compiler()[0] else "no nvcc on the path: install the CUDA toolkit"
    return Probe(runs, builds, in_host=True)


def opener() -> EngineBuilder:
    """The builder."""
    from tickrt.runtime.backends.resident_bundle import ResidentBuilder

    return ResidentBuilder()


def builder(targets: tuple[str, ...] = ()) -> EngineBuilder:
    """Raises ConfigError for a target that is no Hopper GPU."""
    if wrong := sorted(set(targets) - _TARGETS):
        raise ConfigError(
            f"--target {', '.join(wrong)}: the {_NAME} backend builds for compute capability 9.0: "
            "leave it out, or name --target 9.0"
        )
    return opener()


def kernel_bytes(built: Built, program: StreamProgram) -> bytes:
    """A kernel as the payload that a host loads."""
    from tickrt.host.kernels.resident import pack

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
    return pack(facts, arrays, built.cubin)


def parcel_of(where: str, built: Built, program: StreamProgram) -> Parcel:
    """What a host needs of a kernel; `where` is what messages call it."""
    from tickrt.host.kernels.resident import FORMAT, PAYLOAD
    from tickrt.host.parcel import Parcel

    payloads = {PAYLOAD: kernel_bytes(built, program)}
    return Parcel(where, FORMAT, payloads, {"engines": {"full": PAYLOAD}})


def _parcel(source: Source, settings: SessionConfig, memory: str) -> tuple[Parcel, Parity | None]:
    """The kernel for that row memory: out of the bundle, with rows to compare, or made now."""
    from tickrt.engines.resident.compile import build
    from tickrt.engines.translate import stream_program
    from tickrt.host.memory.registry import ORDINARY
    from tickrt.runtime.backends.resident_bundle import parcel_from
    from tickrt.runtime.backends.wanted import onnx_source, wanted_split

    if source.model.format == _NAME:
        return parcel_from(source, settings, memory)
    onnx_source(source, _NAME)
    if why := probe().builds:
        raise BuildError(
            f"{source.path}: {why}; or run a bundle that was built where nvcc is: tickrt build "
            f"{source.path} -o X.bundle --backend {_NAME}"
        )
    program = stream_program(source.model, wanted_split(source, settings))
    built = build(program, one_poller=memory == ORDINARY)
    return parcel_of(str(source.path), built, program), None


class _Loader:
    """Loads the engines of a session, each into a host of its own, which share one GPU."""

    def __init__(self, sharing: Sharing) -> None:
        self._sharing = sharing

    def load(self, source: Source, ring: RowRing, settings: SessionConfig) -> Engine:
        """The model in a host process of its own. Raises as `load`."""
        from tickrt.host.cores import cores_beside
        from tickrt.host.memory.registry import AUTO, choose
        from tickrt.host.process import HostProcess
        from tickrt.runtime.backends.mailbox.engine import MailboxEngine

        memory = choose(AUTO)
        parcel, parity = _parcel(source, settings, memory)
        self._check_sharing()
        host = HostProcess(
            settings.engine_python or "",
            environment=self._sharing.environment(),
            cores=cores_beside(settings.pin_cpu),
        )
        engine = MailboxEngine(
            _NAME, source.model, ring, host, parcel, memory, direct=True, parity=parity
        )
        engine.shared = self._sharing.problem
        try:
            self._check_sharing()
        except BaseException:
            engine.close()
            raise
        return engine

    def _check_sharing(self) -> None:
        """Without its daemon a host takes turns with the others, and CUDA does not say so."""
        if why := self._sharing.problem():
            raise HostError(f"{why}: the engines cannot share the GPU; start the session again")

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
        BuildError: the kernel does not compile, or there is no compiler.
        BundleError, TamperedError: the bundle is not what was signed.
        IncompatibleError: it was built for another GPU, or by another backend.
        EngineError: the GPU's answers to the bundle's rows are not those of its program.
        HostError: the host or the GPU refuses it.
    """
    return prepare(1, settings).load(source, ring, settings)
