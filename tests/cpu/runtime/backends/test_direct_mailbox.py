"""Rows to a kernel that watches them, and its answers in pieces: every fault of either.

First this file plays the kernel; then one runs in a host (`helpers.watching_kernel`), as one on a
GPU does.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.engine_bench import (
    Bench,
    T,
    await_poll,
    do_advance,
    do_poll,
    do_reset,
    do_submit,
    stamp,
)
from helpers.small_programs import copy, program, view
from helpers.watching_kernel import KERNELS, Watcher, echo, parcel
from tickrt.compile import codes
from tickrt.errors import Code, HostError
from tickrt.host.mailbox import GONE, TAKEN, Mail
from tickrt.host.process import HostProcess
from tickrt.program import Instruction, Map, Move, StreamProgram
from tickrt.program.reference import Reference
from tickrt.runtime.backends.mailbox import kernels as k_
from tickrt.runtime.backends.mailbox.engine import LoopSide

# Row numbers around those from which a piece's 30 bits begin anew.
NUMBERS = (1, 2**30 - 2, 2**30, 2**31 - 2, 2**31, 5 * 2**30 - 3)


class Played:
    """A bench whose kernel is this process."""

    def __init__(self, width: int = 5, outputs: int = 3) -> None:
        def make(ring: Any) -> LoopSide:
            return LoopSide(ring, outputs, direct=True)

        self.bench = Bench(make, width)  # type: ignore[arg-type]
        self.side: LoopSide = self.bench.engine  # type: ignore[assignment]
        self.table = self.bench.table
        assert self.side.rows.view is not None
        assert self.side.host.view is not None
        self.kernel = Watcher(self.side.box, self.side.rows.view, self.side.host.view)

    def row(self, seq: int) -> np.ndarray:
        row = np.arange(self.side.layout.width, dtype=np.float32) + seq % 1000
        self.bench.write(seq, row)
        return row

    def submit(self, seq: int) -> int:
        self.row(seq)
        return int(do_submit(self.table, seq))

    def take(self) -> Mail:
        mail = self.kernel.take()
        assert mail is not None
        return mail

    @property
    def outputs(self) -> list[float]:
        return self.side._output[: self.side.layout.outputs].tolist()


@pytest.fixture
def played() -> Iterator[Callable[..., Played]]:
    made: list[Played] = []

    def make(*sizes: int) -> Played:
        made.append(Played(*sizes))
        return made[-1]

    yield make
    for each in made:
        each.side.close()


def values(count: int, seq: int = 0) -> np.ndarray:
    return np.arange(count, dtype=np.float32) + 1000 * (seq % 1000)


@pytest.mark.parametrize("width", [*range(1, 18), 402])
def test_every_row_arrives_once_in_order(played: Callable[..., Played], width: int) -> None:
    one = played(width)
    for seq in range(1, 4 * T):
        row = one.row(seq)
        if seq % 3:
            assert do_submit(one.table, seq) == Code.OK
        assert do_advance(one.table, seq) == Code.OK
        mail = one.take()
        assert (mail.seq, mail.answer, mail.reset) == (seq, bool(seq % 3), False)
        np.testing.assert_array_equal(mail.rows, row[None])
        assert one.kernel.take() is None


@pytest.mark.parametrize("width", [1, 2, 7])
def test_every_nan_arrives_as_one(played: Callable[..., Played], width: int) -> None:
    """All patterns but the one that means "not here", which comes as another."""
    one = played(width)
    special = [0xFFFFFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0x7FC00000, 0xFFC00000, 0x7F800001, 0xFF800001]
    words = np.random.default_rng(1).integers(0, 2**32, 200, np.uint64).astype(np.uint32)
    words[: len(special)] = special
    words[len(special) : 100] |= np.uint32(0x7F800000)
    words[100:110] = codes.EMPTY_WORD  # in both halves of a word
    for i, start in enumerate(range(0, len(words) - width, width)):
        seq, sent = i + 1, words[start : start + width]
        one.bench.rows.view(np.uint32)[seq % T] = sent
        one.bench.rows.view(np.uint32)[seq % T + T] = 0xFFFFFFFF  # behind the row: not to be sent
        assert do_submit(one.table, seq) == Code.OK
        got = one.take().rows.view(np.uint32)[0]
        wanted = np.where(sent == codes.EMPTY_WORD, np.uint32(codes.OTHER_NAN), sent)
        assert got.tolist() == wanted.tolist()
        assert np.isnan(got.view(np.float32)).tolist() == np.isnan(sent.view(np.float32)).tolist()


@pytest.mark.parametrize("outputs", range(1, 8))
def test_an_answer_in_pieces_is_whole_or_not_there(
    played: Callable[..., Played], outputs: int
) -> None:
    """Its pieces come one by one, in any order; the last one's arrival is the answer's."""
    one, rng = played(5, outputs), np.random.default_rng(outputs)
    pieces = one.side.layout.answer_pieces
    for seq in range(1, 30):
        one.submit(seq)
        for piece in rng.permutation(pieces).tolist():
            assert do_poll(one.table, seq) == Code.PENDING
            assert stamp(one.table) == seq - 1
            one.kernel.piece(seq, values(outputs, seq), piece)
        assert do_poll(one.table, seq) == Code.OK
        assert stamp(one.table) == seq
        assert one.outputs == values(outputs, seq).tolist()
        one.take()


def test_behind_the_outputs_nothing_is_written(played: Callable[..., Played]) -> None:
    for outputs in range(1, 8):
        one = played(5, outputs)
        one.submit(1)
        one.kernel.answer(1, values(9))
        one.side._output[outputs:] = -1.0
        before = one.side._output[outputs:].copy()
        assert do_poll(one.table, 1) == Code.OK
        assert len(one.side._output) % 2 == 0
        # An odd number of outputs leaves half a word: that is zero.
        np.testing.assert_array_equal(one.side._output[outputs:], 0.0 * before)


@pytest.mark.parametrize("first", NUMBERS)
def test_row_numbers_of_any_size(played: Callable[..., Played], first: int) -> None:
    one = played(5, 4)
    for seq in range(first, first + 6):
        assert one.submit(seq) == Code.OK
        assert do_poll(one.table, seq) == Code.PENDING
        assert one.take().seq == seq
        one.kernel.answer(seq, values(4, seq))
        assert do_poll(one.table, seq) == Code.OK
        assert stamp(one.table) == seq
        assert one.outputs == values(4, seq).tolist()


def test_an_answer_is_for_its_row_alone(played: Callable[..., Played]) -> None:
    one = played()
    slots = one.side.layout.slots
    for seq in (1, 2):
        one.submit(seq)
    one.kernel.answer(2, values(3, 2))
    assert do_poll(one.table, 1) == Code.ENGINE_STALE  # it comes too late
    assert do_poll(one.table, 3) == Code.PENDING
    assert stamp(one.table) == 0
    assert do_poll(one.table, 2) == Code.OK
    one.kernel.answer(1, values(3, 1))
    late = 2 + slots  # the same slot, a round later
    one.submit(late)
    assert do_poll(one.table, late) == Code.PENDING  # what is there is a round old
    one.kernel.answer(late, values(3, late))
    assert do_poll(one.table, 2) == Code.ENGINE_STALE
    assert do_poll(one.table, late) == Code.OK
    assert one.outputs == values(3, late).tolist()


@pytest.mark.parametrize("outputs", [3, 7])
def test_a_refused_row_is_refused_alone(played: Callable[..., Played], outputs: int) -> None:
    one = played(5, outputs)
    one.submit(1)
    one.kernel.answer(1, values(outputs), refused=True)
    assert do_poll(one.table, 1) == Code.ENGINE_FAILED
    assert stamp(one.table) == 0
    assert one.side.column(k_.REFUSED) == 1
    one.submit(2)
    one.kernel.answer(2, values(outputs))
    assert do_poll(one.table, 2) == Code.OK


def test_a_reset_goes_with_the_next_row(played: Callable[..., Played]) -> None:
    one = played()
    for seq, reset in ((1, True), (2, False), (3, True)):
        if reset:
            assert do_reset(one.table) == Code.OK
        assert one.kernel.take() is None
        one.submit(seq)
        assert one.take().reset == reset


def test_a_row_without_room_is_dropped_and_the_next_one_says_reset(
    played: Callable[..., Played],
) -> None:
    one = played()
    slots = one.side.layout.slots
    assert [one.submit(seq) for seq in range(1, slots + 1)] == [Code.OK] * slots
    held = one.kernel.slots.copy()
    assert one.submit(slots + 1) == Code.RING_FULL
    assert do_advance(one.table, slots + 1) == Code.OK  # it is lost: not sent a second time
    np.testing.assert_array_equal(one.kernel.slots, held)
    assert one.side.column(k_.DROPPED) == 1
    mails = [one.take() for _ in range(slots)]
    assert [mail.seq for mail in mails] == list(range(1, slots + 1))
    assert not any(mail.reset for mail in mails)
    for seq, reset in ((slots + 2, True), (slots + 3, False)):
        assert one.submit(seq) == Code.OK
        assert one.take().reset == reset


@pytest.mark.parametrize("how", ["failed", "gone"])
def test_a_host_that_is_no_more_fails_at_once_and_for_good(
    played: Callable[..., Played], how: str
) -> None:
    one = played()
    for seq in (1, 2):
        one.submit(seq)
    one.kernel.answer(1, values(3))
    if how == "failed":
        one.side.box.fail("it broke")
    else:
        one.side.box.put(GONE, 1)
    assert do_poll(one.table, 1) == Code.OK  # it was answered before
    assert do_poll(one.table, 2) == Code.ENGINE_FAILED
    assert one.submit(3) == do_advance(one.table, 3) == Code.ENGINE_FAILED
    assert one.side.column(k_.MESSAGES) == 2


# In a host.


def sums() -> StreamProgram:
    """Sums of the rows so far, by a state: what was forgotten or came twice shows."""
    newest = view("rows", 0, 1, moves=(Move("seq", 2, 0, 3),))
    added = (Instruction("load", (0,)), Instruction("load", (1,)), Instruction("add", (0, 1)))

    def add(target: str) -> Map:
        return Map((2,), (newest, view("s", 0, 1)), added, (view(target, 0, 1),), (2,))

    step = (add("output"), copy(view("s", 0, 1), view("output", 2, 1), 2))
    keep = (add("t"), copy(view("t", 0, 1), view("s", 0, 1), 2))
    return program(*step, advance=keep)


class Running:
    """A host whose kernel runs a program and watches the rows."""

    def __init__(self, made: StreamProgram, **facts: Any) -> None:
        def make(ring: Any) -> LoopSide:
            return LoopSide(ring, made.outputs, direct=True)

        self.bench = Bench(make, made.width)  # type: ignore[arg-type]
        self.side: LoopSide = self.bench.engine  # type: ignore[assignment]
        self.table = self.bench.table
        self.host = HostProcess(kernels=KERNELS)
        memories = (self.side.rows, self.side.host)
        self.host.load(parcel(made, **facts), self.side.layout, memories, self.side.box)
        self.host.start()

    def tick(self, seq: int, row: np.ndarray) -> int:
        self.bench.write(seq, row)
        code = int(do_submit(self.table, seq))
        return code if code < 0 else await_poll(self.table, seq)

    @property
    def outputs(self) -> np.ndarray:
        return self.side._output[: self.side.layout.outputs]

    def close(self) -> None:
        self.host.close()
        self.side.close()


@pytest.fixture
def running() -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def make(program: StreamProgram, **facts: Any) -> Running:
        made.append(Running(program, **facts))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize(("width", "outputs"), [(1, 7), (2, 1), (7, 4), (17, 2), (8, 6)])
@pytest.mark.parametrize("first", [1, 2**30 - 3])
def test_what_is_sent_comes_back(
    running: Callable[..., Running], width: int, outputs: int, first: int
) -> None:
    """Bit for bit, also where an answer's pieces come far apart."""
    run = running(echo(T, width, outputs), piece_s=2e-4)
    rng = np.random.default_rng(width)
    for seq in range(first, first + 40):
        words = rng.integers(0, 2**32, width, np.uint64).astype(np.uint32)
        words[rng.integers(0, width)] |= np.uint32(0x7F800000)
        assert run.tick(seq, words.view(np.float32)) == Code.OK
        wanted = words[np.arange(outputs) % width]
        assert run.outputs.view(np.uint32).tolist() == wanted.tolist()
        assert do_advance(run.table, seq) == Code.OK


def scenario(run: Running) -> str:
    """Answers wanted and not, a row that is refused, a reset: a digest of what came back."""
    digest, rng = hashlib.sha256(), np.random.default_rng(5)
    reference = Reference(sums())
    for seq in range(1, 40):
        row = rng.normal(size=2).astype(np.float32)
        if seq == 20:
            assert do_reset(run.table) == Code.OK
            reference.reset()
        run.bench.write(seq, row)
        wanted = seq % 5 and seq != 20
        if wanted:
            code = run.tick(seq, row)
            ready = reference.count >= reference.program.warm
            assert code == (Code.OK if ready else Code.ENGINE_FAILED)
            if ready:
                np.testing.assert_array_equal(run.outputs, reference.submit(seq, row))
                digest.update(run.outputs.tobytes())
        assert do_advance(run.table, seq) == Code.OK
        reference.advance(seq, row)
    return digest.hexdigest()


def test_a_program_with_states(running: Callable[..., Running]) -> None:
    run = running(sums())
    found = scenario(run)
    assert run.side.box.get(TAKEN) == 39
    assert run.host.stats()["watched"]
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from test_direct_mailbox import Running, scenario, sums\n"
        "run = Running(sums()); print(scenario(run)); run.close()"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    plain = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(command, env=plain, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == found


def test_killed_in_mid_row(running: Callable[..., Running]) -> None:
    run = running(echo(T, 3, 4), piece_s=30.0)  # one piece, then nothing
    row = np.ones(3, np.float32)
    run.bench.write(1, row)
    assert do_submit(run.table, 1) == Code.OK
    assert do_poll(run.table, 1) == Code.PENDING
    os.kill(run.host.pid, signal.SIGKILL)
    assert await_poll(run.table, 1) == Code.ENGINE_FAILED
    assert run.tick(2, row) == Code.ENGINE_FAILED
    with pytest.raises(HostError, match="was ended by signal 9"):
        run.host.stats()


def test_a_kernel_that_fails_says_so(running: Callable[..., Running]) -> None:
    run = running(echo(T, 3, 3), broken_at=2)
    row = np.ones(3, np.float32)
    assert [run.tick(1, row), run.tick(2, row)] == [Code.OK, Code.ENGINE_FAILED]
    assert run.side.box.text == "EngineError: launch failed at row 2"
    assert do_advance(run.table, 3) == Code.ENGINE_FAILED


def test_a_slot_without_an_answer_looks_like_none(played: Callable[..., Played]) -> None:
    """Also to the rows whose low 30 bits are zero."""
    one = played(2, 7)
    for seq in (2**30, 2**31, 0):
        one.submit(seq)
        assert do_poll(one.table, seq) == Code.PENDING
        one.take()
