"""The C functions behind the handle of an engine in a host process (`host.mailbox`).

A context is an int64 array; the constants below are its columns. Nothing here waits: what has no
room is dropped, what has not come is PENDING. Row memory is only written, never read: it may be the
GPU's. Of host memory a tick without an answer reads two cache lines, and `TAKEN` only when the ring
seems to be full.
"""

from tickrt.compile.codes import (
    ENGINE_FAILED,
    ENGINE_STALE,
    MAIL_ANSWER,
    MAIL_COUNT,
    MAIL_FLAGS,
    MAIL_RESET,
    MAIL_ROWS,
    MAIL_SEQ,
    MAIL_STAMP,
    OK,
    PENDING,
    REPLY_ERROR,
    REPLY_STAMP,
    REPLY_VALUES,
    RING_FULL,
)
from tickrt.compile.intrinsics import call1, load_acquire, load_i64, store_i64, store_release
from tickrt.compile.jit import kernel

# Columns of a context, as byte offsets.
STAMP = 0  # address of the handle's stamp
OUTPUT = 8  # address of the handle's output
RING = 16  # address of the stream's mirrored ring of rows
WINDOW = 24  # T
ROW_BYTES = 32  # 4·F
MAIL = 40  # address of the first message
MAIL_BYTES = 48
MASK = 56  # slots − 1, of messages and replies
REPLIES = 64  # address of the first reply
REPLY_BYTES = 72
OUTPUT_BYTES = 80
FENCE = 88  # address of a fence, 0: none is needed
TAKEN_AT = 96  # address of the count of messages that the host has taken
ERROR_AT = 104  # address of the word that is not 0 when the engine has failed
GONE_AT = 112  # address of the word that is not 0 when the host has died
MESSAGES = 120  # messages sent
TAKEN = 128  # of them taken, when last looked at
LAST = 136  # row that was sent last
RESET = 144  # 1: the next message has the flag
DROPPED = 152  # rows that found no room
REFUSED = 160  # error of the last reply that had one
CTX_BYTES = 168

WRITTEN_ANEW = -1  # no error of a reply


@kernel
def copy_words(source, target, size):
    """`size` bytes, rounded up to whole words, in order."""
    for at in range(0, size, 8):
        store_i64(target + at, load_i64(source + at))


@kernel
def fence(ctx):
    """What is stored so far is seen before what comes."""
    if load_i64(ctx + FENCE) != 0:
        call1(load_i64(ctx + FENCE), 0)


@kernel
def has_room(ctx):
    """Whether a slot is free."""
    sent, slots = load_i64(ctx + MESSAGES), load_i64(ctx + MASK) + 1
    if sent - load_i64(ctx + TAKEN) < slots:
        return True
    store_i64(ctx + TAKEN, load_acquire(load_i64(ctx + TAKEN_AT)))
    return sent - load_i64(ctx + TAKEN) < slots


@kernel
def is_gone(ctx):
    """The engine has failed for good, or its host has died."""
    failed = load_acquire(load_i64(ctx + ERROR_AT)) | load_acquire(load_i64(ctx + GONE_AT))
    return failed != 0


@kernel
def begin_message(ctx, seq, flags):
    """(address of the next message's slot, its flags): 0 where there is no room, −1 where the host
    is gone."""
    if is_gone(ctx):
        return -1, flags
    store_i64(ctx + LAST, seq)
    if not has_room(ctx):
        store_i64(ctx + DROPPED, load_i64(ctx + DROPPED) + 1)
        store_i64(ctx + RESET, 1)
        return 0, flags
    if load_i64(ctx + RESET) != 0:
        flags |= MAIL_RESET
        store_i64(ctx + RESET, 0)
    place = load_i64(ctx + MESSAGES) & load_i64(ctx + MASK)
    return load_i64(ctx + MAIL) + place * load_i64(ctx + MAIL_BYTES), flags


@kernel
def row_of(ctx, seq):
    """Where row `seq` lies in the ring."""
    size = load_i64(ctx + ROW_BYTES)
    return load_i64(ctx + RING) + (seq % load_i64(ctx + WINDOW)) * size


@kernel
def send(ctx, seq, flags, n):
    """Row `seq`, from where it lies in the ring, as the next message. Returns a Code."""
    slot, flags = begin_message(ctx, seq, flags)
    if slot <= 0:
        return RING_FULL if slot == 0 else ENGINE_FAILED
    number = load_i64(ctx + MESSAGES) + 1
    store_i64(slot + MAIL_FLAGS, flags)
    store_i64(slot + MAIL_SEQ, seq)
    store_i64(slot + MAIL_COUNT, n)
    # The ring's second half lies behind: F may be odd.
    copy_words(row_of(ctx, seq), slot + MAIL_ROWS, load_i64(ctx + ROW_BYTES))
    fence(ctx)
    store_release(slot + MAIL_STAMP, number)
    fence(ctx)
    store_i64(ctx + MESSAGES, number)
    return OK


def mail_submit(ctx, seq, n):
    """Send row `seq`; its answer is wanted."""
    return send(ctx, seq, MAIL_ANSWER, n)


@kernel
def copy_reply(slot, seq, output, size):
    """The values of the reply in a slot into the handle's output; its error, 0: none. WRITTEN_ANEW
    where they may be of two replies: look again."""
    error = load_acquire(slot + REPLY_ERROR)
    for at in range(0, size, 8):
        store_i64(output + at, load_acquire(slot + REPLY_VALUES + at))
    return error if load_acquire(slot + REPLY_STAMP) == seq else WRITTEN_ANEW


def mail_poll(ctx, seq):
    """OK when the reply to row `seq` is here; its values are in the handle's output then."""
    slot = load_i64(ctx + REPLIES) + (seq & load_i64(ctx + MASK)) * load_i64(ctx + REPLY_BYTES)
    stamp = load_acquire(slot + REPLY_STAMP)
    if stamp != seq:
        if is_gone(ctx):
            return ENGINE_FAILED
        late = stamp > seq or load_i64(ctx + LAST) > seq
        return ENGINE_STALE if late else PENDING
    error = copy_reply(slot, seq, load_i64(ctx + OUTPUT), load_i64(ctx + OUTPUT_BYTES))
    if error == WRITTEN_ANEW:
        return PENDING
    if error != 0:
        store_i64(ctx + REFUSED, error)
        return ENGINE_FAILED
    store_release(load_i64(ctx + STAMP), seq)
    return OK


def mail_advance(ctx, seq):
    """The host advances by itself after an answer; a row that was not submitted is sent here."""
    if load_i64(ctx + LAST) == seq:
        return OK
    return send(ctx, seq, 0, 1)


def mail_reset(ctx):
    """The next row tells the host."""
    store_i64(ctx + RESET, 1)
    return OK
