"""ONNX bytes → plan, with TensorRT 8.5 … 11 and TensorRT-RTX 1, through one code path.

Entry points: `build_engine` → `Plan`; `EngineOptions`; `rtx_targets`; `lacking` (operators).

Invariants: only the common ground of the libraries is used by name: `OnnxParser`,
`set_memory_pool_limit`, optimisation profiles, `build_serialized_network`. What some have and
others do not is asked of the bindings (`versions`). Variables are named after the class they hold
(`builder`, `config`, `network`, `parser`, …): a test checks every attribute used on them against
the real bindings. Float32 means float32: TF32 is switched off.

Known limits: `tensorrt` builds for the GPU that it runs on; `tensorrt_rtx` builds for any of
`RTX_TARGETS` without a GPU.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tickrt.engines.bundle.machine import gpus
from tickrt.errors import BuildError
from tickrt.host.tensorrt.plans import logger_of, plan_layers
from tickrt.host.tensorrt.tactics import usable_sources
from tickrt.host.tensorrt.versions import Library, members

__all__ = [
    "RTX_TARGETS",
    "EngineOptions",
    "Plan",
    "build_engine",
    "lacking",
    "rtx_targets",
]

Progress = Callable[[str, int, int], None]
Profile = dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]

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
        precision: what the builder may compute in, where that is a flag and not in the graph.
        timing_cache: a file that keeps measured tactics between builds; empty: none.
    """

    targets: tuple[str, ...] = ()
    profiles: tuple[Profile, ...] = ()
    workspace: int = 512 << 20
    level: int | None = None
    sparse: bool = False
    refit: bool = False
    version_compatible: bool = False
    precision: str = "fp32"
    timing_cache: str = ""


@dataclass(frozen=True)
class Plan:
    """A built engine.

    Attributes:
        data: the serialised plan; empty where the model could not be read.
        problems: why it could not, by node: ``node`` (its index), ``name``, ``operator``, ``text``.
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
    problems: tuple[dict[str, Any], ...] = field(default=())


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


def _made(make: Callable[[], Any]) -> Any:
    """What a constructor of the bindings gives; None where it gives nothing, however it says so."""
    try:
        return make()
    except TypeError:  # pybind11: "factory function returned nullptr"
        return None


def _problems(parser: Any) -> tuple[dict[str, Any], ...]:
    """What the parser could not read; names are given by those that know them."""
    found = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        name, operator = (getattr(error, what, None) for what in ("node_name", "node_operator"))
        found.append(
            {
                "node": int(error.node()),
                "name": name() if name is not None else "",
                "operator": operator() if operator is not None else "",
                "text": str(error.desc()).strip(),
            }
        )
    return tuple(found) or ({"node": -1, "name": "", "operator": "", "text": "no reason given"},)


def _network(library: Library, builder: Any) -> Any:
    return builder.create_network(library.network_flags)


def _set_precision(library: Library, config: Any, options: EngineOptions) -> None:
    flags = members(library.trt, "BuilderFlag")
    if options.precision == "fp32" and "TF32" in flags:
        config.clear_flag(flags["TF32"])
    if options.precision != "fp32" and not library.typed:
        name = options.precision.upper()
        config.set_flag(library.flag(name, f"--precision {options.precision}"))


def _configure(library: Library, builder: Any, options: EngineOptions) -> Any:
    trt = library.trt
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options.level is not None:
        if not hasattr(config, "builder_optimization_level"):
            raise BuildError(
                f"--builder-optimization-level: {library.name} {library.version} does not have "
                "it; drop it"
            )
        config.builder_optimization_level = options.level
    for wanted, flag, option in (
        (options.sparse, "SPARSE_WEIGHTS", "--sparse-weights"),
        (options.refit, "REFIT", "--refit"),
        (options.version_compatible, "VERSION_COMPATIBLE", "--version-compatible"),
        # A lean runtime inside the plan would be host code, which is never allowed to run.
        (options.version_compatible, "EXCLUDE_LEAN_RUNTIME", "--version-compatible"),
    ):
        if wanted:
            config.set_flag(library.flag(flag, option))
    _set_precision(library, config, options)
    _set_targets(library, config, options)
    for shapes in options.profiles:
        profile = builder.create_optimization_profile()
        for tensor, (low, best, high) in shapes.items():
            profile.set_shape(tensor, tuple(low), tuple(best), tuple(high))
        if config.add_optimization_profile(profile) < 0:
            raise BuildError(f"the optimisation profile {shapes} is not valid for the model")
    return config


def _set_targets(library: Library, config: Any, options: EngineOptions) -> None:
    trt = library.trt
    if not options.targets:
        return
    if not library.is_rtx:
        raise BuildError(
            f"--target {','.join(options.targets)}: tensorrt builds for the GPU of this machine; "
            "pip install 'tickrt[rtx]' builds for RTX GPUs ahead of time"
        )
    names = rtx_targets(options.targets)
    config.num_compute_capabilities = len(names)
    for index, name in enumerate(names):
        config.set_compute_capability(getattr(trt.ComputeCapability, name), index)


def _load_cache(library: Library, config: Any, path: str) -> None:
    if not path or library.is_rtx:  # TensorRT-RTX tunes when an engine is first run
        return
    data = b""
    if os.path.isfile(path):
        with open(path, "rb") as file:
            data = file.read()
    timing_cache = config.create_timing_cache(data)
    if timing_cache is None or not config.set_timing_cache(timing_cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _save_cache(library: Library, config: Any, path: str) -> str:
    """Keep what was measured; why it could not be kept, or an empty string."""
    if not path or library.is_rtx:
        return ""
    timing_cache = config.get_timing_cache()
    if timing_cache is None:
        return ""
    beside = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(beside, "wb") as file:
            file.write(bytes(timing_cache.serialize()))
        os.replace(beside, path)
    except OSError as problem:  # the next build measures again, nothing else
        return f"the timing cache {path} is not kept: {problem.strerror}"
    return ""


def _failure(library: Library, messages: list[tuple[int, str]]) -> BuildError:
    """The library's own words, with the layer and what to do where they are understood."""
    errors = [text for severity, text in messages if severity <= 1]
    errors = errors or [text for severity, text in messages if "failure" in text]
    text = errors[-1] if errors else "it gave no reason"
    for pattern, advice in _ADVICE:
        for error in errors:
            if match := pattern.search(error):
                parts = match.groupdict()
                layer = f"layer {parts['layer']!r}: " if parts.get("layer") else ""
                gpu = f" ({parts['gpu']})" if parts.get("gpu") else ""
                return BuildError(f"{library.name}: {layer}{parts['why']}{gpu}; {advice}")
    return BuildError(f"{library.name} {library.version} could not build the engine: {text}")


def _builder(library: Library, logger: Any, messages: list[tuple[int, str]]) -> Any:
    trt = library.trt
    if not library.is_rtx and not gpus():
        raise BuildError("no GPU here: tensorrt builds for the GPU that it runs on")
    builder = _made(lambda: trt.Builder(logger))
    if builder is None:
        raise _failure(library, messages)
    return builder


def lacking(library: Library, operators: Sequence[str]) -> list[str]:
    """Those of the ONNX operators that the library's parser cannot read.

    Raises:
        BuildError: it cannot be asked, as without a GPU.
    """
    trt = library.trt
    messages: list[tuple[int, str]] = []
    logger = logger_of(trt, messages)
    builder = _builder(library, logger, messages)
    parser = trt.OnnxParser(_network(library, builder), logger)
    return [name for name in operators if not parser.supports_operator(name)]


def build_engine(
    library: Library, model: bytes, options: EngineOptions, progress: Progress | None = None
) -> Plan:
    """Build a plan from a serialised ONNX model.

    Args:
        library: from `versions.find_library`.
        model: ONNX; precision and Q/DQ are in the graph, but for what the options say.
        options: targets, profiles and so on.
        progress: called with phase, steps done, steps in all; perhaps from another thread; not at
            all by libraries that have no monitor.

    Raises:
        BuildError: the model cannot be built; names the layer where the library does.
    """
    trt = library.trt
    messages: list[tuple[int, str]] = []
    logger = logger_of(trt, messages)
    started = time.perf_counter()
    builder = _builder(library, logger, messages)
    network = _network(library, builder)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        return Plan(b"", 0, None, 0.0, problems=_problems(parser))
    config = _configure(library, builder, options)
    sources = usable_sources(trt, config)
    if progress is not None and hasattr(trt, "IProgressMonitor"):
        monitor = _monitor(trt, progress)
        config.progress_monitor = monitor
    _load_cache(library, config, options.timing_cache)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _failure(library, messages)
    unkept = _save_cache(library, config, options.timing_cache)
    data = bytes(plan)
    layers = plan_layers(library, data)
    seconds = time.perf_counter() - started
    warnings = [text for severity, text in messages if severity == 2]
    warnings = [text for text in (sources, unkept, *warnings) if text]
    after = len(layers) if layers is not None else None
    return Plan(data, network.num_layers, after, seconds, tuple(dict.fromkeys(warnings)))
