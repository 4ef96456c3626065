"""Rows through an engine handle, one at a time, as the loop does it: what `resident` measures."""

from tickrt.compile.codes import PENDING
from tickrt.compile.intrinsics import call2, call3, clock, load_f32, pause
from tickrt.compile.jit import kernel


@kernel
def feed(table, rows, ring, first, settings, took, outputs):
    """Every row: into the ring, to the engine, its answer back.

    Args: row i of `rows` float32 [n, F] has the number ``first + i + 1``; `settings` int64 [gap
    between two rows, row from which answers are wanted, how long one may take], in ticks; `took`
    int64 [n] and `outputs` float32 [n, m] are written. Returns (Code, rows done).
    """
    gap, wanted, patience = settings[0], settings[1], settings[2]
    window = len(ring) // 2
    for i in range(len(rows)):
        seq = first + i + 1
        slot = seq % window
        for k in range(rows.shape[1]):
            ring[slot, k] = rows[i, k]
            ring[slot + window, k] = rows[i, k]
        if i >= wanted:
            began = clock()
            code = call3(table[0], table[4], seq, 1)
            if code < 0:
                return code, i
            code = call2(table[1], table[4], seq)
            while code == PENDING:
                if clock() - began > patience:
                    return PENDING, i
                pause()
                code = call2(table[1], table[4], seq)
            took[i] = clock() - began
            if code < 0:
                return code, i
            for j in range(outputs.shape[1]):
                outputs[i, j] = load_f32(table[6] + 4 * j)
        code = call2(table[2], table[4], seq)
        if code < 0:
            return code, i
        until = clock() + gap
        while clock() < until:
            pause()
    return 0, len(rows)
