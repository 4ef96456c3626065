"""Binance messages → events: what each becomes, the chain, resync, and every way to be wrong."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickrt.compile.codes import (
    BATCH_END,
    BBO,
    BUY,
    CLEAR,
    DEPTH,
    EXCH,
    KIND_MASK,
    LOCAL,
    SELL,
    SNAPSHOT,
    TRADE,
)
from tickrt.errors import DataError, GapError
from tickrt.feeds.codecs.binance import BinanceCodec
from tickrt.feeds.codecs.buffer import EventBuffer


def feed(session, codec, buffer=None):
    """Decode all lines; returns the events."""
    buffer = buffer or EventBuffer(4)
    for line in session.lines:
        head, _, message = line.partition(b" ")
        codec.decode(message, int(head), buffer)
    return buffer.events


def kinds(events):
    return (events["ev"] & np.uint64(KIND_MASK)).tolist()


def batches(events):
    """Lists of kinds, one per batch."""
    ends = np.flatnonzero(events["ev"] & np.uint64(BATCH_END))
    return [part.tolist() for part in np.split(np.array(kinds(events)), ends + 1)[:-1]]


def test_session_becomes_events(whole_session):
    codec = BinanceCodec(keep_bbo=True)
    events = feed(whole_session, codec)
    assert batches(events) == [
        [CLEAR, SNAPSHOT, SNAPSHOT, SNAPSHOT, SNAPSHOT, DEPTH],
        [DEPTH, DEPTH],
        [TRADE],
        [BBO, BBO],
        [DEPTH],
    ]
    assert (events["ev"] & np.uint64(EXCH | LOCAL) == EXCH | LOCAL).all()
    assert events["px"].tolist() == [
        *(0.0, 100.0, 99.9, 100.2, 100.3, 99.9),
        *(100.0, 100.1, 100.1, 99.9, 100.1, 100.1),
    ]
    assert events["qty"][5] == 7.0
    assert events["order_id"][:6].tolist() == [1015] * 5 + [1020]
    assert codec.symbol == "BTCUSDT"
    assert codec.venue == "binance_usdm"
    assert codec.synced
    stats = codec.stats
    assert (stats.depth, stats.trade, stats.bbo, stats.snapshot) == (4, 2, 1, 1)
    assert stats.before_snapshot == 2  # the stale diff and the early trade
    assert (stats.gaps, stats.dropped_messages, stats.dropped_events) == (0, 0, 0)


def test_times_are_the_exchange_s_t_and_the_receipt(session):
    session.snapshot(last=1000)
    session.diff(T=1_723_161_256_777, E=1_723_161_256_999)
    events = feed(session, BinanceCodec())
    assert events["exch_ts"][-1] == 1_723_161_256_777_000_000
    assert events["local_ts"][-1] == int(session.lines[-1].split()[0])


def test_held_diffs_come_at_the_snapshot_s_receive_time(whole_session):
    events = feed(whole_session, BinanceCodec())
    first = events[:6]
    assert len(set(first["local_ts"].tolist())) == 1
    assert first["local_ts"][0] == int(whole_session.lines[3].split()[0])
    assert (np.diff(events["local_ts"]) >= 0).all()


def test_held_diff_is_not_older_than_the_snapshot_at_the_exchange(session):
    session.diff()
    session.snapshot(last=1005, T=1_723_161_256_500)
    events = feed(session, BinanceCodec())
    assert events["exch_ts"].tolist() == [1_723_161_256_500_000_000] * 7


@pytest.mark.parametrize(("maker_is_buyer", "side"), [(True, SELL), (False, BUY)])
def test_trade_side_is_the_aggressor(session, maker_is_buyer, side):
    session.snapshot()
    session.trade(m=maker_is_buyer)
    event = feed(session, BinanceCodec())[-1]
    assert event["ev"] == TRADE | side | EXCH | LOCAL | BATCH_END


def test_prices_are_exact(session):
    session.snapshot()
    session.diff([["61773.6", "0.1"], ["0.00000001", "123456789.123456789"]], [])
    events = feed(session, BinanceCodec())
    assert events["px"][-2:].tolist() == [61773.6, 0.00000001]
    assert events["qty"][-2:].tolist() == [0.1, 123456789.123456789]


def test_plain_streams_and_coin_margined(session):
    codec, buffer = BinanceCodec(), EventBuffer()
    snapshot = session.snapshot(symbol="BTCUSD_PERP", pair="BTCUSD")
    diff = session.diff(symbol="BTCUSD_PERP", ps="BTCUSD")["data"]
    codec.decode(json.dumps(snapshot).encode(), 1, buffer)
    assert codec.decode(json.dumps(diff).encode(), 2, buffer) == 2
    assert codec.venue == "binance_cm"


def test_diff_at_the_snapshot_s_own_update_is_used(session):
    session.snapshot(last=1010)
    session.diff()  # u == lastUpdateId
    session.diff()
    codec = BinanceCodec()
    assert batches(feed(session, codec))[1:] == [[DEPTH, DEPTH], [DEPTH, DEPTH]]
    assert codec.stats.stale == 0


def test_stale_diffs_after_the_snapshot_are_left_out(session):
    session.snapshot(last=1025)
    for _ in range(3):
        session.diff()
    codec = BinanceCodec()
    assert len(batches(feed(session, codec))) == 2
    assert codec.stats.stale == 2


def test_snapshot_in_a_whole_chain_is_not_needed(whole_session):
    whole_session.snapshot()
    whole_session.diff()
    codec = BinanceCodec()
    assert kinds(feed(whole_session, codec)).count(CLEAR) == 1
    assert codec.stats.snapshot == 2


def test_empty_diff_moves_the_chain_on(session):
    session.snapshot()
    session.diff([], [])
    session.diff()
    assert len(batches(feed(session, BinanceCodec()))) == 2


def test_gap_is_an_error(whole_session):
    whole_session.lost_diff()
    whole_session.diff()
    with pytest.raises(GapError, match=r"book is at update 1040.*follows update 1050.*resync"):
        feed(whole_session, BinanceCodec())


def test_repeated_diff_is_an_error(whole_session):
    whole_session.lines.append(whole_session.lines[-1])
    with pytest.raises(GapError, match="chain broken"):
        feed(whole_session, BinanceCodec())


def test_snapshot_too_old_is_an_error(session):
    session.snapshot(last=900)
    session.diff()
    with pytest.raises(GapError, match="snapshot is older"):
        feed(session, BinanceCodec())


def test_snapshot_older_than_held_diffs_is_an_error(session):
    session.diff()
    session.snapshot(last=900)
    with pytest.raises(GapError, match="does not connect"):
        feed(session, BinanceCodec())


def test_resync_drops_to_the_next_snapshot_and_counts(whole_session):
    session = whole_session
    before = len(feed(session, BinanceCodec()))
    session.lost_diff()
    session.diff([["1.0", "1"]], [])  # the chain breaks: dropped, 1 event
    session.trade()  # dropped, 1 event
    session.diff()  # dropped: the snapshot holds it, 2 events
    session.ticker()  # not wanted at all: not counted
    held = session.last + 5
    session.diff([["100.0", "9.0"]], [])  # held, then used
    session.snapshot(last=held)
    session.diff()
    codec = BinanceCodec(on_gap="resync")
    after = feed(session, codec)[before:]
    assert batches(after) == [[CLEAR, *[SNAPSHOT] * 4, DEPTH], [DEPTH, DEPTH]]
    assert after["qty"][5] == 9.0
    assert 1.0 not in after["px"].tolist()
    stats = codec.stats
    assert (stats.gaps, stats.dropped_messages, stats.dropped_events) == (1, 3, 4)
    assert codec.synced


def test_resync_without_another_snapshot_drops_the_rest(whole_session):
    before = len(feed(whole_session, BinanceCodec()))
    whole_session.lost_diff()
    for _ in range(5):
        whole_session.diff()
    codec = BinanceCodec(on_gap="resync")
    assert len(feed(whole_session, codec)) == before
    assert (codec.stats.gaps, codec.stats.dropped_messages, codec.stats.dropped_events) == (
        1,
        5,
        10,
    )
    assert not codec.synced


def test_resync_uses_a_snapshot_that_came_just_before_the_gap(whole_session):
    whole_session.lost_diff()
    whole_session.snapshot(last=whole_session.last + 5)
    whole_session.diff()
    codec = BinanceCodec(on_gap="resync")
    events = feed(whole_session, codec)
    assert batches(events)[-1] == [CLEAR, *[SNAPSHOT] * 4, DEPTH, DEPTH]
    assert (codec.stats.gaps, codec.stats.dropped_messages) == (1, 0)
    assert (np.diff(events["local_ts"]) >= 0).all()


def test_resync_goes_past_a_useless_snapshot(whole_session):
    session = whole_session
    session.lost_diff()
    session.diff()
    session.snapshot(last=1000)  # older than the break
    session.snapshot()
    session.diff()
    codec = BinanceCodec(on_gap="resync")
    events = feed(session, codec)
    assert batches(events)[-2:] == [[CLEAR, *[SNAPSHOT] * 4, DEPTH, DEPTH], [DEPTH, DEPTH]]
    assert codec.stats.gaps == 2


def test_resync_leaves_out_repeated_diffs(whole_session):
    whole_session.lines.append(whole_session.lines[-1])
    whole_session.diff()
    codec = BinanceCodec(on_gap="resync")
    assert batches(feed(whole_session, codec))[-1] == [DEPTH, DEPTH]
    assert (codec.stats.stale, codec.stats.gaps) == (1, 0)


BROKEN = {
    "not json": b"{",
    "not utf-8": b'{"e":"\xff"}',
    "not an object": b"[1]",
    "nothing known": b"{}",
    "data not an object": b'{"data":3}',
    "no symbol": b'{"e":"trade"}',
    "no price": b'{"e":"trade","s":"BTCUSDT","T":1,"t":1,"q":"1","m":true}',
    "price is text": b'{"e":"trade","s":"BTCUSDT","T":1,"t":1,"p":"x","q":"1","m":true}',
    "price is null": b'{"e":"trade","s":"BTCUSDT","T":1,"t":1,"p":null,"q":"1","m":true}',
    "price NaN": b'{"e":"trade","s":"BTCUSDT","T":1,"t":1,"p":"nan","q":"1","m":true}',
    "price below 0": b'{"e":"trade","s":"BTCUSDT","T":1,"t":1,"p":"-1","q":"1","m":true}',
    "quantity inf": b'{"e":"trade","s":"BTCUSDT","T":1,"t":1,"p":"1","q":"1e999","m":true}',
    "time is text": b'{"e":"trade","s":"BTCUSDT","T":"1","t":1,"p":"1","q":"1","m":true}',
    "time in ns": b'{"e":"trade","s":"BTCUSDT","T":1723161257476000000,"t":1,"p":"1","q":"1"}',
    "levels not a list": b'{"e":"depthUpdate","s":"BTCUSDT","T":1,"U":1,"u":1,"pu":0,"b":7,"a":[]}',
    "level too short": b'{"e":"depthUpdate","s":"BTCUSDT","T":1,"U":1,"u":1,"pu":0,"b":[["1"]]}',
    "id is a float": b'{"e":"depthUpdate","s":"BTCUSDT","T":1,"U":1,"u":1.5,"pu":0,"b":[],"a":[]}',
    "snapshot without bids": b'{"lastUpdateId":5,"T":1,"asks":[]}',
}


@pytest.mark.parametrize("raw", BROKEN.values(), ids=BROKEN.keys())
def test_malformed_message_is_an_error_and_changes_nothing(whole_session, raw):
    codec, buffer = BinanceCodec(), EventBuffer()
    feed(whole_session, codec, buffer)
    count = buffer.count
    with pytest.raises(DataError, match="malformed message") as caught:
        codec.decode(raw, 1 << 62, buffer)
    assert not isinstance(caught.value, GapError)
    assert buffer.count == count
    whole_session.lines.clear()
    whole_session.diff()
    feed(whole_session, codec, buffer)
    assert buffer.count == count + 2


@pytest.mark.parametrize("raw", BROKEN.values(), ids=BROKEN.keys())
def test_malformed_message_is_dropped_and_counted_by_resync(whole_session, raw):
    codec, buffer = BinanceCodec(on_gap="resync"), EventBuffer()
    feed(whole_session, codec, buffer)
    assert codec.decode(raw, 1 << 62, buffer) == 0
    assert (codec.stats.malformed, codec.stats.dropped_messages) == (1, 1)
    assert codec.synced


def test_receive_time_going_back(whole_session):
    whole_session.now_ms -= 100
    whole_session.diff()
    with pytest.raises(DataError, match="receive time goes back by 90000000 ns"):
        feed(whole_session, BinanceCodec())
    codec = BinanceCodec(on_gap="resync")
    feed(whole_session, codec)
    assert (codec.stats.time_back, codec.stats.dropped_messages) == (1, 1)


def test_exchange_time_of_the_chain_going_back(whole_session):
    whole_session.diff(T=1_723_161_256_001)
    with pytest.raises(DataError, match="exchange time of the depth chain goes back by"):
        feed(whole_session, BinanceCodec())
    whole_session.diff()
    codec = BinanceCodec(on_gap="resync")
    feed(whole_session, codec)
    assert (codec.stats.time_back, codec.stats.gaps) == (1, 1)  # it was part of the chain


def test_symbols_mixed(whole_session):
    whole_session.diff(symbol="ETHUSDT")
    with pytest.raises(DataError, match=r"BTCUSDT and of ETHUSDT.*--symbol"):
        feed(whole_session, BinanceCodec())
    with pytest.raises(DataError, match="BTCUSDT and of ETHUSDT"):
        feed(whole_session, BinanceCodec(on_gap="resync"))


def test_one_of_several_symbols(session):
    session.diff(symbol="ETHUSDT")
    session.snapshot(last=1000, symbol="ETHUSDT")
    session.snapshot(last=1010, symbol="BTCUSDT")
    session.diff()
    codec = BinanceCodec(symbol="btcusdt")
    assert batches(feed(session, codec)) == [[CLEAR, *[SNAPSHOT] * 4], [DEPTH, DEPTH]]
    assert codec.stats.other_symbol == 2


@pytest.mark.parametrize(
    ("snapshot_first", "said"), [(True, "names no symbol"), (False, "none of BTCUSDT: choose")]
)
def test_snapshot_without_a_name_among_several_symbols(session, snapshot_first, said):
    if snapshot_first:
        session.snapshot()
    session.diff(symbol="ETHUSDT")
    session.snapshot()
    with pytest.raises(DataError, match=said):
        feed(session, BinanceCodec(symbol="BTCUSDT"))


def test_spot_is_refused(session):
    message = session.diff()
    del message["data"]["pu"]
    session.lines.clear()
    session.add(message)
    with pytest.raises(DataError, match="spot"):
        feed(session, BinanceCodec())


def test_other_messages_are_counted(whole_session):
    whole_session.trade(X="INSURANCE_FUND")
    whole_session.add({"result": None, "id": 1})
    whole_session.add({"stream": "x", "data": {"e": "markPriceUpdate", "s": "BTCUSDT"}})
    codec = BinanceCodec()
    feed(whole_session, codec)
    assert codec.stats.ignored == {"trade INSURANCE_FUND": 1, "reply": 1, "markPriceUpdate": 1}


def test_buffer_is_reused_by_a_live_feed(whole_session):
    codec, buffer, seen = BinanceCodec(), EventBuffer(64), []
    for line in whole_session.lines:
        head, _, message = line.partition(b" ")
        assert codec.decode(message, int(head), buffer) == buffer.count
        seen.append(buffer.events.copy())
        buffer.clear()
    whole = feed(whole_session, BinanceCodec())
    assert np.concatenate(seen).tobytes() == whole.tobytes()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(["depthUpdate", "trade", "bookTicker", "snapshot"]),
    field=st.sampled_from(["e", "s", "T", "U", "u", "pu", "b", "a", "B", "A", "p", "q", "m", "t"]),
    value=JSON,
)
def test_any_wrong_field_is_a_data_error(kind, field, value):
    fields = {
        "s": "BTCUSDT",
        "T": 1,
        "U": 1,
        "u": 2,
        "pu": 0,
        "t": 1,
        "p": "1",
        "q": "1",
        "m": True,
    }
    sides = {"b": [["1", "1"]], "a": [["2", "1"]], "bids": [["1", "1"]], "asks": []}
    if kind == "bookTicker":
        sides = {"b": "1", "B": "1", "a": "2", "A": "1"}
    name = {"lastUpdateId": 1} if kind == "snapshot" else {"e": kind}
    message = {**name, **fields, **sides, field: value}
    codec, buffer = BinanceCodec(keep_bbo=True), EventBuffer()
    if kind != "snapshot":
        codec.decode(b'{"lastUpdateId":1,"T":1,"bids":[["1","1"]],"asks":[]}', 5, buffer)
    with contextlib.suppress(DataError):
        codec.decode(json.dumps(message).encode(), 5, buffer)
    assert np.isfinite(buffer.events["px"]).all()
    assert np.isfinite(buffer.events["qty"]).all()
