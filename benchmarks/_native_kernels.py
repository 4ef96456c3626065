"""The loop of `benchmarks.native`: two engines by turns, timed as the trading loop calls them."""

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
def time_rows(tables, ring, rows, first, memory, steps, advances):
    """Rows first, first + 1, …: each through every engine; clock ticks of submit and advance.

    `tables` is int64 [E, columns], `rows` [n, F], `steps` and `advances` [E, n].
    """
    for i in range(len(rows)):
        seq = first + i
        store_row(ring, rows[i], seq)
        for turn in range(len(tables)):
            e = (turn + i) % len(tables)
            ctx = tables[e, codes.ENGINE_CTX]
            other_work(memory)
            before = clock()
            call3(tables[e, codes.ENGINE_SUBMIT], ctx, seq, 1)
            after = clock()
            steps[e, i] = after - before
            before = clock()
            call2(tables[e, codes.ENGINE_ADVANCE], ctx, seq)
            after = clock()
            advances[e, i] = after - before
