"""What a resident kernel will cost, without a GPU: `estimate(program)` → `Estimate`.

Cycles of every part of the step, from the schedule, with constants that were fitted to what
profiled builds measured on an H100; a test holds it within 25 % of the zoo's measured p50.

Known limits: one card's figures; the mailbox's own time is that of rows in GPU memory, with nothing
else on the machine. What an advance costs is not estimated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from tickrt.engines.resident.compile import forms
from tickrt.engines.resident.kernel import generate
from tickrt.engines.resident.schedule import THREADS, Local, Schedule, Stage, schedule, work
from tickrt.engines.resident.stages import weights_per_thread
from tickrt.engines.translate.builder import TranslateError
from tickrt.program import Contract, For, StreamProgram

__all__ = ["Estimate", "Part", "estimate"]

# Fitted to profiled runs on an NVIDIA H100 80GB HBM3 (see `benchmarks/resident.py --profile`).
MHZ: Final = 1980.0
_FLOOR_US, _FLOOR_US_PER_COLUMN = 1.75, 0.0011  # mailbox there and back, without a step
_EXCHANGE_ALL, _EXCHANGE_ONE, _EXCHANGE_WEIGHT = 850.0, 400.0, 20.0  # a shared stage
_SKEW = 300.0  # blocks see a row one after the other
_STAGE, _STAGE_WEIGHT = 450.0, 8.0
_TINY, _TINY_FOLD = 560.0, 0.8  # a run of tiny operations, with a product of so many inputs
_LOCAL, _LOCAL_TURN = 340.0, 6.0  # an operation by all threads; each of its turns


@dataclass(frozen=True)
class Part:
    """One part of the step: what it is, and its cycles."""

    label: str
    where: str
    cycles: float


@dataclass(frozen=True)
class Estimate:
    """What a step costs.

    Attributes:
        blocks: multiprocessors.
        parts: in order.
        floor_us: what the mailbox takes, without a step.
        on_path_us: from the store of a row to its answer, p50.
    """

    blocks: int
    parts: tuple[Part, ...]
    floor_us: float

    @property
    def cycles(self) -> float:
        """Of the whole step."""
        return sum(part.cycles for part in self.parts)

    @property
    def on_path_us(self) -> float:
        """From the store of a row to its answer, p50."""
        return self.floor_us + self.cycles / MHZ


def _stage(stage: Stage, blocks: int, first: bool) -> Part:
    held = weights_per_thread(stage, blocks)
    label = stage.last.label or stage.pieces[0].contract.label
    if not stage.shared:
        return Part(label, "one block", _STAGE + _STAGE_WEIGHT * held)
    exchange = _EXCHANGE_ALL if stage.everywhere else _EXCHANGE_ONE
    cycles = exchange + _EXCHANGE_WEIGHT * held + (_SKEW if first else 0.0)
    return Part(label, f"{blocks} blocks", cycles)


def _local(item: Local) -> Part:
    op = item.operation
    turns = math.ceil(work(op) / THREADS)
    count = op.count if isinstance(op, For) else 1
    return Part(op.label, "one block", count * _LOCAL + _LOCAL_TURN * turns)


def _tiny(run: list[Local]) -> Part:
    folds = [math.prod(i.operation.folds) for i in run if isinstance(i.operation, Contract)]
    share = min(1.0, len(run) / 5)  # a softmax with its product is five operations
    cycles = _TINY * share + _TINY_FOLD * sum(folds)
    return Part(run[-1].operation.label, "one warp", cycles)


def _fitting(program: StreamProgram, blocks: int | None) -> Schedule:
    """The schedule of the first form that fits, as the build takes it; what none does, says why."""
    problem: TranslateError | None = None
    for count, shared_from, kept in forms(program, blocks):
        try:
            generate(program, count, 64, False, shared_from, kept)
        except TranslateError as error:
            problem = error
            continue
        return schedule(program, count, 64, False, shared_from, kept)
    assert problem is not None  # there is a form
    raise problem


def estimate(program: StreamProgram, blocks: int | None = None) -> Estimate:
    """What the step of a program costs on a Hopper GPU.

    Raises:
        TranslateError: it cannot run there; says why.
    """
    plan = _fitting(program, blocks)
    count = plan.blocks
    parts: list[Part] = []
    run: list[Local] = []
    first = True
    for item in [*plan.step, None]:
        if isinstance(item, Local) and item.tiny:
            run.append(item)
            continue
        if run:
            parts.append(_tiny(run))
            run = []
        if isinstance(item, Stage):
            parts.append(_stage(item, count, first and item.shared))
            first = first and not item.shared
        elif isinstance(item, Local):
            parts.append(_local(item))
    floor = _FLOOR_US + _FLOOR_US_PER_COLUMN * program.width
    return Estimate(count, tuple(parts), floor)
