"""What a core does to a thread that only spins on it: the floor under every latency there."""

from tickrt.compile.intrinsics import clock, pause
from tickrt.compile.jit import kernel


@kernel
def spin_stretches(gap, length, took):
    """Spin for `length` ticks as one waits for an answer, with `gap` ticks between; `took` [n]."""
    for i in range(len(took)):
        until = clock() + gap
        while clock() < until:
            pause()
        began = clock()
        until = began + length
        now = began
        while now < until:
            pause()
            now = clock()
        took[i] = now - began


@kernel
def spin_gaps(ticks, limit, gaps):
    """Read the clock for `ticks`; keep what lay between two reads where that is above `limit`.

    `gaps` [n] holds the first n. Returns how many there were.
    """
    start = clock()
    previous, found = start, 0
    while previous - start < ticks:
        now = clock()
        if now - previous > limit:
            if found < len(gaps):
                gaps[found] = now - previous
            found += 1
        previous = now
    return found
