"""Launches timed without Python between: what `engine_floors` measures."""

from tickrt.compile.intrinsics import call1, call2, call4, clock, pause
from tickrt.compile.jit import kernel

NOT_READY = 600  # CUDA_ERROR_NOT_READY
INT = 0xFFFFFFFF  # the driver's functions return 32 bits


@kernel
def time_launches(launch, start, query, times, took):
    """Launch, look at the stream until the work has ended, wait; again and again.

    Args: `launch` int64 [5]: how many parameters (2 or 4) and those of the function at `start`;
    `query` int64 [2]: the address of ``cuStreamQuery`` and the stream; `times` int64 [gap between
    two launches, how long one may take], in ticks; `took` int64 [n] is written.
    Returns (a code of the driver, how many launches were made).
    """
    gap, patience = times[0], times[1]
    for i in range(len(took)):
        began = clock()
        if launch[0] == 2:
            code = call2(start, launch[1], launch[2])
        else:
            code = call4(start, launch[1], launch[2], launch[3], launch[4])
        if code & INT:
            return code & INT, i
        code = call1(query[0], query[1]) & INT
        while code == NOT_READY and clock() - began < patience:
            pause()
            code = call1(query[0], query[1]) & INT
        took[i] = clock() - began
        if code:
            return code, i
        until = clock() + gap
        while clock() < until:
            pause()
    return 0, len(took)
