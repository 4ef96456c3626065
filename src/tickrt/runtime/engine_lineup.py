"""Which engines run a model on this machine, side by side: backends, peers and the floors.

Entry points: `check_names` (before the work), `compare(source, names, …)`, `kernel_feed`.

Invariants: what cannot be measured here is an entry with the reason, never a failure of the run.
What is on a GPU is opened, measured and closed by itself: two processes with work on one GPU take
turns on it, and a persistent kernel always has some.
"""

from __future__ import annotations

import ctypes.util
import difflib
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from tickrt import backends
from tickrt.config import SessionConfig
from tickrt.engines.graph.check import LoopModel
from tickrt.engines.split.plan import plan
from tickrt.errors import ConfigError, TickrtError
from tickrt.observe.machine import machine_info
from tickrt.observe.nvml import read_gpus
from tickrt.runtime.backends.handle import Engine, RowRing
from tickrt.runtime.backends.null import NullEngine
from tickrt.runtime.engine_bench import Feed, Runner, Stream, side_by_side
from tickrt.runtime.engine_child import ChildRunner
from tickrt.runtime.engine_floors import KINDS
from tickrt.runtime.engine_peers import PEERS, Skipped
from tickrt.runtime.model_source import Source

if TYPE_CHECKING:
    from tickrt.engines.resident.compile import Built
    from tickrt.program import StreamProgram

__all__ = ["DEFAULT_NAMES", "FLOORS", "check_names", "compare", "kernel_feed"]

LAUNCHES = {f"empty {kind}": kind for kind in KINDS}
FLOORS = ("null", "echo", *LAUNCHES)
DEFAULT_NAMES = ("onnxruntime", "native", "resident", "tensorrt", *PEERS)
_CUDA = ("cuda", *PEERS)  # floors and peers that run on a GPU where there is one


class _Entry(NamedTuple):
    name: str
    backend: str
    open: Callable[[], Runner]


def check_names(names: Iterable[str]) -> tuple[str, ...]:
    """`names`, each once and without the floors, which are always measured.

    Raises:
        ConfigError: there is no such backend or peer; lists those that there are.
    """
    known = [*backends.names(), *PEERS]
    for name in names:
        if name not in (*known, *FLOORS):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ConfigError(
                f"--backends: unknown backend {name!r}: {hint}there are {', '.join(known)}"
            )
    return tuple(name for name in dict.fromkeys(names) if name not in FLOORS)


def kernel_feed(
    model: LoopModel,
    program: StreamProgram,
    built: Built,
    memory: str,
    *,
    core: int | None = None,
) -> Feed:
    """A resident kernel of `program`, in a host of its own, its rows in that kind of memory.

    Args:
        core: of the thread that will feed it; the host keeps away from it.

    Raises:
        TickrtError: the host does not start, or the GPU refuses the kernel; says why.
    """
    from tickrt.host.cores import cores_beside
    from tickrt.host.process import HostProcess
    from tickrt.runtime.backends.mailbox.engine import MailboxEngine
    from tickrt.runtime.backends.resident import parcel_of

    parcel = parcel_of(model.name, built, program)

    def make(ring: RowRing) -> Engine:
        host = HostProcess(cores=cores_beside(core))
        return MailboxEngine("resident", model, ring, host, parcel, memory, direct=True)

    return Feed(program.window, program.width, make)


def _echo(width: int, window: int) -> Runner:
    """The echo on this machine's GPU, its rows in the quickest memory that there is."""
    from tickrt.engines.resident.compile import build
    from tickrt.engines.resident.echo import echo
    from tickrt.host.memory.registry import AUTO, ORDINARY, choose

    if why := backends.probe("resident").runs:
        raise Skipped(why)
    if width < 3:
        raise Skipped(f"it sends three numbers of a row back, and rows have {width}")
    program, memory = echo(width, window), choose(AUTO)
    model = LoopModel("echo", b"", "", "rows", "echo", window, width, program.outputs, {})
    built = build(program, one_poller=memory == ORDINARY)
    return kernel_feed(model, program, built, memory)


def _launches(kind: str) -> Runner:
    """Empty launches, in a process that may call CUDA."""
    if ctypes.util.find_library("cuda") is None:  # before one is started
        raise Skipped("no CUDA driver here (libcuda.so.1)")
    return ChildRunner("tickrt.runtime.engine_floors:open_floor", kind)


def _backend(name: str, source: Source, split: bool) -> Runner:
    """A backend's engine, split or whole.

    Raises:
        Skipped: it cannot run the model here, or not so.
        TickrtError: what its `load` raises.
    """
    if why := backends.probe(name).runs:
        raise Skipped(why)
    if name == "onnxruntime" and split and not (found := plan(source.model)).usable:
        raise Skipped(f"the model runs whole: {found.why_not}")
    settings = SessionConfig(data=(source.path,), backend=name, split=split)
    model = source.model
    feed = Feed(model.window, model.width, lambda ring: backends.load(name, source, ring, settings))
    if instead := feed.describe().get("why_not_native"):
        feed.close()
        raise Skipped(f"it would run in onnxruntime: {instead}")
    return feed


def _entries(source: Source, names: Sequence[str]) -> list[_Entry]:
    model = source.model
    entries = [_Entry("null", "null", lambda: Feed(model.window, model.width, _null))]
    for name in names:
        if name in PEERS:
            entries.append(_Entry(name, name, partial(PEERS[name], model)))
        elif name == "onnxruntime":
            for label, split in (("whole", False), ("split", True)):
                run = partial(_backend, name, source, split)
                entries.append(_Entry(f"{name} {label}", name, run))
        else:
            entries.append(_Entry(name, name, partial(_backend, name, source, True)))
    return entries


def _null(ring: RowRing) -> Engine:
    return NullEngine()


def compare(
    source: Source,
    names: Sequence[str],
    *,
    seconds: float,
    gap_us: float,
    report: Callable[[float, float], None],
) -> list[dict[str, Any]]:
    """Every engine of `names` on the same rows, by turns; the floors first: the handle alone, the
    echo, empty launches.

    Args:
        source: an ONNX model.
        names: of backends and peers, as `check_names` gives them.
        seconds: how long, per engine.
        gap_us: between two rows, in µs.
        report: is told what share is done: (done, total).

    Returns:
        by engine, plain data: ``engine`` (its name here), ``backend``, ``floor``; then either
        ``skipped`` (why), or ``where`` (processor or card), ``about`` (what it says of itself) and
        what `engine_bench.side_by_side` found.

    Raises:
        ModelError, EngineError: ONNX Runtime, which all are compared with, cannot run the model.
    """
    stream = Stream(source.model)
    model = source.model
    found: list[dict[str, Any]] = []
    echo = _Entry("echo", "resident", partial(_echo, model.width, model.window))
    launches = [_Entry(name, "cuda", partial(_launches, kind)) for name, kind in LAUNCHES.items()]
    entries = _entries(source, names)
    for group in ([echo], launches, *_groups(entries)):
        found += _side_by_side(group, stream, seconds, gap_us, report)
    # The handle's own cost comes first, then the other floors, then what was asked for, in order.
    order = ["null", *FLOORS[1:], *(entry.name for entry in entries[1:])]
    return sorted(found, key=lambda entry: order.index(entry["engine"]))


def _on_gpu(backend: str) -> bool:
    return backend in _CUDA or (backend in backends.names() and backends.on_gpu(backend))


def _groups(entries: Sequence[_Entry]) -> list[list[_Entry]]:
    """Those that can be open together."""
    gpu = ctypes.util.find_library("cuda") is not None
    alone = [entry for entry in entries if gpu and _on_gpu(entry.backend)]
    return [[entry for entry in entries if entry not in alone], *([entry] for entry in alone)]


def _side_by_side(
    entries: Sequence[_Entry],
    stream: Stream,
    seconds: float,
    gap_us: float,
    report: Callable[[float, float], None],
) -> list[dict[str, Any]]:
    """One group, open together; what it opened is closed whatever comes."""
    with ExitStack() as opened:
        runners: dict[str, Runner] = {}
        skipped: dict[str, str] = {}
        for entry in entries:
            try:
                runners[entry.name] = runner = entry.open()
                opened.callback(runner.close)
            except TickrtError as error:
                skipped[entry.name] = str(error)
        scores = side_by_side(
            runners, stream, seconds=seconds, gap_us=gap_us, floors=FLOORS, report=report
        )
        about = {name: runner.describe() for name, runner in runners.items()}
    found: list[dict[str, Any]] = []
    for name, backend, _ in entries:
        facts: dict[str, Any] = {"engine": name, "backend": backend, "floor": name in FLOORS}
        if name in skipped:
            found.append({**facts, "skipped": skipped[name]})
        else:
            on_gpu = _on_gpu(backend) and about[name].get("device") != "cpu"
            where = _card() if on_gpu else str(machine_info()["cpu"])
            found.append({**facts, "where": where, "about": about[name], **scores[name]})
    return found


def _card() -> str:
    reading = read_gpus()
    return reading.gpus[0].name if reading.gpus else f"unknown GPU: {reading.problem}"
