"""Rows through an engine handle, one at a time, as the loop does it: what `engine_bench` times."""

from tickrt.compile import codes
from tickrt.compile.intrinsics import call2, call3, clock, load_f32, pause
from tickrt.compile.jit import kernel


@kernel
def feed(table, rows, ring, first, settings, took, outputs):
    """Every row: into the ring, to the engine, its answer back, then `advance`.

    Args: `table` is the handle; row i of `rows` float32 [n, F] has the number ``first + i + 1``;
    `settings` int64 [gap between two rows, row from which answers are wanted, how long one may
    take], in ticks; `took` int64 [2, n] (from before `submit` to the answer read; `advance`) and
    `outputs` float32 [n, m] are written. Returns (Code, rows done, ticks of all).
    """
    gap, wanted, patience = settings[0], settings[1], settings[2]
    window, ctx, output = len(ring) // 2, table[codes.ENGINE_CTX], table[codes.ENGINE_OUTPUT]
    start = clock()
    for i in range(len(rows)):
        seq = first + i + 1
        slot = seq % window
        for k in range(rows.shape[1]):
            ring[slot, k] = rows[i, k]
            ring[slot + window, k] = rows[i, k]
        if i >= wanted:
            began = clock()
            code = call3(table[codes.ENGINE_SUBMIT], ctx, seq, 1)
            if code < 0:
                return code, i, clock() - start
            code = call2(table[codes.ENGINE_POLL], ctx, seq)
            while code == codes.PENDING:
                if clock() - began > patience:
                    return codes.PENDING, i, clock() - start
                pause()
                code = call2(table[codes.ENGINE_POLL], ctx, seq)
            for j in range(outputs.shape[1]):
                outputs[i, j] = load_f32(output + 4 * j)
            took[0, i] = clock() - began
            if code < 0:
                return code, i, clock() - start
        began = clock()
        code = call2(table[codes.ENGINE_ADVANCE], ctx, seq)
        took[1, i] = clock() - began
        if code < 0:
            return code, i, clock() - start
        if gap > 0:
            until = clock() + gap
            while clock() < until:
                pause()
    return 0, len(rows), clock() - start
