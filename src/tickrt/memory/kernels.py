"""Compiled ends of a ring: `push`, `push_records` (producer), `pop` (consumer that wants copies).

A ring is a `FeedView` (see `ring.py`). Counts only ever grow; event number q lies at slot q & mask.
The producer alone writes `published`, the consumer alone writes `consumed`; each is stored with
release and loaded with acquire order by the other side, so an event is complete before it is seen
and has been read before its slot is written again.

The hot loop does not copy: it reads `view.events[q & view.mask]` in place for q below
`load_acquire(view.published)` and gives slots back with `store_release(view.consumed, q)`. To end,
it looks at `load_acquire(view.closed)` first and at `published` once more after it.
"""

from __future__ import annotations

import numpy as np

from tickrt.compile.codes import BATCH_END, LOCAL
from tickrt.compile.intrinsics import clock, load_acquire, load_i64, store_i64, store_release
from tickrt.compile.jit import kernel

HEARTBEAT = 8  # bytes from the closed flag to the heartbeat
END = LOCAL | BATCH_END  # what ends a batch for the loop


@kernel
def takeable(events, n, free, capacity, inside):
    """How many of `events[:n]` may be published with `free` slots: whole batches if they fit.

    A batch that is longer than the ring can only pass in parts. `inside`: of the first batch a part
    has been published. Its rest must not wait for room as a whole: a consumer that holds that part
    until the batch is complete, as the loop does, would never make it.
    """
    if n <= free:
        return n
    take = free
    while take > 0 and (np.int64(events[take - 1]["ev"]) & END) != END:
        take -= 1
    if take > 0:
        return take
    if inside:
        return free
    if n < capacity:
        return 0
    for i in range(capacity):
        if (np.int64(events[i]["ev"]) & END) == END:
            return 0
    return free


@kernel
def push(view, events, stamped):
    """Publish from the front of `events` what there is room for; returns how many were taken.

    `stamped`: with the time of publication; else with 0, as in a plain array.
    """
    capacity = view.mask + 1
    head = load_i64(view.published)
    free = capacity - (head - load_acquire(view.consumed))
    inside = head > 0 and (np.int64(view.events[(head - 1) & view.mask]["ev"]) & END) != END
    take = takeable(events, len(events), free, capacity, inside)
    for i in range(take):
        view.events[(head + i) & view.mask] = events[i]
    now = clock()
    stamp = now if stamped else 0
    for i in range(take):
        view.stamps[(head + i) & view.mask] = stamp
    store_i64(view.closed + HEARTBEAT, now)
    store_release(view.published, head + take)
    return take


@kernel
def push_records(view, records):
    """`push` for records that do not come in batches: as many as there is room for."""
    head = load_i64(view.published)
    take = min(len(records), view.mask + 1 - (head - load_acquire(view.consumed)))
    for i in range(take):
        view.events[(head + i) & view.mask] = records[i]
    store_release(view.published, head + take)
    return take


@kernel
def pop(view, out, stamps):
    """Copy the oldest unread events into `out` and their stamps; returns how many."""
    tail = load_i64(view.consumed)
    count = min(len(out), load_acquire(view.published) - tail)
    for i in range(count):
        slot = (tail + i) & view.mask
        out[i] = view.events[slot]
        stamps[i] = view.stamps[slot]
    store_release(view.consumed, tail + count)
    return count


@kernel
def close(view):
    """Set the closed flag, after everything that was published."""
    store_release(view.closed, 1)


@kernel
def is_closed(view):
    """Read the closed flag; what was published before it was set can be read after."""
    return load_acquire(view.closed) != 0


@kernel
def beat(view):
    """Set the producer's heartbeat to now."""
    store_i64(view.closed + HEARTBEAT, clock())


@kernel
def heartbeat_age(view):
    """Clock ticks since the producer last published or beat."""
    return clock() - load_acquire(view.closed + HEARTBEAT)
