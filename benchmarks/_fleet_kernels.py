"""Several engines in one loop, as `step_kernels` drives those of a symbol; the times of each."""

import numpy as np

from tickrt.compile import codes
from tickrt.compile.intrinsics import call2, call3, clock, load_f32, pause
from tickrt.compile.jit import kernel


@kernel
def drive(tables, rings, rows, first, settings, wanted, took, found, outputs):
    """Every row to every engine; answers are taken as they come, within a deadline.

    Args: `tables` int64 [E, 10] are handles, `rings` float32 [E, 2·T, F] their rows; row i of
    `rows` [n, F] has the number ``first + i + 1``; `settings` int64 [gap between two rows,
    deadline], in ticks; `wanted` int64 [E] the row from which answers are wanted; `took` int64
    [E, n] (from before the first `submit` to this engine's answer read), `found` int64 [E, n] (its
    Code) and `outputs` float32 [E, n, m] are written. Returns ticks of all.
    """
    gap, deadline = settings[0], settings[1]
    count, window = len(tables), rings.shape[1] // 2
    start = clock()
    for i in range(len(rows)):
        seq = first + i + 1
        slot = seq % window
        for e in range(count):
            for k in range(rows.shape[1]):
                rings[e, slot, k] = rows[i, k]
                rings[e, slot + window, k] = rows[i, k]
        began = clock()
        waiting = 0
        for e in range(count):
            if i >= wanted[e]:
                ctx = tables[e, codes.ENGINE_CTX]
                code = call3(tables[e, codes.ENGINE_SUBMIT], ctx, seq, 1)
                found[e, i] = min(code, np.int64(0))
                if code >= 0:
                    found[e, i] = codes.PENDING
                    waiting += 1
        while waiting > 0:
            for e in range(count):
                if found[e, i] != codes.PENDING:
                    continue
                ctx = tables[e, codes.ENGINE_CTX]
                code = call2(tables[e, codes.ENGINE_POLL], ctx, seq)
                now = clock()
                if code == codes.PENDING:
                    if now - began <= deadline:
                        continue
                    code = codes.ENGINE_TIMEOUT
                for j in range(outputs.shape[2]):
                    outputs[e, i, j] = load_f32(tables[e, codes.ENGINE_OUTPUT] + 4 * j)
                took[e, i] = clock() - began
                found[e, i] = min(code, np.int64(0))
                waiting -= 1
            pause()
        for e in range(count):
            call2(tables[e, codes.ENGINE_ADVANCE], tables[e, codes.ENGINE_CTX], seq)
        until = began + gap  # rows come when they come, whatever the last one took
        while clock() < until:
            pause()
    return clock() - start
