"""Puts decoded events into the order of an event file: exchange order and local order in one array.

Messages arrive in another order than the exchange made them. hftbacktest's answer, kept here: an
event that is in the same place in both orders is one row with both flags; one that is not is two
rows, one with EXCH and one with LOCAL. Rows with EXCH are then in the order of ``exch_ts``, rows
with LOCAL in the order of ``local_ts``. `order_events` gives the same rows as hftbacktest's
``correct_event_order`` (a test compares them) by sorting instead of by a compiled merge.

Both sorts are stable, so the LOCAL rows of a message stay together and its BATCH_END stays last.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tickrt.compile.codes import BATCH_END, EXCH, LOCAL

__all__ = ["order_events", "shift_local_clock"]


def shift_local_clock(events: npt.NDArray[Any], base_latency_ns: int) -> tuple[int, int]:
    """Set a local clock that is behind the exchange's right, in place.

    As hftbacktest's ``correct_local_timestamp``: if the smallest ``local_ts − exch_ts`` is
    negative, every `local_ts` is raised by it and by `base_latency_ns`, which is then the smallest.

    Returns:
        The shift and the smallest latency before it, both ns.
    """
    if not len(events):
        return 0, 0
    smallest = int((events["local_ts"] - events["exch_ts"]).min())
    shift = base_latency_ns - smallest if smallest < 0 else 0
    events["local_ts"] += shift
    return shift, smallest


def order_events(events: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Events of both orders in one array.

    Args:
        events: `EVENT_DTYPE[n]` in the order of receipt: `local_ts` never falls. Each message's
            last event has BATCH_END.

    Returns:
        `EVENT_DTYPE[m]`, n ≤ m ≤ 2n, with EXCH and LOCAL set as the module says and BATCH_END only
        on LOCAL rows.
    """
    exch, local = events["exch_ts"], events["local_ts"]
    rows = np.arange(len(events))
    by_exchange = np.argsort(exch, kind="stable")
    rank = _dense_rank(exch, local, by_exchange)
    highest = np.maximum.accumulate(rank) if len(rank) else rank
    late = rank < highest  # something newer at the exchange was received before
    early_rows = by_exchange[late[by_exchange]]
    # An exchange-only row goes in front of the first local row that is newer at the exchange.
    before = np.searchsorted(highest, rank[early_rows], side="right")
    source = np.concatenate([early_rows, rows])
    place = np.concatenate([before, rows])
    is_local = np.repeat([False, True], [len(early_rows), len(rows)])
    order = np.lexsort((is_local, place))
    out: npt.NDArray[Any] = events[source[order]]
    is_local = is_local[order]
    both = np.concatenate([np.zeros(len(early_rows), bool), ~late])[order]
    flags = out["ev"] & ~np.uint64(EXCH | LOCAL)
    flags[~is_local] &= ~np.uint64(BATCH_END)
    flags[is_local] |= np.uint64(LOCAL)
    flags[~is_local | both] |= np.uint64(EXCH)
    out["ev"] = flags
    return out


def _dense_rank(
    exch: npt.NDArray[np.int64], local: npt.NDArray[np.int64], order: npt.NDArray[np.intp]
) -> npt.NDArray[np.int64]:
    """Rank of each event by (exchange time, local time); equal pairs have equal ranks."""
    step = np.zeros(len(order), np.int64)
    step[1:] = (np.diff(exch[order]) != 0) | (np.diff(local[order]) != 0)
    rank: npt.NDArray[np.int64] = np.empty(len(order), np.int64)
    rank[order] = np.cumsum(step)
    return rank
