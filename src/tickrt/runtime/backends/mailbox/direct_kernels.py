"""The handle's functions for a kernel that watches the rows themselves: the data is the flag.

A slot of the mailbox is full of `EMPTY_WORD` until each of its words is there, so the kernel needs
no second look: neither a stamp nor a fence lies between the row and its answer. A row's own NaN of
that pattern is written as another NaN. The answer comes in pieces of sixteen bytes, each with the
number of its row (`host.kernels.resident`).

The context is that of `kernels`.
"""

from tickrt.compile.codes import (
    ANSWER_REFUSED,
    EMPTY_WORD,
    ENGINE_FAILED,
    ENGINE_STALE,
    MAIL_ANSWER,
    MAIL_HEAD,
    MAIL_ROWS,
    OK,
    OTHER_NAN,
    PENDING,
    REPLY_VALUES,
    RING_FULL,
)
from tickrt.compile.intrinsics import (
    copy_piece,
    load_acquire,
    load_i64,
    store_fence,
    store_i64,
    store_release,
)
from tickrt.compile.jit import kernel
from tickrt.runtime.backends.mailbox.kernels import (
    LAST,
    MASK,
    MESSAGES,
    OUTPUT,
    OUTPUT_BYTES,
    REFUSED,
    REPLIES,
    REPLY_BYTES,
    ROW_BYTES,
    STAMP,
    begin_message,
    is_gone,
    row_of,
)

NUMBER_BITS = 30
NUMBER_MASK = (1 << NUMBER_BITS) - 1


@kernel
def shown(word):
    """Two float32 as they may be stored: neither is the pattern that means "not here"."""
    low, high = word & EMPTY_WORD, (word >> 32) & EMPTY_WORD
    if low == EMPTY_WORD:
        low = OTHER_NAN
    if high == EMPTY_WORD:
        high = OTHER_NAN
    return low | (high << 32)


@kernel
def copy_row(source, target, size):
    """`size` bytes of a row, and zeros up to a whole piece of sixteen. A piece is one store."""
    whole = size // 16 * 16
    for at in range(0, whole, 16):
        copy_piece(source + at, target + at, EMPTY_WORD, OTHER_NAN)
    for at in range(whole, size, 8):  # behind an odd row lies the ring's next one
        word = load_i64(source + at)
        store_i64(target + at, shown(word if at + 8 <= size else word & EMPTY_WORD))
    for at in range((size + 7) // 8 * 8, (size + 15) // 16 * 16, 8):
        store_i64(target + at, 0)


@kernel
def send_row(ctx, seq, flags):
    """Row `seq` as the next message. Returns a Code."""
    slot, flags = begin_message(ctx, seq, flags)
    if slot <= 0:
        return RING_FULL if slot == 0 else ENGINE_FAILED
    copy_row(row_of(ctx, seq), slot + MAIL_ROWS, load_i64(ctx + ROW_BYTES))
    store_i64(slot + MAIL_HEAD, (seq & NUMBER_MASK) | ((seq >> NUMBER_BITS) << 32))
    store_i64(slot + MAIL_HEAD + 8, flags)
    store_fence()  # sends what a write-combining buffer still holds
    store_i64(ctx + MESSAGES, load_i64(ctx + MESSAGES) + 1)
    return OK


def direct_submit(ctx, seq, n):
    """Send row `seq`; its answer is wanted."""
    return send_row(ctx, seq, MAIL_ANSWER)


def direct_poll(ctx, seq):
    """OK when every piece of the answer to row `seq` is here; the handle's output has it then."""
    slot = load_i64(ctx + REPLIES) + (seq & load_i64(ctx + MASK)) * load_i64(ctx + REPLY_BYTES)
    output, size = load_i64(ctx + OUTPUT), load_i64(ctx + OUTPUT_BYTES)
    wanted, held, count = seq & NUMBER_MASK, 0, 0
    for piece in range(slot + REPLY_VALUES, slot + REPLY_VALUES + (size + 11) // 12 * 16, 16):
        high = load_acquire(piece + 8)  # third value, number: of the piece, the last that is read
        number = (high >> 32) & EMPTY_WORD
        if number == wanted | ANSWER_REFUSED:
            store_i64(ctx + REFUSED, 1)
            return ENGINE_FAILED
        if number != wanted:
            if is_gone(ctx):
                return ENGINE_FAILED
            return ENGINE_STALE if load_i64(ctx + LAST) > seq else PENDING
        low = load_acquire(piece)
        for value in (low & EMPTY_WORD, (low >> 32) & EMPTY_WORD, high & EMPTY_WORD):
            # Two values make a word of the output.
            if count % 2 == 0:
                held = value
            else:
                store_i64(output + (count - 1) * 4, held | (value << 32))
            count += 1
            if count * 4 >= size:
                break
    if count % 2 == 1:
        store_i64(output + (count - 1) * 4, held)
    store_release(load_i64(ctx + STAMP), seq)
    return OK


def direct_advance(ctx, seq):
    """The kernel advances by itself after an answer; a row that was not submitted is sent here."""
    if load_i64(ctx + LAST) == seq:
        return OK
    return send_row(ctx, seq, 0)
