"""Compiled replays for `book_features`: a whole event array through book and feature kernels."""

from __future__ import annotations

import numpy as np

from tickrt.compile.codes import BATCH_END, LOCAL
from tickrt.compile.jit import kernel
from tickrt.feature.kernels import make_row, on_event
from tickrt.market.kernels import apply_event, check


@kernel
def replay_book(events, book):
    """Apply every LOCAL event, check each complete batch; -> the first bad code, or 0."""
    for i in range(events.shape[0]):
        event = events[i]
        ev = np.int64(event.ev)
        if ev & LOCAL == 0:
            continue
        code = apply_event(book, 0, ev, event.px, event.qty, event.local_ts)
        if code == 0 and ev & BATCH_END:
            code = check(book, 0)
        if code != 0:
            return code
    return 0


@kernel
def replay_rows(events, book, streams):
    """`replay_book` with stream 0's accumulators and rows; -> rows made, or the first bad code."""
    rows = 0
    for i in range(events.shape[0]):
        event = events[i]
        ev = np.int64(event.ev)
        if ev & LOCAL == 0:
            continue
        code = apply_event(book, 0, ev, event.px, event.qty, event.local_ts)
        on_event(streams, 0, book, 0, ev, event.px, event.qty, event.local_ts)
        if code == 0 and ev & BATCH_END:
            code = check(book, 0)
            if make_row(streams, 0, book, 0, event.local_ts) > 0:
                rows += 1
        if code != 0:
            return code
    return rows
