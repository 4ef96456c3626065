"""Several engines at once, each in a host of its own: in one loop, or each in a loop of its own.

Entry points: `plan_of` (what an engine is made of, once), `Fleet` (engines in one loop of this
process), `in_loops_of_their_own` (processes, each with one engine and its core), `loop_cores`.

Invariants: loops have cores of their own where there are enough, hosts share the rest; all loops of
a measurement begin together; every engine gets the same rows.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks._fleet_kernels import drive
from benchmarks._hot import on_core
from tickrt import backends
from tickrt.config import SessionConfig
from tickrt.engines.graph.check import LoopModel
from tickrt.engines.split.plan import plan
from tickrt.engines.translate import stream_program
from tickrt.environment import for_child
from tickrt.host.cores import cores_beside, process_cores
from tickrt.host.kernels import reference
from tickrt.host.memory import registry
from tickrt.host.parcel import Parcel
from tickrt.host.process import HostProcess
from tickrt.observe.clock import ticks_per_ns
from tickrt.program import StreamProgram, to_bytes
from tickrt.runtime.backends.handle import Engine, RowRing
from tickrt.runtime.backends.mailbox.engine import MailboxEngine
from tickrt.runtime.engine_bench import percentiles
from tickrt.runtime.model_source import Source

__all__ = ["Driven", "Fleet", "Plan", "in_loops_of_their_own", "loop_cores", "nan_of", "plan_of"]

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_US = 3e7
WARM_ROWS = 4000  # the card's clocks rise when it has work
_READY_S = 120.0


@dataclass(frozen=True)
class Plan:
    """What an engine is made of. It goes to other processes.

    Attributes:
        parcel: for a host; None: the backend `native`, in the loop's own thread.
        kernels: that the host knows besides.
        memory: of its rows.
        blocks: multiprocessors that it takes, 0 on a CPU.
    """

    backend: str
    model: LoopModel
    parcel: Parcel | None = None
    kernels: Mapping[str, str] | None = None
    memory: str = registry.ORDINARY
    blocks: int = 0

    def open(self, ring: RowRing, cores: frozenset[int], variables: Mapping[str, str]) -> Engine:
        """The engine on that ring; its host runs on `cores` with `variables`."""
        if self.parcel is None:
            path = Path(self.model.name)
            source = Source(self.model, path, self.model.sha256)
            return backends.load(  # type: ignore[no-any-return]
                self.backend, source, ring, SessionConfig(data=(path,), backend=self.backend)
            )
        found = for_child({})
        variables = {**variables, "PYTHONPATH": f"{ROOT}:{found.get('PYTHONPATH', '')}"}
        host = HostProcess(kernels=self.kernels, environment=variables, cores=cores)
        direct = self.backend == "resident"
        return MailboxEngine(
            self.backend, self.model, ring, host, self.parcel, self.memory, direct=direct
        )


def nan_of(program: StreamProgram) -> StreamProgram:
    """The same program with weights that are no numbers."""
    buffers = {
        name: replace(b, start=np.full(b.size, np.nan, np.float32)) if b.kind == "constant" else b
        for name, b in program.buffers.items()
    }
    return replace(program, buffers=buffers)


def plan_of(backend: str, model: LoopModel, *, nan: bool = False) -> Plan:
    """An engine of `model` in `backend`: native, reference or resident.

    Args:
        nan: with weights that are no numbers (not native).

    Raises:
        TickrtError, TranslateError: it cannot run so; says why.
    """
    if backend == "native":
        return Plan(backend, model)
    split = plan(model)
    program = stream_program(model, split if split.usable else None)
    if nan:
        program = nan_of(program)
    if backend == "reference":
        return Plan(backend, model, reference.parcel(model.name, to_bytes(program)))
    from tickrt.engines.resident.compile import build
    from tickrt.runtime.backends.resident import parcel_of

    memory = registry.choose(registry.AUTO)
    built = build(program, one_poller=memory == registry.ORDINARY)
    parcel = parcel_of(model.name, built, program)
    return Plan(backend, model, parcel, memory=memory, blocks=built.kernel.blocks)


def loop_cores(count: int) -> list[int | None]:
    """A core for each of `count` loops: never the first, and first those that share nothing with
    one another; None for each where there are not enough for them and a host."""
    ours = sorted(process_cores())
    free = ours[1:]
    if len(free) <= count:
        return [None] * count
    apart: list[int] = []
    for core in free:
        if all(core in cores_beside(other) for other in apart):
            apart.append(core)
    return [*apart, *(core for core in free if core not in apart)][:count]


class Driven(NamedTuple):
    """What n rows came to in E engines."""

    took: NDArray[np.int64]  # [E, n] ticks; 0: no answer was wanted
    codes: NDArray[np.int64]  # [E, n]
    outputs: NDArray[np.float32]  # [E, n, m]


class Fleet:
    """Engines of one shape in one loop of this process. A context manager.

    Args:
        plans: the engines at the beginning.
        core: of the loop.
        cores: of the hosts.
        variables: of the hosts.
        room: engines that there may be.

    Raises:
        TickrtError: one does not open.
    """

    def __init__(
        self,
        plans: Sequence[Plan],
        core: int | None,
        cores: frozenset[int],
        variables: Mapping[str, str],
        room: int = 0,
    ) -> None:
        model, count = plans[0].model, max(room, len(plans))
        self._core, self._cores, self._variables = core, cores, variables
        self._model, self._sent = model, 0
        self._rings = np.zeros((count, 2 * model.window, model.width), np.float32)
        self.engines: list[Engine] = []
        self._since: list[int] = []  # rows that came before each joined
        try:
            for one in plans:
                self.join(one)
        except BaseException:
            self.close()
            raise

    def join(self, one: Plan) -> Engine:
        """One more engine; its first answers are wanted when its window is complete."""
        at = self._rings[len(self.engines)].ctypes.data
        ring = RowRing(at, self._model.window, self._model.width)
        engine = one.open(ring, self._cores, self._variables)
        self.engines.append(engine)
        self._since.append(self._sent)
        return engine

    def leave(self) -> None:
        """The engine that came last ends."""
        self._since.pop()
        self.engines.pop().close()

    def run(
        self, rows: NDArray[np.float32], gap_us: float, deadline_us: float = PATIENCE_US
    ) -> Driven:
        """The next rows [n, F], one every `gap_us`, in a thread on the loop's core."""
        rate, count = ticks_per_ns() * 1e3, len(self.engines)
        settings = np.array([gap_us * rate, deadline_us * rate], np.int64)
        seen = self._sent - np.array(self._since, np.int64)
        wanted = np.maximum(0, self._model.window - 1 - seen)
        took, codes = np.zeros((2, count, len(rows)), np.int64)
        outputs = np.full((count, len(rows), self._model.n_outputs), np.nan, np.float32)
        tables = np.stack([engine.handle() for engine in self.engines])
        results = (took, codes, outputs)
        work = partial(drive, tables, self._rings, rows, self._sent, settings, wanted, *results)
        on_core(self._core, work)
        self._sent += len(rows)
        return Driven(took, codes, outputs)

    def close(self) -> None:
        """End all engines."""
        while self.engines:
            self.leave()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def summary(driven: Driven, skip: int, e: int = 0) -> dict[str, Any]:
    """Percentiles in µs of engine `e`, the first rows left out; how many answers were faults."""
    took, codes = driven.took[e, skip:], driven.codes[e, skip:]
    well = took[codes == 0]
    found: dict[str, Any] = {"rows": len(took), "faults": int((codes < 0).sum())}
    return {**found, **percentiles(well)} if len(well) else found


def in_loops_of_their_own(
    plan: Plan, count: int, variables: Mapping[str, str], rows: int, gap_us: float
) -> list[dict[str, Any]]:
    """`count` engines in as many processes, all fed at the same time; `summary` of each.

    Args:
        variables: of the hosts.
        rows: to each, after as many as warm it.

    Returns:
        of each loop, in order; ``failed`` where it did not come to an end.
    """
    cores = loop_cores(count)
    hosts = process_cores() - {core for core in cores if core is not None}
    loops: list[subprocess.Popen[str]] = []
    with tempfile.TemporaryDirectory(prefix="tickrt-fleet-") as folder:
        file = Path(folder) / "work"
        file.write_bytes(pickle.dumps((plan, sorted(hosts), dict(variables), rows, gap_us)))
        for core in cores:
            command = [sys.executable, "-m", "benchmarks._fleet", str(file), json.dumps(core)]
            loops.append(
                subprocess.Popen(
                    command,
                    cwd=ROOT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    stderr=subprocess.PIPE,
                )
            )
        try:
            ready = [_line(loop) == "ready" for loop in loops]
            for loop in loops:
                if all(ready):
                    _tell(loop, "go")
            return [_outcome(loop) for loop in loops]
        finally:
            for loop in loops:
                loop.kill()
                loop.wait()


def _line(loop: subprocess.Popen[str]) -> str:
    assert loop.stdout is not None
    return loop.stdout.readline().strip()


def _tell(loop: subprocess.Popen[str], word: str) -> None:
    assert loop.stdin is not None
    loop.stdin.write(f"{word}\n")
    loop.stdin.flush()


def _outcome(loop: subprocess.Popen[str]) -> dict[str, Any]:
    """What a loop printed, or the end of what it complained of."""
    try:
        out, err = loop.communicate(timeout=_READY_S)
    except subprocess.TimeoutExpired:
        return {"failed": "it did not end"}
    lines = out.strip().splitlines()
    if loop.returncode or not lines:
        return {"failed": (err.strip().splitlines() or ["the others did not start"])[-1]}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def main(arguments: Sequence[str]) -> int:
    """One loop of several: open, say so, wait for the word, feed, print."""
    file, core = Path(arguments[0]), json.loads(arguments[1])
    one, hosts, variables, rows, gap_us = pickle.loads(file.read_bytes())
    data = np.random.default_rng(0).standard_normal((rows, one.model.width), np.float32)
    with Fleet([one], core, frozenset(hosts), variables) as fleet:
        fleet.run(data[:WARM_ROWS], gap_us)
        print("ready", flush=True)
        if sys.stdin.readline().strip() == "go":
            print(json.dumps(summary(fleet.run(data, gap_us), one.model.window)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
