"""The loop of `benchmarks.native`: an engine on rows of its own, timed as the loop calls it."""

from tickrt.compile import codes
from tickrt.compile.intrinsics import call2, call3, clock
from tickrt.compile.jit import kernel


@kernel
def other_work(memory):
    """What the loop does between two ticks, seen from the caches: a line at a time."""
    for i in range(0, len(memory), 64):
        memory[i] += 1


@kernel
def store_row(ring, row, seq):
    """Row `seq` of a mirrored ring [2·T, F]."""
    window = len(ring) // 2
    for i in range(ring.shape[1]):
        ring[seq % window, i] = row[i]
        ring[seq % window + window, i] = row[i]


@kernel
def time_rows(table, ring, rows, first, memory, steps, advances):
    """Rows first, first + 1, … through an engine; clock ticks of each submit and advance.

    `table` is its handle, `rows` [n, F], `steps` and `advances` [n].
    """
    ctx = table[codes.ENGINE_CTX]
    for i in range(len(rows)):
        seq = first + i
        store_row(ring, rows[i], seq)
        other_work(memory)
        before = clock()
        call3(table[codes.ENGINE_SUBMIT], ctx, seq, 1)
        after = clock()
        steps[i] = after - before
        before = clock()
        call2(table[codes.ENGINE_ADVANCE], ctx, seq)
        after = clock()
        advances[i] = after - before
