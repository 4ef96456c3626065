"""The loop's side of a mailbox, against a host that this file plays: every fault of an answer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

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
    outputs,
    stamp,
)
from tickrt.compile.intrinsics import load_i64, store_i64
from tickrt.compile.jit import c_function
from tickrt.errors import Code
from tickrt.host.mailbox import GONE, STATE, Mail, Mailbox
from tickrt.runtime.backends.mailbox import kernels as k_
from tickrt.runtime.backends.mailbox.engine import LoopSide, slots_for

F = 5


class Played:
    """A bench whose host is this process: `box` takes rows and answers."""

    def __init__(self, width: int = F) -> None:
        self.bench = Bench(lambda ring: LoopSide(ring, 3), width)  # type: ignore[arg-type, return-value]
        self.side: LoopSide = self.bench.engine  # type: ignore[assignment]
        self.table = self.bench.table
        self.box = Mailbox(self.side.layout, self.side.host.view, self.side.rows.view)  # type: ignore[arg-type]

    def row(self, seq: int) -> np.ndarray:
        row = np.arange(self.side.layout.width, dtype=np.float32) + 100 * seq
        self.bench.write(seq, row)
        return row

    def take(self) -> Mail:
        mail = self.box.take()
        assert mail is not None
        return mail


@pytest.fixture
def played() -> Iterator[Played]:
    made = Played()
    yield made
    made.side.close()


def values(*numbers: float) -> np.ndarray:
    return np.array([numbers], np.float32)


@pytest.mark.parametrize("width", [1, 4, 5, 402])
def test_every_row_arrives_once_in_order(width: int) -> None:
    played = Played(width)
    for seq in range(1, 4 * T):
        row = played.row(seq)
        if seq % 3:
            assert do_submit(played.table, seq) == Code.OK
        assert do_advance(played.table, seq) == Code.OK
        mail = played.take()
        assert (mail.seq, mail.answer, mail.reset) == (seq, bool(seq % 3), False)
        np.testing.assert_array_equal(mail.rows, row[None])
        assert played.box.take() is None
    played.side.close()


def test_a_reset_goes_with_the_next_row(played: Played) -> None:
    for seq, reset in ((1, True), (2, False), (3, True)):
        if reset:
            assert do_reset(played.table) == Code.OK
            assert do_reset(played.table) == Code.OK
        assert played.box.take() is None
        played.row(seq)
        do_advance(played.table, seq)
        assert played.take().reset == reset


def test_an_answer_is_for_its_row_alone(played: Played) -> None:
    played.row(7)
    do_submit(played.table, 7)
    assert do_poll(played.table, 7) == Code.PENDING
    played.box.reply(7, values(0.1, 0.2, 0.7))
    assert do_poll(played.table, 8) == Code.PENDING
    assert do_poll(played.table, 6) == Code.ENGINE_STALE
    assert stamp(played.table) == 0
    assert do_poll(played.table, 7) == Code.OK
    assert stamp(played.table) == 7
    assert outputs(played.table) == pytest.approx((0.1, 0.2, 0.7))


def test_delayed_and_duplicated_answers(played: Played) -> None:
    """Row 1 misses its deadline: its answer comes after row 2's, and once more later."""
    slots = played.side.layout.slots
    for seq in (1, 2):
        played.row(seq)
        do_submit(played.table, seq)
    played.box.reply(2, values(2, 2, 2))
    assert do_poll(played.table, 1) == Code.ENGINE_STALE
    assert do_poll(played.table, 2) == Code.OK
    played.box.reply(1, values(1, 1, 1))
    played.box.reply(2, values(2, 2, 2))
    played.row(3)
    do_submit(played.table, 3)
    assert do_poll(played.table, 3) == Code.PENDING
    played.box.reply(1, values(1, 1, 1))
    assert do_poll(played.table, 3) == Code.PENDING
    assert outputs(played.table) == (2, 2, 2)
    late = 3 + slots  # the slot of row 3, one round later: an answer from the future
    played.box.reply(late, values(9, 9, 9))
    assert do_poll(played.table, 3) == Code.ENGINE_STALE
    played.row(late)
    do_submit(played.table, late)
    played.box.reply(3, values(3, 3, 3))  # and from a round ago
    assert do_poll(played.table, late) == Code.PENDING
    played.box.reply(late, values(5, 6, 7))
    assert do_poll(played.table, late) == Code.OK
    assert outputs(played.table) == (5, 6, 7)


def test_an_error_is_that_rows_alone(played: Played) -> None:
    played.row(1)
    do_submit(played.table, 1)
    played.box.say("not yet")
    played.box.reply(1, None, 3)
    assert do_poll(played.table, 1) == Code.ENGINE_FAILED
    assert played.side.column(k_.REFUSED) == 3
    played.row(2)
    assert do_submit(played.table, 2) == Code.OK
    played.box.reply(2, values(1, 2, 3))
    assert do_poll(played.table, 2) == Code.OK


@pytest.mark.parametrize("how", ["failed", "gone"])
def test_a_host_that_is_no_more_fails_at_once_and_for_good(played: Played, how: str) -> None:
    for seq in (1, 2):
        played.row(seq)
        do_submit(played.table, seq)
    played.box.reply(1, values(1, 2, 3))
    if how == "failed":
        played.box.fail("it broke")
    else:
        played.box.put(GONE, 1)
    assert do_poll(played.table, 1) == Code.OK  # it was answered before
    assert do_poll(played.table, 2) == Code.ENGINE_FAILED
    sent = played.side.column(k_.MESSAGES)
    played.row(3)
    assert do_submit(played.table, 3) == Code.ENGINE_FAILED
    assert do_advance(played.table, 3) == Code.ENGINE_FAILED
    assert do_poll(played.table, 3) == Code.ENGINE_FAILED
    assert played.side.column(k_.MESSAGES) == sent


def test_a_row_without_room_is_dropped_and_the_next_one_says_reset(played: Played) -> None:
    slots = played.side.layout.slots
    for seq in range(1, slots + 1):
        played.row(seq)
        assert do_advance(played.table, seq) == Code.OK
    for seq in (slots + 1, slots + 2):
        played.row(seq)
        assert do_submit(played.table, seq) == Code.RING_FULL
        assert do_advance(played.table, seq) == Code.OK  # it is lost: not sent a second time
    assert played.side.column(k_.DROPPED) == 2
    assert [played.take().reset for _ in range(slots)] == [False] * slots
    for seq, reset in ((slots + 3, True), (slots + 4, False)):
        played.row(seq)
        assert do_submit(played.table, seq) == Code.OK
        mail = played.take()
        assert (mail.seq, mail.reset) == (seq, reset)


@pytest.mark.parametrize("mode", ["torn", "again"])
def test_an_answer_that_is_being_written_is_never_read(played: Played, mode: str) -> None:
    """Another process writes each answer in pieces, or twice with a wrong one in between."""
    side, last = played.side, 2000
    command = [sys.executable, "-m", "helpers.mailbox_writer", str(side.host.fd)]
    command += [json.dumps(side.layout.to_dict()), mode, str(last)]
    with subprocess.Popen(
        command, pass_fds=(side.host.fd,), stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        for seq in range(1, last + 1):
            played.row(seq)
            do_submit(played.table, seq)
            played.take()
            assert await_poll(played.table, seq) == Code.OK
            assert outputs(played.table) == (seq, seq, seq)
            side.box.put(STATE, seq)
    assert writer.returncode == 0


def test_memory_with_a_fence_is_fenced_around_the_stamp(played: Played) -> None:
    """The fence's function sees the row without its stamp first, then with it."""
    seen = np.zeros(4, np.int64)
    slot, at = played.side.rows.address, seen.ctypes.data

    def fence(_: int) -> int:
        count = load_i64(at)
        store_i64(at + 8 + 8 * count, load_i64(slot + 16) + 1000 * load_i64(slot))
        store_i64(at, count + 1)
        return 0

    made = c_function(fence, 1)
    played.side._ctx[k_.FENCE // 8] = made.address
    played.row(5)
    do_submit(played.table, 5)
    assert seen.tolist() == [2, 5, 1005, 0]


def test_slots_hold_the_rows_that_are_sent_without_waiting() -> None:
    for window in (1, 100, 128, 1000):
        slots = slots_for(window)
        assert slots & (slots - 1) == 0
        assert slots > 2 * window
