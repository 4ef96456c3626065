"""TensorRT 10 and 11 and TensorRT-RTX 1, through one code path.

Entry points: `find_library`, `build_engine` (ONNX bytes → plan), `plan_layers`, `plan_validity`.

Invariants: only the common ground of the three libraries is used: strongly typed networks (types
come from the ONNX graph), `OnnxParser`, `set_memory_pool_limit`, optimisation profiles,
`build_serialized_network`. Variables are named after the class they hold (`builder`, `config`,
`network`, `parser`, …): a test checks every attribute used on them against the real bindings.
`engine_host_code_allowed` stays off.

Known limits: `tensorrt` builds for the GPU that it runs on; `tensorrt_rtx` builds for any of
`RTX_TARGETS` without a GPU.
"""

from __future__ import annotations

import importlib
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tickrt.engines.bundle.machine import gpus
from tickrt.engines.tensorrt.profiles import Profile
from tickrt.errors import BuildError, EngineError
from tickrt.files import write_file

__all__ = [
    "RTX_TARGETS",
    "EngineOptions",
    "Library",
    "Plan",
    "build_engine",
    "find_library",
    "plan_layers",
    "plan_validity",
    "rtx_targets",
]

Progress = Callable[[str, int, int], None]

LIBRARIES: Final = ("tensorrt", "tensorrt_rtx")
RTX_TARGETS: Final = {
    "7.5": ("SM75",),
    "8.0": ("SM80",),
    "8.6": ("SM86",),
    "8.9": ("SM89",),
    "12.0": ("SM120",),
    "12.1": ("SM121",),
    "12.x": ("SM120", "SM121"),
}
_ADVICE: Final = (
    (
        re.compile(r"operation '(?P<layer>.+?)' for (?P<gpu>.+?): (?P<why>FP32 GEMM[^.]*)"),
        "TensorRT-RTX has no float32 products there; use --precision fp16 --keep softmax",
    ),
    (
        re.compile(r"target\(s\) (?P<gpu>\S+), because .*datatypes: (?P<why>\S+)"),
        "use --precision fp16 or int8, or another --target",
    ),
    (
        re.compile(r"(?P<why>[Oo]ut of memory|insufficient (?:workspace|memory))"),
        "raise --memory-pool-limit",
    ),
    (
        re.compile(r"(?P<why>graph_jit.*CUDA_SUCCESS)"),
        "a refittable engine is compiled on the GPU that it is for: build it there",
    ),
    (
        re.compile(r"(?P<why>Unable to load library: \S*lean\S*)"),
        "this library comes without its lean runtime; build without --version-compatible",
    ),
)


@dataclass(frozen=True)
class Library:
    """An imported TensorRT: `name` is ``tensorrt`` or ``tensorrt_rtx``."""

    name: str
    version: str
    trt: Any

    @property
    def is_rtx(self) -> bool:
        return self.name == "tensorrt_rtx"


@dataclass(frozen=True)
class EngineOptions:
    """How to build.

    Attributes:
        targets: GPU architectures (`RTX_TARGETS`); empty: the GPU of this machine.
        profiles: shapes of the dynamic inputs.
        workspace: bytes that the builder's tactics may use on the GPU.
        level: 0 (quick build) to 5 (best engine); None: the library's default.
        sparse: use 2:4 sparse weights.
        refit: weights can be replaced later.
        version_compatible: newer library versions can load the plan.
        timing_cache: a file that keeps measured tactics between builds.
    """

    targets: tuple[str, ...] = ()
    profiles: tuple[Profile, ...] = ()
    workspace: int = 512 << 20
    level: int | None = None
    sparse: bool = False
    refit: bool = False
    version_compatible: bool = False
    timing_cache: Path | None = None


@dataclass(frozen=True)
class Plan:
    """A built engine.

    Attributes:
        data: the serialised plan.
        layers_before: layers of the parsed network.
        layers_after: layers of the engine after fusion; None where it cannot be loaded here.
        seconds: how long building took.
        warnings: what the library had to say.
    """

    data: bytes
    layers_before: int
    layers_after: int | None
    seconds: float
    warnings: tuple[str, ...] = field(default=())


def find_library(name: str | None = None) -> Library:
    """Import TensorRT: the one named, else ``tensorrt``, else ``tensorrt_rtx``.

    Raises:
        BuildError: not installed; says what to install.
    """
    tried = []
    for candidate in (name,) if name else LIBRARIES:
        try:
            trt = importlib.import_module(candidate)
        except ImportError as error:
            tried.append(f"{candidate}: {error}")
            continue
        return Library(candidate, str(trt.__version__), trt)
    raise BuildError(
        f"TensorRT is not installed ({'; '.join(tried)}); pip install 'tickrt[rtx]' builds "
        "engines for RTX GPUs anywhere, 'tickrt[tensorrt]' for the GPU of this machine"
    )


def rtx_targets(targets: Sequence[str]) -> list[str]:
    """The names of `ComputeCapability` for `targets`. Raises BuildError for an unknown one."""
    names: list[str] = []
    for target in targets:
        if target not in RTX_TARGETS:
            raise BuildError(
                f"--target {target}: TensorRT-RTX builds for {', '.join(RTX_TARGETS)}; "
                "for another GPU build on it with --backend tensorrt"
            )
        names.extend(name for name in RTX_TARGETS[target] if name not in names)
    return names


def _logger(trt: Any, messages: list[tuple[int, str]]) -> Any:
    """A logger that keeps warnings and errors."""

    class Logger(trt.ILogger):
        def log(self, severity: Any, msg: str) -> None:
            if severity <= trt.ILogger.WARNING:
                messages.append((int(severity), msg.strip()))

    return Logger()


def _monitor(trt: Any, progress: Progress) -> Any:
    """TensorRT's progress monitor, handed on to `progress`. It may be called from any thread."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            super().__init__()
            self.totals: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
            self.totals[phase_name] = num_steps
            progress(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(phase_name, step + 1, self.totals.get(phase_name, 0))
            return True

        def phase_finish(self, phase_name: str) -> None:
            total = self.totals.pop(phase_name, 0)
            progress(phase_name, total, total)

    return Monitor()


def _parse(library: Library, builder: Any, logger: Any, model: bytes) -> Any:
    trt = library.trt
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        lines = []
        for index in range(parser.num_errors):
            error = parser.get_error(index)
            lines.append(f"layer {error.node_name()!r} ({error.node_operator()}): {error.desc()}")
        raise BuildError(
            f"{library.name} {library.version} cannot read the model: {'; '.join(lines) or '?'}"
        )
    return network


def _configure(library: Library, builder: Any, options: EngineOptions) -> Any:
    trt = library.trt
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options.level is not None:
        config.builder_optimization_level = options.level
    for wanted, flag in (
        (options.sparse, trt.BuilderFlag.SPARSE_WEIGHTS),
        (options.refit, trt.BuilderFlag.REFIT),
        (options.version_compatible, trt.BuilderFlag.VERSION_COMPATIBLE),
    ):
        if wanted:
            config.set_flag(flag)
    if options.version_compatible:
        # A lean runtime inside the plan would be host code, which is never allowed to run.
        config.set_flag(trt.BuilderFlag.EXCLUDE_LEAN_RUNTIME)
    if options.targets:
        if not library.is_rtx:
            here = ", ".join(gpu.arch for gpu in gpus()) or "none"
            if list(options.targets) != [gpu.arch for gpu in gpus()][:1]:
                raise BuildError(
                    f"--target {','.join(options.targets)}: tensorrt builds for this machine's GPU "
                    f"({here}); pip install 'tickrt[rtx]' builds for RTX GPUs ahead of time"
                )
        else:
            names = rtx_targets(options.targets)
            config.num_compute_capabilities = len(names)
            for index, name in enumerate(names):
                config.set_compute_capability(getattr(trt.ComputeCapability, name), index)
    for shapes in options.profiles:
        profile = builder.create_optimization_profile()
        for tensor, (low, best, high) in shapes.items():
            profile.set_shape(tensor, low, best, high)
        if config.add_optimization_profile(profile) < 0:
            raise BuildError(f"the optimisation profile {shapes} is not valid for the model")
    return config


def _load_cache(library: Library, config: Any, path: Path | None) -> None:
    if path is None or library.is_rtx:  # TensorRT-RTX tunes when an engine is first run
        return
    data = path.read_bytes() if path.is_file() else b""
    timing_cache = config.create_timing_cache(data)
    if timing_cache is None or not config.set_timing_cache(timing_cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _save_cache(library: Library, config: Any, path: Path | None) -> None:
    if path is None or library.is_rtx:
        return
    timing_cache = config.get_timing_cache()
    if timing_cache is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, [bytes(timing_cache.serialize())])


def _failure(library: Library, messages: list[tuple[int, str]]) -> BuildError:
    """The library's own words, with the layer and what to do where they are understood."""
    errors = [text for severity, text in messages if severity <= 1]
    text = errors[-1] if errors else "it gave no reason"
    for pattern, advice in _ADVICE:
        for error in errors:
            if match := pattern.search(error):
                parts = match.groupdict()
                layer = f"layer {parts['layer']!r}: " if parts.get("layer") else ""
                gpu = f" ({parts['gpu']})" if parts.get("gpu") else ""
                return BuildError(f"{library.name}: {layer}{parts['why']}{gpu}; {advice}")
    return BuildError(f"{library.name} {library.version} could not build the engine: {text}")


def build_engine(
    library: Library, model: bytes, options: EngineOptions, progress: Progress | None = None
) -> Plan:
    """Build a plan from a serialised ONNX model whose types are final.

    Args:
        library: from `find_library`.
        model: ONNX; precision and Q/DQ are in the graph.
        options: targets, profiles and so on.
        progress: called with phase, steps done, steps in all; perhaps from another thread.

    Raises:
        BuildError: the model cannot be parsed or built; names the layer where the library does.
    """
    trt = library.trt
    messages: list[tuple[int, str]] = []
    logger = _logger(trt, messages)
    started = time.perf_counter()
    builder = trt.Builder(logger)
    if builder is None:
        raise _failure(library, messages)
    network = _parse(library, builder, logger, model)
    config = _configure(library, builder, options)
    if progress is not None:
        monitor = _monitor(trt, progress)
        config.progress_monitor = monitor
    _load_cache(library, config, options.timing_cache)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _failure(library, messages)
    _save_cache(library, config, options.timing_cache)
    data = bytes(plan)
    layers = plan_layers(library, data)
    seconds = time.perf_counter() - started
    warnings = tuple(dict.fromkeys(text for severity, text in messages if severity == 2))
    after = len(layers) if layers is not None else None
    return Plan(data, network.num_layers, after, seconds, warnings)


def load_plan(library: Library, data: bytes, messages: list[tuple[int, str]]) -> Any:
    """Deserialise a plan on this machine's GPU; None where it cannot. Host code stays forbidden."""
    trt = library.trt
    logger = _logger(trt, messages)
    runtime = trt.Runtime(logger)
    if runtime is None:
        return None
    runtime.engine_host_code_allowed = False
    return runtime.deserialize_cuda_engine(data)


def plan_layers(library: Library, data: bytes) -> list[str] | None:
    """The layers of a plan after fusion, by name; None where this machine cannot load it."""
    trt = library.trt
    if not gpus():
        return None
    engine = load_plan(library, data, [])
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
    logger = _logger(trt, messages)
    runtime = trt.Runtime(logger)
    if runtime is None:
        raise EngineError(f"{library.name}: no runtime: {messages[-1][1] if messages else '?'}")
    validity, bits = runtime.get_engine_validity(data)
    reasons = [
        name
        for name, member in trt.EngineInvalidityDiagnostics.__members__.items()
        if int(bits) & int(member)
    ]
    if not reasons and not gpus():
        return "unknown", ["no GPU here to check it against"]
    return str(validity.name).lower(), reasons
