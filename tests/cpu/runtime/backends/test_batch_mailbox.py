"""Many streams, one mailbox: what goes when, whose answer it is, and every fault of one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from helpers.batching import Shared
from helpers.engine_bench import outputs, stamp
from tickrt.compile.codes import BATCH_REPLIES, MAIL_ANSWER, MAIL_RESET
from tickrt.errors import Code, ConfigError, HostError
from tickrt.host.batch import MAX_MEMBERS, BatchLayout, buckets, layout_of
from tickrt.host.mailbox import EMPTY, GONE, Layout
from tickrt.runtime.backends.handle import RowRing
from tickrt.runtime.backends.mailbox import batch_kernels as k_
from tickrt.runtime.backends.mailbox.batch import BatchSide, slots_for

MEMBERS, T, F = 5, 4, 3


@pytest.fixture(params=[F, 4, 7])
def shared(request: pytest.FixtureRequest) -> Iterator[Shared]:
    made = Shared(None, MEMBERS, T, request.param, max_batch=4)
    yield made
    made.close()


def row(shared: Shared, member: int, seq: int) -> np.ndarray:
    return np.arange(shared.side.layout.width, dtype=np.float32) + 1000 * member + 10 * seq


def submit(shared: Shared, member: int, seq: int) -> int:
    return shared.submit(member, seq, row(shared, member, seq))


def take(shared: Shared) -> list[tuple[int, int, int]]:
    """(member, row, flags) of the next message, whose rows are compared; it stays at hand."""
    mail = shared.box.look()
    assert mail is not None
    found = list(zip(mail.members.tolist(), mail.seqs.tolist(), mail.flags.tolist(), strict=True))
    for (member, seq, _), values in zip(found, mail.rows, strict=True):
        np.testing.assert_array_equal(values, row(shared, member, seq))
    return found


def reply(shared: Shared, member: int, seq: int, value: float) -> None:
    values = np.full((1, 3), value, np.float32)
    shared.box.reply_rows(np.array([member]), np.array([seq]), values)


def test_the_first_goes_alone_and_the_rest_together_when_it_is_done(shared: Shared) -> None:
    for member in (3, 0, 1):
        assert submit(shared, member, 9) == Code.OK
    assert take(shared) == [(3, 9, MAIL_ANSWER)]
    reply(shared, 3, 9, 0.5)
    assert shared.poll(3, 9) == Code.OK
    assert shared.side.shared(k_.MESSAGES) == 1  # it answers, but is not done
    shared.box.done()
    assert shared.poll(0, 9) == Code.PENDING  # whoever comes by sends what has gathered
    assert take(shared) == [(0, 9, MAIL_ANSWER), (1, 9, MAIL_ANSWER)]
    assert submit(shared, 3, 10) == Code.OK
    shared.box.done()
    assert shared.poll(3, 10) == Code.PENDING
    assert take(shared) == [(3, 10, MAIL_ANSWER)]


def test_a_full_message_goes_while_the_engine_works(shared: Shared) -> None:
    for seq in (1, 2):
        for member in range(MEMBERS):
            assert submit(shared, member, seq) == Code.OK
    found = []
    for count in (1, 4, 4):
        mail = take(shared)
        assert len(mail) == count
        found += mail
        shared.box.done()
    shared.poll(4, 2)
    found += take(shared)
    assert [(member, seq) for member, seq, _ in found] == [
        (member, seq) for seq in (1, 2) for member in range(MEMBERS)
    ]


def test_a_row_that_was_not_submitted_goes_without_a_wish_for_an_answer(shared: Shared) -> None:
    assert shared.advance(2, 1, row(shared, 2, 1)) == Code.OK
    assert take(shared) == [(2, 1, 0)]
    shared.box.done()
    submit(shared, 2, 2)
    assert shared.advance(2, 2, row(shared, 2, 2)) == Code.OK  # it is there already
    assert take(shared) == [(2, 2, MAIL_ANSWER)]
    shared.box.done()
    assert shared.box.look() is None


def test_a_reset_goes_with_the_streams_own_next_row(shared: Shared) -> None:
    shared.reset(1)
    for member, seq in ((0, 1), (1, 1), (2, 1), (1, 2)):
        submit(shared, member, seq)
    assert take(shared) == [(0, 1, MAIL_ANSWER)]
    shared.box.done()
    shared.poll(1, 1)
    flags = {(member, seq): flags for member, seq, flags in take(shared)}
    assert flags == {
        (1, 1): MAIL_ANSWER | MAIL_RESET,
        (2, 1): MAIL_ANSWER,
        (1, 2): MAIL_ANSWER,
    }


def test_an_answer_is_for_its_stream_and_row_alone(shared: Shared) -> None:
    for member in (0, 1):
        submit(shared, member, 7)
    reply(shared, 0, 7, 0.25)
    assert shared.poll(1, 7) == Code.PENDING
    assert shared.poll(0, 8) == Code.PENDING
    assert shared.poll(0, 6) == Code.ENGINE_STALE
    assert stamp(shared.tables[0]) == stamp(shared.tables[1]) == 0
    assert shared.poll(0, 7) == Code.OK
    assert outputs(shared.tables[0]) == (0.25, 0.25, 0.25)
    assert stamp(shared.tables[1]) == 0


def test_delayed_and_duplicated_answers(shared: Shared) -> None:
    """Row 1 misses its deadline: its answer comes after row 2's, and once more later."""
    late = 3 + BATCH_REPLIES  # the slot of row 3, one round later
    for seq in (1, 2):
        submit(shared, 4, seq)
    reply(shared, 4, 2, 2.0)
    assert shared.poll(4, 1) == Code.ENGINE_STALE
    assert shared.poll(4, 2) == Code.OK
    reply(shared, 4, 1, 1.0)
    reply(shared, 4, 2, 2.0)
    submit(shared, 4, 3)
    assert shared.poll(4, 3) == Code.PENDING
    reply(shared, 4, late, 9.0)
    assert shared.poll(4, 3) == Code.ENGINE_STALE
    submit(shared, 4, late)
    reply(shared, 4, 3, 3.0)
    assert shared.poll(4, late) == Code.PENDING
    assert outputs(shared.tables[4]) == (2.0, 2.0, 2.0)


def test_an_answer_that_is_being_written_is_not_there(shared: Shared) -> None:
    submit(shared, 2, 5)
    reply(shared, 2, 5, 0.5)
    slot = shared.box._replies[2 * BATCH_REPLIES + 5]
    slot["stamp"] = EMPTY
    slot["values"][1] = -1.0
    assert shared.poll(2, 5) == Code.PENDING
    reply(shared, 2, 5, 0.5)
    assert shared.poll(2, 5) == Code.OK
    assert outputs(shared.tables[2]) == (0.5, 0.5, 0.5)


def test_an_error_is_that_rows_alone(shared: Shared) -> None:
    for member in (0, 1):
        submit(shared, member, 1)
    shared.box.refuse(0, 1)
    reply(shared, 1, 1, 0.5)
    assert shared.poll(0, 1) == Code.ENGINE_FAILED
    assert shared.poll(1, 1) == Code.OK
    assert shared.side.column(0, k_.REFUSED) == 1
    assert shared.side.column(1, k_.REFUSED) == 0
    assert submit(shared, 0, 2) == Code.OK
    reply(shared, 0, 2, 0.5)
    assert shared.poll(0, 2) == Code.OK


@pytest.mark.parametrize("how", ["failed", "gone"])
def test_a_host_that_is_no_more_fails_every_stream_at_once(shared: Shared, how: str) -> None:
    for member in range(3):
        submit(shared, member, 1)
    reply(shared, 0, 1, 0.5)
    if how == "failed":
        shared.box.fail("it broke")
    else:
        shared.box.put(GONE, 1)
    assert shared.poll(0, 1) == Code.OK  # it was answered before
    for member in (1, 2):
        assert shared.poll(member, 1) == Code.ENGINE_FAILED
    for member in range(MEMBERS):
        assert submit(shared, member, 2) == Code.ENGINE_FAILED
        assert shared.advance(member, 2, row(shared, member, 2)) == Code.ENGINE_FAILED
    assert shared.side.shared(k_.MESSAGES) == 1


def test_a_row_without_room_is_dropped_and_its_streams_next_one_says_reset() -> None:
    shared = Shared(None, 2, T, F, max_batch=1)
    slots = shared.side.layout.slots
    for seq in range(1, slots + 1):
        assert submit(shared, 0, seq) == Code.OK
    assert submit(shared, 1, 1) == Code.RING_FULL
    assert shared.advance(1, 1, row(shared, 1, 1)) == Code.OK  # lost: not sent a second time
    assert (shared.side.column(0, k_.DROPPED), shared.side.column(1, k_.DROPPED)) == (0, 1)
    for seq in range(1, slots + 1):
        assert take(shared) == [(0, seq, MAIL_ANSWER)]
        shared.box.done()
    submit(shared, 0, slots + 1)
    submit(shared, 1, 2)
    assert take(shared) == [(0, slots + 1, MAIL_ANSWER)]
    shared.box.done()
    assert take(shared) == [(1, 2, MAIL_ANSWER | MAIL_RESET)]
    shared.close()


def test_more_streams_than_a_host_takes_are_refused_with_what_to_do() -> None:
    ring = RowRing(0, T, F)
    with pytest.raises(ConfigError, match=r"4097 symbols.*at most 4096.*max_batch = 1"):
        BatchSide([ring] * (MAX_MEMBERS + 1), 3, 128)
    with pytest.raises(HostError, match="expected 1 … 4096 streams, got 0"):
        BatchLayout(F, 3, members=0)


def test_sizes_travel_as_what_they_are() -> None:
    for layout in (Layout(F, 3), BatchLayout(F, 3, 8, 64, members=5)):
        found = layout_of(layout.to_dict())
        assert (found, type(found)) == (layout, type(layout))


def test_buckets_are_powers_of_two_that_hold_the_batch() -> None:
    assert buckets(1) == [1]
    assert buckets(5) == [1, 2, 4, 8]
    assert buckets(128) == [1, 2, 4, 8, 16, 32, 64, 128]


def test_slots_hold_two_windows_of_every_stream() -> None:
    for window, members, max_batch in ((1, 2, 1), (100, 128, 128), (100, 129, 128), (10, 40, 8)):
        slots = slots_for(window, members, max_batch)
        assert slots & (slots - 1) == 0
        assert slots * max_batch >= 2 * window * members
