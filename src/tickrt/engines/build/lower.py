"""The parts of a bundle: the split graphs, lowered to the precision, built into engines.

Entry points: `split_graphs` (split), `make_feeds` (inputs for each part), `build_part`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from onnx import ModelProto

from tickrt.engines.build.parity import chain
from tickrt.engines.build.request import BuildRequest
from tickrt.engines.bundle.manifest import Calibration, EngineInfo
from tickrt.engines.bundle.toolchain import EngineBuilder, EngineOrder, MadeEngine, Phase
from tickrt.engines.graph.interface import Array, Feed, Run, TensorInfo
from tickrt.engines.graph.load import model_kind, tensor_infos
from tickrt.engines.graph.ort import OrtGraph
from tickrt.engines.precision.convert import Converted, convert
from tickrt.engines.precision.decompose import decompose_recurrent
from tickrt.engines.precision.fp32_layers import fp32_nodes
from tickrt.engines.precision.quantize import quantisable
from tickrt.engines.precision.sparsity import check_sparse
from tickrt.engines.split import SplitResult, split
from tickrt.errors import PrecisionError

__all__ = ["BuiltEngine", "Report", "SplitGraphs", "build_part", "make_feeds", "split_graphs"]

Report = Callable[[str, str, int, int], None]  # role, phase, done, total

_CALIBRATED: Final = ("int8", "fp8")


@dataclass(frozen=True)
class SplitGraphs:
    """The graphs to build, by role, and how they hang together. `result` is None when unsplit."""

    models: dict[str, ModelProto]
    result: SplitResult | None
    why_not: str
    source: ModelProto
    window_input: str
    window: int | None

    def chained(self, runs: dict[str, Run]) -> Run:
        """One function of the window, whatever the parts are."""
        if self.result is None:
            return runs["full"]
        r = self.result
        return chain(runs.get("pre"), runs["step"], self.window_input, r.known, r.newest)


@dataclass(frozen=True)
class BuiltEngine:
    """One built part: what the manifest says of it, what the builder made, the lowered graph."""

    info: EngineInfo
    made: MadeEngine
    lowered: ModelProto
    calibration: Calibration | None
    seconds: float


def split_graphs(model: ModelProto, request: BuildRequest, whole: bool = False) -> SplitGraphs:
    """Split the model where that is wanted and possible; else it is one part, ``full``.

    Args:
        whole: its builder splits it.

    Raises:
        PrecisionError: a ``--keep`` pattern fits no layer of any part.
    """
    first = tensor_infos(model.graph.input)[0]
    size = first.shape[1] if len(first.shape) > 1 else None
    window = size if isinstance(size, int) else request.window
    parts = SplitGraphs({"full": model}, None, "", model, first.name, window)
    if request.split and not whole:
        result = split(model, stateful=request.stateful)
        if result.is_split:
            graphs = {"pre": result.pre, "step": result.step, "advance": result.advance}
            models = {role: graph for role, graph in graphs.items() if graph is not None}
            parts = SplitGraphs(models, result, "", model, result.input, result.window)
        else:
            parts = SplitGraphs({"full": model}, None, result.why_not, model, first.name, window)
    if request.precision != "fp32":
        _check_fp32_layers(parts, request)
    return parts


def _check_fp32_layers(parts: SplitGraphs, request: BuildRequest) -> None:
    fitting = {
        pattern
        for role, graph in parts.models.items()
        for pattern in _fp32_layers(role, graph, request)
    }
    for pattern in request.fp32_layers:
        if pattern in fitting:
            continue
        fp32_nodes(_cells(parts.source, request), (pattern,))  # raises, with names that are near
        raise PrecisionError(
            f"--keep {pattern!r}: the split rewrote it; name its operator, or use --no-split"
        )


def _cells(graph: ModelProto, request: BuildRequest) -> ModelProto:
    """The graph as `convert` will see it, for matching patterns."""
    if request.precision == "fp16" and "cell" not in request.fp32_layers:
        return decompose_recurrent(graph, frozenset(node.name for node in graph.graph.node))
    try:
        return decompose_recurrent(graph)
    except PrecisionError:  # `convert` says what is wrong, knowing which layers are kept whole
        return decompose_recurrent(graph, frozenset(node.name for node in graph.graph.node))


def _fp32_layers(role: str, graph: ModelProto, request: BuildRequest) -> tuple[str, ...]:
    """The patterns that this part has layers for: a name may lie in `pre` or in `step` only."""
    fitting = []
    cells = _cells(graph, request)
    for pattern in request.fp32_layers:
        if pattern == "head" and role not in ("full", "step"):
            continue  # what `pre` and `advance` put out is no head
        whole = {node.name for node in graph.graph.node} | {n.op_type for n in graph.graph.node}
        try:
            fp32_nodes(cells, (pattern,))
        except PrecisionError:
            if pattern not in whole:
                continue
        fitting.append(pattern)
    return tuple(fitting)


def make_feeds(parts: SplitGraphs, windows: Array, batch: int = 32) -> dict[str, list[Feed]]:
    """Representative inputs for every part; the states come from the float32 `pre`.

    Args:
        parts: the graphs.
        windows: float32 [n, T, F].
        batch: how many windows at once, where the model's batch is open.
    """
    whole = OrtGraph(parts.source)
    size = whole.batch if isinstance(whole.batch, int) else batch
    cut = [windows[i : i + size] for i in range(0, len(windows), size)]
    if parts.result is None:
        return {"full": [{parts.window_input: part} for part in cut]}
    r = parts.result
    feeds: dict[str, list[Feed]] = {"pre": [], "step": [], "advance": []}
    pre = OrtGraph(parts.models["pre"]) if "pre" in parts.models else None
    for part in cut:
        known: Feed = {r.known: np.ascontiguousarray(part[:, :-1])}
        states = pre.run(known) if pre else {}
        feeds["pre"].append(known)
        feeds["step"].append({r.newest: np.ascontiguousarray(part[:, -1:]), **states})
    if "advance" in parts.models:
        feeds["advance"] = _advance_feeds(parts, feeds["step"], windows[-1])
    return feeds


def _advance_feeds(parts: SplitGraphs, steps: list[Feed], window: Array) -> list[Feed]:
    """Inputs of `advance`: along one window row by row, or those of `step` for carried states."""
    r = parts.result
    if r is None or not r.bank:
        return steps
    session = OrtGraph(parts.models["advance"])
    bank: Feed = {entry.name: entry.start for entry in r.bank}
    feeds: list[Feed] = []
    for row in window:
        feed: Feed = {r.newest: row[np.newaxis, np.newaxis], **bank}
        feeds.append(feed)
        out = session.run(feed)
        bank = {entry.name: out[entry.following] for entry in r.bank}
    return feeds


def _lower(
    graph: ModelProto,
    fp32_layers: tuple[str, ...],
    request: BuildRequest,
    feeds: Sequence[Feed],
    targets: tuple[str, ...],
    stored: Calibration | None,
) -> Converted:
    """A part in the precision asked for; float32 where it holds nothing that can be quantised."""
    if request.precision in _CALIBRATED:
        cells = _cells(graph, request)
        whole = [p for p in fp32_layers if p in {node.name for node in graph.graph.node}]
        patterns = [p for p in fp32_layers if p not in whole]
        if not quantisable(cells, fp32_nodes(cells, patterns)):
            return convert(graph, "fp32")
    return convert(graph, request.precision, fp32_layers, feeds, request.method, targets, stored)


def _own_scales(calibration: Calibration, role: str) -> Calibration:
    """The scales of one part, by tensor."""
    scales = {
        name.removeprefix(f"{role}:"): scale
        for name, scale in calibration.scales.items()
        if name.startswith(f"{role}:")
    }
    return calibration.model_copy(update={"scales": scales})


def build_part(
    role: str,
    parts: SplitGraphs,
    request: BuildRequest,
    builder: EngineBuilder,
    feeds: Sequence[Feed],
    progress: Report | None,
) -> BuiltEngine:
    """Lower one part to its precision and build it.

    Raises:
        PrecisionError, BuildError: with the layer's name.
    """
    started = time.perf_counter()
    graph = parts.models[role]
    fp32_layers = _fp32_layers(role, graph, request)
    stored = None if request.stored is None or feeds else _own_scales(request.stored, role)
    told = not builder.typed and request.precision not in _CALIBRATED
    if told:  # the graph stays as it is, and the builder chooses layer by layer
        lowered = convert(graph, "fp32")
    else:
        lowered = _lower(graph, fp32_layers, request, feeds, builder.targets(), stored)
    if request.sparse:
        cells = decompose_recurrent(graph)
        check_sparse(cells, fp32_nodes(cells, fp32_layers))
    inputs = tensor_infos(lowered.model.graph.input)
    order = EngineOrder(
        model=lowered.model,
        data=lowered.model.SerializeToString(deterministic=True),
        inputs=inputs,
        kind=model_kind(parts.source),
        profiles=tuple(_own_profiles(inputs, parts, request)),
        workspace=request.workspace,
        precision="fp32" if builder.typed else request.precision,
        level=request.level,
        sparse=request.sparse,
        refit=request.refit,
        version_compatible=request.version_compatible,
        timing_cache=request.timing_cache,
        split=request.split,
        stateful=request.stateful,
    )
    engine = builder.build(order, _phase_of(progress, role))
    info = EngineInfo(
        role=role,  # type: ignore[arg-type]
        payload=f"{role}.{builder.suffix}",
        format=builder.format,
        inputs=inputs,
        outputs=tensor_infos(lowered.model.graph.output),
        profiles=engine.profiles,
        layers_before=engine.layers_before,
        layers_after=engine.layers_after,
        precision=dict.fromkeys(lowered.layers, request.precision) if told else lowered.layers,
    )
    spent = time.perf_counter() - started
    return BuiltEngine(info, engine, lowered.model, lowered.calibration, spent)


def _phase_of(progress: Report | None, role: str) -> Phase | None:
    if progress is None:
        return None
    return lambda phase, done, total: progress(role, phase, done, total)


def _own_profiles(
    inputs: Sequence[TensorInfo], parts: SplitGraphs, request: BuildRequest
) -> list[str]:
    """The user's profiles, said of the window input, for a part's own first input."""
    if not any(isinstance(size, str) for info in inputs for size in info.shape):
        return []
    texts = []
    for text in request.profiles:
        name, equals, rest = text.partition("=")
        if parts.result is not None and name == parts.window_input:
            bounds = [bound.split("x")[0] for bound in rest.split(":")]
            text = f"{inputs[0].name}{equals}{':'.join(bounds)}"
        texts.append(text)
    return texts
