"""The handle's functions of a stream that shares a mailbox with others (`host.batch`).

`submit` writes the row into the message at hand, which goes at once where the engine is free. While
it is not, rows gather there, and whoever comes by next (a `submit`, a `poll`, an `advance`) sends
them when it is: nothing waits for more rows to come.

A context is an int64 array, one for each stream, that points to one for all; the constants below
are their columns. As in `kernels`, nothing waits, and row memory is only written. A row for which
there is no room is dropped, and the stream's next one says *reset*.
"""

from tickrt.compile.codes import (
    BATCH_FLAGS,
    BATCH_MEMBER,
    BATCH_REPLIES,
    BATCH_SEQ,
    BATCH_VALUES,
    ENGINE_FAILED,
    ENGINE_STALE,
    MAIL_ANSWER,
    MAIL_COUNT,
    MAIL_RESET,
    MAIL_ROWS,
    MAIL_STAMP,
    OK,
    PENDING,
    REPLY_STAMP,
    RING_FULL,
)
from tickrt.compile.intrinsics import call1, load_acquire, load_i64, store_i64, store_release
from tickrt.compile.jit import kernel
from tickrt.runtime.backends.mailbox.kernels import WRITTEN_ANEW, copy_reply, copy_words

# Columns of a stream's context, as byte offsets.
GROUP = 0  # address of the context of all
MEMBER = 8
STAMP = 16  # address of the handle's stamp
OUTPUT = 24  # address of the handle's output
RING = 32  # address of the stream's mirrored ring of rows
WINDOW = 40  # T
REPLIES = 48  # address of the stream's first reply
LAST = 56  # row that was sent last
RESET = 64  # 1: the next row has the flag
DROPPED = 72  # rows that found no room
REFUSED = 80  # error of the last reply that had one
CTX_BYTES = 88

# Columns of the context of all.
MAIL = 0  # address of the first message
MAIL_BYTES = 8
MASK = 16  # slots − 1
ROW_BYTES = 24  # 4·F
ROW_STRIDE = 32  # from a row of a message to the next
MAX_BATCH = 40
REPLY_BYTES = 48
OUTPUT_BYTES = 56
FENCE = 64  # address of a fence, 0: none is needed
TAKEN_AT = 72  # address of the count of messages that the host is done with
ERROR_AT = 80  # address of the word that is not 0 when the engine has failed
GONE_AT = 88  # address of the word that is not 0 when the host has died
MESSAGES = 96  # messages sent
TAKEN = 104  # of them done with, when last looked at
GATHERED = 112  # rows in the message at hand
GROUP_BYTES = 120


@kernel
def is_gone(group):
    """The engine has failed for good, or its host has died."""
    failed = load_acquire(load_i64(group + ERROR_AT)) | load_acquire(load_i64(group + GONE_AT))
    return failed != 0


@kernel
def under_way(group, most):
    """Messages that the host is not done with; looked up anew where they seem to be over `most`."""
    sent = load_i64(group + MESSAGES)
    if sent - load_i64(group + TAKEN) > most:
        store_i64(group + TAKEN, load_acquire(load_i64(group + TAKEN_AT)))
    return sent - load_i64(group + TAKEN)


@kernel
def message_at_hand(group):
    """Address of the slot that rows gather in."""
    place = load_i64(group + MESSAGES) & load_i64(group + MASK)
    return load_i64(group + MAIL) + place * load_i64(group + MAIL_BYTES)


@kernel
def fence(group):
    """What is stored so far is seen before what comes."""
    if load_i64(group + FENCE) != 0:
        call1(load_i64(group + FENCE), 0)


@kernel
def send(group):
    """The message at hand goes."""
    slot, number = message_at_hand(group), load_i64(group + MESSAGES) + 1
    store_i64(slot + MAIL_COUNT, load_i64(group + GATHERED))
    fence(group)
    store_release(slot + MAIL_STAMP, number)
    fence(group)
    store_i64(group + MESSAGES, number)
    store_i64(group + GATHERED, 0)


@kernel
def send_if_free(group):
    """What has gathered goes, where the engine is free."""
    if load_i64(group + GATHERED) > 0 and under_way(group, 0) == 0:
        send(group)


@kernel
def gather(ctx, seq, flags):
    """Row `seq`, from where it lies in its stream's ring, into the message at hand. A Code."""
    group = load_i64(ctx + GROUP)
    if is_gone(group):
        return ENGINE_FAILED
    store_i64(ctx + LAST, seq)
    count, slots = load_i64(group + GATHERED), load_i64(group + MASK) + 1
    if count == 0 and under_way(group, slots - 1) >= slots:
        store_i64(ctx + DROPPED, load_i64(ctx + DROPPED) + 1)
        store_i64(ctx + RESET, 1)
        return RING_FULL
    if load_i64(ctx + RESET) != 0:
        flags |= MAIL_RESET
        store_i64(ctx + RESET, 0)
    size, stride = load_i64(group + ROW_BYTES), load_i64(group + ROW_STRIDE)
    place = message_at_hand(group) + MAIL_ROWS + count * stride
    store_i64(place + BATCH_MEMBER, load_i64(ctx + MEMBER))
    store_i64(place + BATCH_SEQ, seq)
    store_i64(place + BATCH_FLAGS, flags)
    source = load_i64(ctx + RING) + (seq % load_i64(ctx + WINDOW)) * size
    copy_words(source, place + BATCH_VALUES, size)  # the ring's second half lies behind an odd row
    store_i64(group + GATHERED, count + 1)
    if count + 1 == load_i64(group + MAX_BATCH):
        send(group)
    else:
        send_if_free(group)
    return OK


def batch_submit(ctx, seq, n):
    """Row `seq`'s answer is wanted."""
    return gather(ctx, seq, MAIL_ANSWER)


def batch_poll(ctx, seq):
    """OK when the reply to row `seq` is here; its values are in the handle's output then."""
    group = load_i64(ctx + GROUP)
    send_if_free(group)
    slot = load_i64(ctx + REPLIES) + (seq % BATCH_REPLIES) * load_i64(group + REPLY_BYTES)
    stamp = load_acquire(slot + REPLY_STAMP)
    if stamp != seq:
        if is_gone(group):
            return ENGINE_FAILED
        return ENGINE_STALE if stamp > seq or load_i64(ctx + LAST) > seq else PENDING
    error = copy_reply(slot, seq, load_i64(ctx + OUTPUT), load_i64(group + OUTPUT_BYTES))
    if error == WRITTEN_ANEW:
        return PENDING
    if error != 0:
        store_i64(ctx + REFUSED, error)
        return ENGINE_FAILED
    store_release(load_i64(ctx + STAMP), seq)
    return OK


def batch_advance(ctx, seq):
    """The host advances by itself after an answer; a row that was not submitted is sent here."""
    if load_i64(ctx + LAST) == seq:
        send_if_free(load_i64(ctx + GROUP))
        return OK
    return gather(ctx, seq, 0)


def batch_reset(ctx):
    """The stream's next row tells the host."""
    store_i64(ctx + RESET, 1)
    return OK
