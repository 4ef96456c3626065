"""The order of an event file, against hftbacktest's own functions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickrt.compile.codes import BATCH_END, DEPTH, EXCH, LOCAL
from tickrt.compile.jit import JIT
from tickrt.feeds.captures.event_order import order_events, shift_local_clock
from tickrt.memory.records import EVENT_DTYPE


def messages(sizes, exch, local):
    """Messages of `sizes` events with their own times; local times must not fall."""
    events = np.zeros(sum(sizes), EVENT_DTYPE)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    events["ev"] = DEPTH
    events["exch_ts"] = np.array(exch)[owner]
    events["local_ts"] = np.array(local)[owner]
    events["px"] = np.arange(len(events))
    events["order_id"] = owner
    if len(events):
        events["ev"][np.cumsum(sizes) - 1] |= np.uint64(BATCH_END)
    return events


@st.composite
def receipts(draw):
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=12))
    times = st.lists(st.integers(0, 8), min_size=len(sizes), max_size=len(sizes))
    return messages(sizes, draw(times), sorted(draw(times)))


@settings(max_examples=300, deadline=None)
@given(receipts())
def test_both_orders_hold_and_batches_stay_whole(events):
    out = order_events(events)
    exch = out[(out["ev"] & np.uint64(EXCH)) != 0]
    local = out[(out["ev"] & np.uint64(LOCAL)) != 0]
    assert (np.diff(exch["exch_ts"]) >= 0).all()
    assert local["px"].tolist() == events["px"].tolist()  # as received
    ends = (local["ev"] & np.uint64(BATCH_END)) != 0
    assert (ends == ((events["ev"] & np.uint64(BATCH_END)) != 0)).all()
    assert sorted(exch["px"].tolist()) == events["px"].tolist()
    only_exch = out[(out["ev"] & np.uint64(LOCAL)) == 0]
    assert not (only_exch["ev"] & np.uint64(BATCH_END)).any()


@pytest.mark.skipif(not JIT, reason="hftbacktest's merge reads past the end without Numba")
def test_same_rows_as_hftbacktest():
    from hftbacktest.data import correct_event_order, validate_event_order

    random = np.random.default_rng(7)
    for count in (1, 2, 50, 400):
        sizes = random.integers(1, 5, count)
        local = np.sort(random.integers(0, 4 * count, count))
        events = messages(sizes, local - random.integers(0, 12, count), local)
        events["ev"] &= ~np.uint64(BATCH_END)  # theirs keeps it on exchange rows
        mine = order_events(events)
        theirs = correct_event_order(
            events,
            np.argsort(events["exch_ts"], kind="mergesort"),
            np.argsort(events["local_ts"], kind="mergesort"),
        )
        assert mine.tobytes() == theirs.tobytes()
        validate_event_order(mine)


def test_events_in_both_orders_are_not_doubled():
    events = messages([2, 1], [5, 6], [7, 8])
    out = order_events(events)
    assert (out["ev"] & np.uint64(EXCH | LOCAL) == EXCH | LOCAL).all()
    assert len(out) == 3


def test_no_events():
    assert len(order_events(messages([], [], []))) == 0
    assert shift_local_clock(messages([], [], []), 5) == (0, 0)


def test_local_clock_behind_is_shifted():
    events = messages([1, 1], [100, 200], [60, 190])
    assert shift_local_clock(events, 7) == (47, -40)
    assert events["local_ts"].tolist() == [107, 237]


def test_local_clock_that_is_right_stays():
    events = messages([1, 1], [100, 200], [101, 203])
    assert shift_local_clock(events, 7) == (0, 1)
    assert events["local_ts"].tolist() == [101, 203]
