"""The compiled half of the recorder: one pass over what the loop wrote down, where it lies.

Entry point: `drain`. State is a `recorder.Held`.
"""

from tickrt.compile.codes import RECORD_FILL, RECORD_KINDS, RECORD_SIGNAL
from tickrt.compile.intrinsics import load_acquire, load_i64, store_release
from tickrt.compile.jit import kernel, kernel_internal

SEEN, STRIDE, HELD = 0, 1, 2  # columns of Held.series_state


@kernel_internal
def take_signal(h, signal):
    """Hold a signal where its turn has come; drop every second one where there are too many."""
    p = signal["strategy"]
    state = h.series_state[p]
    h.last[p] = signal
    if state[SEEN] % state[STRIDE] == 0:
        limit = h.series.shape[1]
        if state[HELD] == limit:
            for i in range(limit // 2):
                h.series[p, i] = h.series[p, 2 * i]
            state[HELD] = limit // 2
            state[STRIDE] *= 2
        if state[SEEN] % state[STRIDE] == 0:
            h.series[p, state[HELD]] = signal
            state[HELD] += 1
    state[SEEN] += 1


@kernel
def drain(view, signals, fills, h, out):
    """Read up to len(out) records: count them, hold what a report needs; returns how many.

    `signals`, `fills`: the ring's slots seen as those kinds. `out`: RECORD_DTYPE, receives a copy
    of each record where `h.keep` says so.
    """
    q = load_i64(view.consumed)
    end = min(load_acquire(view.published), q + len(out))
    for n in range(end - q):
        i = (q + n) & view.mask
        kind = int(view.events[i]["record"])
        if 0 <= kind < RECORD_KINDS:
            h.counts[kind] += 1
        if kind == RECORD_SIGNAL:
            take_signal(h, signals[i])
        elif kind == RECORD_FILL and h.counts[kind] <= len(h.fills):
            h.fills[h.counts[kind] - 1] = fills[i]
        if h.keep[0] != 0:
            out[n] = view.events[i]
    store_release(view.consumed, end)
    return end - q
