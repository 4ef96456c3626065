"""`replay` plays an event file through a book and writes down what the book was after each batch.

Used to describe and to verify event files; `replay.py` allocates what it needs.
"""

from __future__ import annotations

import numpy as np

from tickrt.compile.codes import BATCH_END, LOCAL
from tickrt.compile.jit import kernel
from tickrt.market.book import (
    BEST_ASK,
    BEST_BID,
    FAR_ASK,
    FAR_BID,
    LEVELS_ASK,
    LEVELS_BID,
)
from tickrt.market.kernels import apply_event, best

# Columns of what is written for each batch.
ROW, BID, ASK, BID_LEVELS, ASK_LEVELS, COLUMNS = 0, 1, 2, 3, 4, 5


@kernel
def replay(book, s, events, out, qtys, errors):
    """Play the LOCAL events through the book of symbol `s`.

    Args:
        book: a `market.book.Book`.
        s: symbol index.
        events: EVENT_DTYPE[n].
        out: int64[>= batches, COLUMNS]: row of the batch's last event, best bid and ask in ticks,
            levels of each side.
        qtys: float64[>= batches, 2]: quantity at the best bid and ask.
        errors: int64[3]: how many events the book refused, the row and the code of the first.

    Returns:
        How many batches there were.
    """
    count = 0
    for i in range(len(events)):
        ev = np.int64(events[i]["ev"])
        if ev & LOCAL == 0:
            continue
        px, qty, local_ns = events[i]["px"], events[i]["qty"], events[i]["local_ts"]
        code = apply_event(book, s, ev, px, qty, local_ns)
        if code < 0:
            if errors[0] == 0:
                errors[1] = i
                errors[2] = code
            errors[0] += 1
        if ev & BATCH_END == 0:
            continue
        _, bid_qty, _, ask_qty = best(book, s)
        head = book.head[s]
        out[count, ROW] = i
        out[count, BID] = head[BEST_BID]
        out[count, ASK] = head[BEST_ASK]
        out[count, BID_LEVELS] = head[LEVELS_BID] + head[FAR_BID]
        out[count, ASK_LEVELS] = head[LEVELS_ASK] + head[FAR_ASK]
        qtys[count, 0] = bid_qty
        qtys[count, 1] = ask_qty
        count += 1
    return count
