"""Event files in pieces: the same events, marks, order and refusals as when they are loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.event_files import WIDE, WRONG_FILES, WRONG_ROWS, make_events
from tickrt.compile.codes import (
    BATCH_END,
    BUY,
    CLEAR,
    DEPTH,
    EXCH,
    LOCAL,
    SELL,
    SNAPSHOT,
    TRADE,
)
from tickrt.errors import ConfigError, DataError
from tickrt.market.event_file import instruments_of, load_events, merge_events, save_events
from tickrt.market.event_stream import merge_streams, open_stream
from tickrt.market.instrument import KNOWN
from tickrt.memory.records import EVENT_DTYPE


def joined(pieces: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, EVENT_DTYPE), *pieces])


def random_events(seed: int, count: int, *, marks: float, local: float) -> np.ndarray:
    """Valid events with many equal times; `marks` and `local`: how often those flags are set."""
    random = np.random.default_rng(seed)
    events = np.zeros(count, EVENT_DTYPE)
    kind = random.choice([DEPTH | BUY, DEPTH | SELL, SNAPSHOT | BUY, TRADE | SELL, CLEAR], count)
    ours = random.random(count) < local
    ours[random.integers(count)] = True
    flags = np.where(ours, LOCAL, 0) | np.where(random.random(count) < 0.8, EXCH, 0)
    flags |= np.where(random.random(count) < marks, BATCH_END, 0)
    events["ev"] = kind | flags
    times = np.cumsum(random.integers(0, 2, count))
    events["exch_ts"], events["local_ts"] = times // 2, times
    events["px"], events["order_id"] = random.random(count), np.arange(count)
    return events


def written(path: Path, form: str, events: np.ndarray) -> Path:
    """The events as a file of that form."""
    if form == "npy":
        np.save(path.with_suffix(".npy"), events)
        return path.with_suffix(".npy")
    {"npz": np.savez, "packed": np.savez_compressed}[form](path, data=events)
    return path


one_file = st.tuples(
    st.integers(0, 1 << 30),
    st.integers(1, 60),
    st.sampled_from([0.0, 0.05, 0.5]),
    st.sampled_from([0.02, 0.5, 1.0]),
    st.sampled_from(["npy", "npz", "packed"]),
)
some_files = st.lists(one_file, min_size=1, max_size=4)


@settings(max_examples=150, deadline=None)
@given(files=some_files, chunk=st.sampled_from([1, 2, 3, 7, 16, 100]))
def test_the_same_as_loaded_and_merged(
    tmp_path_factory: pytest.TempPathFactory, files: list[Any], chunk: int
) -> None:
    folder = tmp_path_factory.mktemp("files")
    paths = [
        written(folder / f"{i}.npz", form, random_events(seed, count, marks=marks, local=local))
        for i, (seed, count, marks, local, form) in enumerate(files)
    ]
    loaded, streams = [load_events(p) for p in paths], [open_stream(p, chunk) for p in paths]
    for whole, stream in zip(loaded, streams, strict=True):
        pieces = list(stream)
        assert all(0 < len(piece) <= chunk for piece in pieces)
        assert joined(pieces).tobytes() == whole.data.tobytes()
        assert stream.count == len(whole.data)
        local = (whole.data["ev"] & np.uint64(LOCAL)) != 0
        assert stream.first_local_ns == whole.data["local_ts"][local][0]
    merged = list(merge_streams(streams))
    assert joined(merged).tobytes() == merge_events(loaded).tobytes()


def test_several_files_end_each_piece_with_a_batch(tmp_path: Path) -> None:
    streams = []
    for index, shift in enumerate((0, 10_000_000, 3)):
        np.save(tmp_path / f"{index}.npy", make_events(30, 1_000_000_000 + shift))
        streams.append(open_stream(tmp_path / f"{index}.npy", 7))
    pieces = list(merge_streams(streams))
    assert len(pieces) > 10
    assert all(piece["ev"][-1] & np.uint64(BATCH_END) for piece in pieces)
    assert max(map(len, pieces)) <= 3 * 9


def test_what_a_file_says_of_itself(tmp_path: Path) -> None:
    meta = {"instrument": KNOWN["ETHUSDT"].to_dict(), "rows": 6}
    own = open_stream(save_events(tmp_path / "own.npz", make_events(2), meta))
    np.save(tmp_path / "foreign.npy", make_events(2))
    foreign = open_stream(str(tmp_path / "foreign.npy"))
    assert (own.meta, own.instrument, own.path) == (meta, KNOWN["ETHUSDT"], tmp_path / "own.npz")
    assert (foreign.meta, foreign.instrument) == ({}, None)
    assert foreign.first_local_ns == 1_001_000_000
    assert instruments_of([foreign, own], ["BTCUSDT"]) == (KNOWN["BTCUSDT"], KNOWN["ETHUSDT"])


def test_another_memory_layout_of_the_same_fields_streams(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", make_events(2).astype(WIDE))
    pieces = list(open_stream(tmp_path / "a.npy", 4))
    assert [piece.dtype for piece in pieces] == [EVENT_DTYPE] * 2
    assert joined(pieces).tobytes() == load_events(tmp_path / "a.npy").data.tobytes()


@pytest.mark.parametrize("chunk", [5, 1 << 14])
@pytest.mark.parametrize(("write", "message"), WRONG_FILES)
def test_a_wrong_file_says_what_and_where(
    tmp_path: Path, write: Any, message: str, chunk: int
) -> None:
    path = tmp_path / "events.npz"
    write(path)
    with pytest.raises(DataError) as caught:
        list(open_stream(path, chunk))
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("chunk", [1, 4, 8, 1 << 14])
@pytest.mark.parametrize(("row", "field", "value", "message"), WRONG_ROWS)
def test_a_wrong_row_is_named_when_it_is_read(
    tmp_path: Path, row: int, field: str, value: float, message: str, chunk: int
) -> None:
    events = make_events()
    events["ev"][2::3] |= np.uint64(BATCH_END)
    events[field][row] = value
    np.savez(tmp_path / "a.npz", data=events)
    before = []
    with pytest.raises(DataError) as caught:
        before.extend(open_stream(tmp_path / "a.npz", chunk))
    text = message if chunk > len(events) else message.split(" (1 such")[0]
    assert text in str(caught.value)
    assert joined(before).tobytes() == events[: row // chunk * chunk].tobytes()


def test_a_piece_counts_the_wrong_rows_that_it_has_seen(tmp_path: Path) -> None:
    events = make_events(4)
    events["px"][[4, 5, 9]] = -1.0
    np.save(tmp_path / "a.npy", events)
    with pytest.raises(DataError, match=r"row 4: px is -1.0.* \(2 such rows among 4 looked at\)"):
        list(open_stream(tmp_path / "a.npy", 4))
    with pytest.raises(DataError, match=r"row 4: px is -1.0.* \(3 such rows\)"):
        load_events(tmp_path / "a.npy")


@pytest.mark.parametrize("chunk", [1, 1 << 14])
def test_a_file_without_local_events_is_refused(tmp_path: Path, chunk: int) -> None:
    events = make_events()
    events["ev"] &= ~np.uint64(LOCAL)
    np.savez(tmp_path / "a.npz", data=events)
    with pytest.raises(DataError, match="no event carries the LOCAL flag"):
        open_stream(tmp_path / "a.npz", chunk)


def test_damage_is_found_where_it_is_read(tmp_path: Path) -> None:
    events = make_events(6000)
    events["ev"][2::3] |= np.uint64(BATCH_END)
    np.save(tmp_path / "a.npy", events)
    pieces = iter(open_stream(tmp_path / "a.npy", 6000))
    assert joined([next(pieces), next(pieces)]).tobytes() == events[:12_000].tobytes()
    size = (tmp_path / "a.npy").stat().st_size
    os.truncate(tmp_path / "a.npy", size - 100)  # while it is read
    with pytest.raises(DataError, match=r"between rows 12000 and 17999 \(it ends after 17998 of"):
        next(pieces)


def test_what_looks_like_a_wrong_event_may_be_damage(tmp_path: Path) -> None:
    events = make_events()
    events["ev"][2::3] |= np.uint64(BATCH_END)
    path = tmp_path / "a.npz"
    np.savez(path, data=events)
    wrong = events.copy()
    wrong["px"][70] = -1.0
    path.write_bytes(path.read_bytes().replace(events.tobytes(), wrong.tobytes()))
    pieces = iter(open_stream(path, 60))
    next(pieces)
    with pytest.raises(DataError, match=r"damaged or truncated between rows 0 and 179 \(Bad CRC"):
        next(pieces)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_changed_byte_is_found_by_the_end(tmp_path: Path, save: Any) -> None:
    """The archive's checksum is compared even where the events still look right."""
    random = np.random.default_rng(1)
    events = make_events()
    events["order_id"] = random.integers(1 << 60, size=len(events))
    path = tmp_path / "a.npz"
    save(path, data=events)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged or truncated"):
        list(open_stream(path, 50))
    with pytest.raises(DataError, match="damaged or truncated"):
        load_events(path)


def test_a_file_that_changes_is_refused(tmp_path: Path) -> None:
    path = save_events(tmp_path / "a.npz", make_events(3), {})
    stream = open_stream(path)
    save_events(path, make_events(9), {})
    with pytest.raises(DataError, match="changed since it was opened"):
        next(iter(stream))


def test_wrong_arguments_are_refused_at_once(tmp_path: Path) -> None:
    path = save_events(tmp_path / "a.npz", make_events(3), {})
    with pytest.raises(ConfigError, match="a chunk of at least one event, got 0"):
        open_stream(path, 0)
    with pytest.raises(ConfigError, match="at least one event stream"):
        merge_streams([])


MEMORY = """
import sys
from pathlib import Path
from tickrt.market.event_file import load_events
from tickrt.market.event_stream import merge_streams, open_stream

def peak_mb():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024

before = peak_mb()
if sys.argv[1] == "load":
    count = len(load_events(sys.argv[2]).data)
else:
    count = sum(map(len, merge_streams([open_stream(path) for path in sys.argv[2:]])))
print(count, peak_mb() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_is_bounded(tmp_path: Path) -> None:
    events = np.tile(make_events(1000), 1000)
    events["local_ts"] = events["exch_ts"] = np.arange(len(events)) // 3
    path = tmp_path / "a.npz"
    np.savez(path, data=events)
    count = len(events)
    assert count == 3_000_000
    del events

    def added(*arguments: str) -> tuple[int, float]:
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, *arguments],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        events, mb = done.stdout.split()
        return int(events), float(mb)

    events_streamed, streamed = added("stream", str(path))
    events_merged, merged = added("stream", str(path), str(path))
    events_loaded, loaded = added("load", str(path))
    assert (events_streamed, events_merged, events_loaded) == (count, 2 * count, count)
    assert streamed < 40
    assert merged < 40
    assert loaded > 150
