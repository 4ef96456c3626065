"""Raw captures → event file: synthetic sessions, and every way in which a file can be wrong."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from tickrt.compile.codes import BATCH_END, CLEAR, DEPTH, KIND_MASK, LOCAL, SNAPSHOT
from tickrt.errors import ConfigError, DataError, GapError
from tickrt.feeds.captures.convert import ConvertOptions, convert
from tickrt.market.event_file import load_events


@pytest.fixture
def out(tmp_path):
    return tmp_path / "events.npz"


def kinds(data):
    return (data["ev"] & np.uint64(KIND_MASK)).tolist()


@pytest.mark.parametrize("name", ["capture.gz", "capture.txt"])
def test_capture_becomes_an_event_file(whole_session, tmp_path, out, name):
    summary = convert(whole_session.write(tmp_path / name), out)
    file = load_events(out)
    assert kinds(file.data) == [CLEAR, *[SNAPSHOT] * 4, DEPTH, DEPTH, DEPTH, 2, DEPTH]
    assert file.instrument.symbol == summary["symbol"] == "BTCUSDT"
    assert file.meta["source"]["kind"] == "binance_usdm"
    assert file.meta["source"]["files"] == [name]
    assert (summary["events"], summary["batches"]) == (10, 4)
    assert summary["counts"] == file.meta["counts"]
    assert summary["counts"]["depth"] == 4
    assert summary["messages"]["before_snapshot"] == 2
    assert summary["gaps"] == []
    assert summary["path"] == str(out)
    assert summary["span_s"] == pytest.approx(0.04)
    json.dumps(summary)


def test_several_files_are_one_session(whole_session, tmp_path, out):
    whole = convert(whole_session.write(tmp_path / "whole.gz"), out)
    data = load_events(out).data
    lines = whole_session.lines
    parts = []
    for i, part in enumerate([lines[:5], lines[5:]]):
        whole_session.lines = part
        parts.append(whole_session.write(tmp_path / f"{i}.gz"))
    assert convert(parts, out)["events"] == whole["events"]
    assert load_events(out).data.tobytes() == data.tobytes()
    with pytest.raises(DataError, match=r"0\.gz:1: receive time goes back .* order of recording"):
        convert(parts[::-1], out)


def test_bookticker_is_kept_on_request(whole_session, tmp_path, out):
    capture = whole_session.write(tmp_path / "a.gz")
    assert convert(capture, out)["counts"]["bbo"] == 0
    assert convert(capture, out, options=ConvertOptions(keep_bbo=True))["counts"]["bbo"] == 2


def test_local_clock_behind_the_exchange(session, tmp_path, out):
    session.snapshot()
    session.diff(T=1_723_161_257_020)  # a second ahead of the receipt
    session.diff(T=1_723_161_257_025)
    clock = convert(
        session.write(tmp_path / "a.gz"), out, options=ConvertOptions(base_latency_ns=500)
    )["clock"]
    smallest = 23_000_000 - 1_020_000_000
    assert clock == {
        "shift_ns": 500 - smallest,
        "base_latency_ns": 500,
        "smallest_latency_ns": smallest,
        "local_time": "recorded",
    }
    data = load_events(out).data
    assert (data["local_ts"] - data["exch_ts"]).min() == 500


def test_messages_that_overtook_each_other(session, tmp_path, out):
    session.snapshot()
    session.diff()
    session.trade(T=1_723_161_256_015)  # made before the diff, received after it
    session.diff()
    summary = convert(session.write(tmp_path / "a.gz"), out)
    assert summary["counts"]["rows"] == summary["events"] + 1
    data = load_events(out).data
    local = data[(data["ev"] & np.uint64(LOCAL)) != 0]
    assert kinds(local) == [CLEAR, *[SNAPSHOT] * 4, DEPTH, DEPTH, 2, DEPTH, DEPTH]
    ends = np.flatnonzero(local["ev"] & np.uint64(BATCH_END))
    assert ends.tolist() == [4, 6, 7, 9]


def test_gap_says_file_and_line(whole_session, tmp_path, out):
    whole_session.lost_diff()
    whole_session.diff()
    capture = whole_session.write(tmp_path / "a.gz")
    with pytest.raises(GapError, match=r"a\.gz:9: update chain broken.*--on-gap resync"):
        convert(capture, out)
    assert not out.exists()


def test_resync_counts_and_says_where(whole_session, tmp_path, out):
    session = whole_session
    session.lost_diff()
    session.diff()
    session.trade()
    session.snapshot()
    session.diff()
    capture = session.write(tmp_path / "a.gz")
    summary = convert(capture, out, on_gap="resync")
    line = int(session.lines[8].split()[0])
    assert summary["gaps"] == [{"file": "a.gz", "line": 9, "local_ns": line}]
    messages = summary["messages"]
    assert (messages["gaps"], messages["dropped_messages"], messages["dropped_events"]) == (1, 1, 1)
    data = load_events(out).data
    assert kinds(data).count(CLEAR) == 2
    assert kinds(data)[-9:] == [CLEAR, *[SNAPSHOT] * 4, DEPTH, DEPTH, DEPTH, DEPTH]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"hello", "malformed line: expected '<receive time"),
        (b'1723161256 {"e":"trade"}', "malformed line: expected '<receive time"),
        (b"1723161256900000000", "malformed message: not JSON"),
        (b'1723161256900000000 {"stream":"btc', "malformed message: not JSON"),
        (b"\xff\x00\x01", "malformed line"),
    ],
)
def test_malformed_line(whole_session, tmp_path, out, line, message):
    whole_session.lines.insert(5, line)
    if not line.startswith(b"17231612569"):
        whole_session.lines.insert(5, b"")  # blank lines are nothing
    capture = whole_session.write(tmp_path / "a.gz")
    with pytest.raises(DataError, match=rf"a\.gz:[67]: {message}"):
        convert(capture, out)
    summary = convert(capture, out, on_gap="resync")
    assert (summary["messages"]["malformed"], summary["messages"]["dropped_messages"]) == (1, 1)
    assert summary["events"] == 10


def test_truncated_gzip(whole_session, tmp_path, out):
    for _ in range(400):
        whole_session.diff()
    capture = whole_session.write(tmp_path / "a.gz")
    capture.write_bytes(capture.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"a\.gz:\d+: the gzip data breaks off"):
        convert(capture, out)
    summary = convert(capture, out, on_gap="resync")
    assert summary["messages"]["truncated_files"] == ["a.gz"]
    assert 100 < summary["counts"]["depth"] < 810


def test_gzip_files_put_one_after_the_other(whole_session, tmp_path, out):
    capture = tmp_path / "a.gz"
    members = [gzip.compress(line + b"\n") for line in whole_session.lines]
    capture.write_bytes(b"".join(members) + b"\0" * 8)
    assert convert(capture, out)["events"] == 10


def test_damaged_gzip(whole_session, tmp_path, out):
    for _ in range(400):
        whole_session.diff()
    capture = whole_session.write(tmp_path / "a.gz")
    damaged = bytearray(capture.read_bytes())
    damaged[-6] ^= 0xFF  # its checksum
    capture.write_bytes(damaged)
    with pytest.raises(DataError, match=r"breaks off or is damaged"):
        convert(capture, out)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (gzip.compress(b""), "empty"),
        (b"\x1f\x8b\x08garbage", "cannot be read"),
        (b"garbage \xff\xfe\x00", "unknown content"),
        (b"PK\x03\x04 and more", "event file already"),
        (b"price,size\n1,2\n", "unknown content"),
    ],
)
def test_files_that_are_no_captures(tmp_path, out, content, message):
    capture = tmp_path / "a.gz"
    capture.write_bytes(content)
    with pytest.raises(DataError, match=message):
        convert(capture, out)


def test_missing_file(tmp_path, out):
    with pytest.raises(DataError, match="cannot be read"):
        convert(tmp_path / "none.gz", out)


def test_missing_snapshot(session, tmp_path, out):
    session.diff()
    session.trade()
    capture = session.write(tmp_path / "a.gz")
    for on_gap in ("error", "resync"):
        with pytest.raises(DataError, match=r"a\.gz: no usable snapshot in 2 lines.*--snapshot"):
            convert(capture, out, on_gap=on_gap)


@pytest.mark.parametrize("timed", [False, True])
def test_snapshot_from_a_file_of_its_own(session, tmp_path, out, timed):
    for _ in range(3):
        session.diff()
    capture = session.write(tmp_path / "a.gz")
    session.snapshot(last=1015)
    line = session.lines[-1]
    own = tmp_path / "snapshot.json"
    own.write_bytes(line if timed else line.partition(b" ")[2])
    summary = convert(capture, out, snapshot=own)
    assert summary["messages"]["stale"] == 1
    assert kinds(load_events(out).data) == [CLEAR, *[SNAPSHOT] * 4, *[DEPTH] * 4]
    with pytest.raises(DataError, match="give it as the snapshot"):
        convert([own] if not timed else [_bare(own)], out)


def _bare(path):
    path.write_bytes(path.read_bytes().partition(b" ")[2])
    return path


def test_snapshot_file_that_holds_something_else(session, tmp_path, out):
    session.diff()
    capture = session.write(tmp_path / "a.gz")
    for content in (b'{"e":1}', b'{"data":[]}', b"[]", b""):
        own = tmp_path / "snapshot.json"
        own.write_bytes(content)
        with pytest.raises(DataError, match=r"snapshot\.json"):
            convert(capture, out, snapshot=own)


def test_mixed_symbols_and_choosing_one(session, tmp_path, out):
    session.snapshot(symbol="BTCUSDT")
    session.diff()
    session.diff(symbol="ETHUSDT", pu=7, u=9)
    session.last = 1010
    session.diff()
    capture = session.write(tmp_path / "a.gz")
    with pytest.raises(DataError, match=r"a\.gz:3: messages of BTCUSDT and of ETHUSDT"):
        convert(capture, out)
    summary = convert(capture, out, symbol="BTCUSDT")
    assert summary["messages"]["other_symbol"] == 1
    assert summary["counts"]["depth"] == 4
    with pytest.raises(DataError, match="no usable snapshot"):
        convert(capture, out, symbol="ETHUSDT")


def test_wrong_kind(whole_session, tmp_path, out):
    capture = whole_session.write(tmp_path / "a.gz")
    csv = tmp_path / "b.csv"
    csv.write_text("side,price,size,time\n")
    with pytest.raises(DataError, match=r"this is binance_usdm, not binance_cm"):
        convert(capture, out, kind="binance_cm")
    with pytest.raises(DataError, match=r"a\.gz: this is binance, not gdax"):
        convert(capture, out, kind="gdax")
    with pytest.raises(DataError, match=r"b\.csv: this is gdax, not binance"):
        convert([capture, csv], out)
    with pytest.raises(ConfigError, match="kind: expected one of auto"):
        convert(capture, out, kind="kraken")


def test_wrong_arguments(whole_session, tmp_path, out):
    capture = whole_session.write(tmp_path / "a.gz")
    with pytest.raises(ConfigError, match="no capture given"):
        convert([], out)
    with pytest.raises(ConfigError, match="on_gap"):
        convert(capture, out, on_gap="ignore")
    with pytest.raises(ConfigError, match="base_latency_ns"):
        convert(capture, out, options=ConvertOptions(base_latency_ns=-1))
    with pytest.raises(ConfigError, match=r"ends in \.npz"):
        convert(capture, tmp_path / "events.bin")


def test_progress_reaches_the_end(whole_session, tmp_path, out):
    for _ in range(5000):
        whole_session.diff()
    captures = [whole_session.write(tmp_path / "a.gz")]
    whole_session.lines = []
    whole_session.diff()
    captures.append(whole_session.write(tmp_path / "b.gz"))
    calls = []
    convert(captures, out, progress=lambda done, total: calls.append((done, total)))
    total = sum(path.stat().st_size for path in captures)
    assert calls[-1] == (total, total)
    assert len(calls) >= 3
    assert calls == sorted(calls)


GDAX = {
    "asks.csv": "side,price,size\nsell,10.5,1\n",
    "bids.csv": "side,price,size\nbuy,10.4,1\n",
    "one.csv": "side,price,size,time\nbuy,10.4,2,2018-04-24T03:52:17.202Z\n",
    "two.csv": "side,price,size,time\nsell,10.5,0.5,2018-04-24T03:52:18.202Z\n",
}


@pytest.fixture
def gdax(tmp_path):
    for name, text in GDAX.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_gdax_files(gdax, out):
    summary = convert([gdax / name for name in ("one.csv", "two.csv", "asks.csv", "bids.csv")], out)
    assert (summary["symbol"], summary["source"]["kind"]) == ("BTC-USD", "gdax")
    assert (summary["messages"]["snapshot_levels"], summary["messages"]["updates"]) == (2, 2)
    assert (summary["events"], summary["batches"]) == (5, 3)
    data = load_events(out).data
    assert (data["local_ts"] - data["exch_ts"]).tolist() == [1_000_000] * 5
    snapshot = [gdax / "asks.csv", gdax / "bids.csv"]
    again = convert([gdax / "one.csv", gdax / "two.csv"], out, snapshot=snapshot, symbol="X-Y")
    assert (again["events"], again["symbol"], again["instrument"]) == (5, "X-Y", None)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["one.csv"], r"one\.csv:2: updates before a snapshot"),
        (["asks.csv", "bids.csv"], "no update rows"),
        (["asks.csv", "two.csv", "one.csv"], r"one\.csv:2: time goes back"),
    ],
)
def test_gdax_files_that_are_wrong(gdax, out, names, message):
    with pytest.raises(DataError, match=message):
        convert([gdax / name for name in names], out)


@pytest.mark.parametrize("last", [True, False])
def test_gdax_file_that_breaks_off(gdax, out, last):
    rows = "".join(f"buy,10.4,{i},2018-04-24T03:52:17.{i}Z\n" for i in range(300, 900))
    whole = gzip.compress(("side,price,size,time\n" + rows).encode())
    (gdax / "one.csv").write_bytes(whole[: len(whole) // 2])
    paths = [gdax / name for name in ("asks.csv", "bids.csv", "one.csv", "two.csv")]
    paths = paths[:3] if last else paths
    with pytest.raises(DataError, match=r"one\.csv:\d+: the gzip data breaks off"):
        convert(paths, out)
    if last:
        summary = convert(paths, out, on_gap="resync")
        assert summary["messages"]["truncated_files"] == ["one.csv"]
        assert 50 < summary["messages"]["updates"] < 600
    else:
        with pytest.raises(DataError, match="cannot be connected"):
            convert(paths, out, on_gap="resync")
