"""Coinbase CSV rows → events."""

from __future__ import annotations

import numpy as np
import pytest

from tickrt.compile.codes import BATCH_END, BUY, CLEAR, DEPTH, EXCH, LOCAL, SELL, SNAPSHOT
from tickrt.errors import DataError
from tickrt.feeds.codecs.buffer import EventBuffer
from tickrt.feeds.codecs.coinbase import GdaxCodec

SNAPSHOT_ROWS = ["side,price,size", "buy,9192,7.5", "side,price,size", "sell,9192.01,4.66"]
UPDATE_ROWS = [
    "side,price,size,time",
    "buy,9170.51,0.01,2018-04-24T03:52:17.202Z",
    "sell,9193.0,0.0,2018-04-24T03:52:17.202Z",
    "sell,9194.0,0.11244000000000001,2018-04-24T03:52:17.210Z",
]
FIRST_NS = 1_524_541_937_202_000_000


def feed(rows, local_ns=-1):
    codec, buffer = GdaxCodec(), EventBuffer(2)
    for row in rows:
        codec.decode(row.encode(), local_ns, buffer)
    codec.finish(buffer)
    return buffer.events


def test_rows_of_one_time_are_one_batch():
    events = feed(SNAPSHOT_ROWS + UPDATE_ROWS)
    both = EXCH | LOCAL
    assert events["ev"].tolist() == [
        CLEAR | both,
        SNAPSHOT | BUY | both,
        SNAPSHOT | SELL | both | BATCH_END,
        DEPTH | BUY | both,
        DEPTH | SELL | both | BATCH_END,
        DEPTH | SELL | both | BATCH_END,
    ]
    assert events["exch_ts"].tolist() == [FIRST_NS] * 5 + [FIRST_NS + 8_000_000]
    assert events["local_ts"].tolist() == events["exch_ts"].tolist()
    assert events["qty"][-1] == 0.11244000000000001


def test_receive_time_is_used_where_there_is_one():
    events = feed(SNAPSHOT_ROWS + UPDATE_ROWS, local_ns=FIRST_NS + 5)
    assert np.unique(events["local_ts"]).tolist() == [FIRST_NS + 5]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (UPDATE_ROWS, "updates before a snapshot"),
        (SNAPSHOT_ROWS, "no update rows"),
        ([], "no snapshot rows"),
        (["buy,1,2"], "a header line first"),
        (["side,price"], "unknown columns"),
        ([*SNAPSHOT_ROWS, "buy,1"], "expected 3 columns"),
        ([*SNAPSHOT_ROWS, "hold,1,2"], "malformed row"),
        ([*SNAPSHOT_ROWS, "buy,x,2"], "malformed row"),
        ([*SNAPSHOT_ROWS, "buy,nan,2"], "malformed row"),
        ([*SNAPSHOT_ROWS, "buy,1,-2"], "malformed row"),
        ([*SNAPSHOT_ROWS, *UPDATE_ROWS, "buy,1,2"], "expected 4 columns"),
        ([*SNAPSHOT_ROWS, *UPDATE_ROWS, "buy,1,2,soon"], "malformed time"),
        ([*SNAPSHOT_ROWS, *UPDATE_ROWS, "buy,1,2,2018-04-24T03:52:17.300"], "malformed time"),
        ([*SNAPSHOT_ROWS, *UPDATE_ROWS, "buy,1,2,2018-04-24T03:52:17.209Z"], "time goes back"),
        ([*SNAPSHOT_ROWS, *UPDATE_ROWS, *SNAPSHOT_ROWS], "snapshot after updates"),
    ],
)
def test_wrong_rows_are_errors(rows, message):
    with pytest.raises(DataError, match=message):
        feed(rows)
