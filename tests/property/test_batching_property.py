"""Random bursts of many streams on one mailbox: the answers of each stream alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.batching import Shared
from helpers.engine_zoo import ZOO, F, T
from helpers.programs import checked, program
from tickrt.errors import Code, EngineError
from tickrt.host.kernels.onnx_windows import WindowKernel
from tickrt.host.kernels.reference import ReferenceKernel
from tickrt.host.kernels.registry import BatchKernel, OneByOne
from tickrt.program import StreamProgram, from_bytes, to_bytes
from tickrt.program.reference import Reference

MEMBERS = 6
MODEL = checked(ZOO["mlp"]())


def whole() -> StreamProgram:
    made = program(MODEL, "whole")
    assert made is not None
    return made


PROGRAM = to_bytes(whole())


def one_by_one(max_batch: int) -> BatchKernel:
    return OneByOne([ReferenceKernel(PROGRAM) for _ in range(MEMBERS)])


def windows(max_batch: int) -> BatchKernel:
    return WindowKernel(MODEL.content, T, F, MEMBERS, max_batch, 1)


# One moment: who ticks, and for each how (wants an answer, was reset before, has lost a row).
MOMENT = st.lists(
    st.tuples(st.integers(0, MEMBERS - 1), st.sampled_from(["answer"] * 6 + ["reset", "gap", ""])),
    max_size=2 * MEMBERS,
)


class Alone:
    """A stream on a reference of its own: what it is told, and what it says to a row."""

    def __init__(self) -> None:
        self.engine, self.seq = Reference(from_bytes(PROGRAM)), 0

    def answer(self, row: np.ndarray, wanted: bool) -> np.ndarray | None:
        found = None
        if wanted:
            try:
                found = self.engine.submit(self.seq, row)
            except EngineError:
                found = None
        self.engine.advance(self.seq, row)
        return found


def play(
    make: Callable[[int], BatchKernel], max_batch: int, moments: list[Any], seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(found, expected) of every answer; what has none has none on both sides."""
    shared = Shared(make(max_batch), MEMBERS, T, F, max_batch)
    alone = [Alone() for _ in range(MEMBERS)]
    rng, pairs = np.random.default_rng(seed), []
    warm = [[(m, "") for m in range(MEMBERS)]] * (T - 1)
    try:
        for moment in warm + moments:
            waiting: dict[int, tuple[int, np.ndarray | None]] = {}
            for member, how in moment:
                if member in waiting:  # as the loop: its batch has landed before the next
                    pairs += land(shared, member, *waiting.pop(member))
                stream = alone[member]
                stream.seq += 2 if how == "gap" else 1
                row = rng.normal(size=F).astype(np.float32)
                if how == "reset":
                    shared.reset(member)
                    stream.engine.reset()
                expected = stream.answer(row, how != "")
                if how == "":
                    assert shared.advance(member, stream.seq, row) == Code.OK
                else:
                    assert shared.submit(member, stream.seq, row) == Code.OK
                    waiting[member] = stream.seq, expected
                if rng.random() < 0.3:
                    shared.turn()
            for member, (seq, expected) in waiting.items():
                pairs += land(shared, member, seq, expected)
        assert shared.server.served.rows_max <= max_batch
    finally:
        shared.close()
    return pairs


def land(
    shared: Shared, member: int, seq: int, expected: np.ndarray | None
) -> list[tuple[np.ndarray, np.ndarray]]:
    for _ in range(100):
        code = shared.poll(member, seq)
        if code != Code.PENDING:
            break
        shared.turn()
    assert code == (Code.ENGINE_FAILED if expected is None else Code.OK)
    return [] if expected is None else [(shared.outputs(member), expected)]


CASES = given(
    max_batch=st.sampled_from([1, 2, 3, 8]),
    moments=st.lists(MOMENT, min_size=1, max_size=12),
    seed=st.integers(0, 2**16),
)


@settings(max_examples=40, deadline=None)
@CASES
def test_programs_answer_as_each_alone(max_batch: int, moments: list[Any], seed: int) -> None:
    for found, expected in play(one_by_one, max_batch, moments, seed):
        np.testing.assert_array_equal(found, expected)


@settings(max_examples=40, deadline=None)
@CASES
def test_windows_answer_as_each_alone(max_batch: int, moments: list[Any], seed: int) -> None:
    for found, expected in play(windows, max_batch, moments, seed):
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("make", [one_by_one, windows])
def test_a_row_that_is_no_number_touches_no_other(make: Callable[[int], BatchKernel]) -> None:
    answers = []
    for bad in (False, True):
        shared = Shared(make(8), MEMBERS, T, F, 8)
        rng = np.random.default_rng(3)
        for seq in range(1, T + 1):
            rows = rng.normal(size=(MEMBERS, F)).astype(np.float32)
            if bad and seq == T:
                rows[2] = np.nan
            for member in range(MEMBERS):
                if seq < T:
                    shared.advance(member, seq, rows[member])
                else:
                    shared.submit(member, seq, rows[member])
            while shared.turn():
                shared.poll(0, seq)
        assert all(shared.poll(member, T) == Code.OK for member in range(MEMBERS))
        answers.append(np.array([shared.outputs(member) for member in range(MEMBERS)]))
        shared.close()
    good = np.arange(MEMBERS) != 2
    assert np.isnan(answers[1][2]).all()
    np.testing.assert_array_equal(answers[0][good], answers[1][good])
