"""Event files that tests read: a valid one, those that are refused, and why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tickrt.compile.codes import BUY, DEPTH, EXCH, LOCAL, SELL, SNAPSHOT, TRADE
from tickrt.market.event_file import save_events
from tickrt.memory.records import EVENT_DTYPE

BOTH = EXCH | LOCAL
# The same fields in another layout.
WIDE = np.dtype(
    {
        "names": list(EVENT_DTYPE.names),
        "formats": [EVENT_DTYPE[n] for n in EVENT_DTYPE.names],
        "offsets": [8 * i for i in range(1, 9)],
        "itemsize": 80,
    }
)


def make_events(n: int = 60, start_ns: int = 1_000_000_000) -> np.ndarray:
    """`n` messages of two levels and a trade, 10 ms apart, around 100.0 with a tick of 0.1."""
    rows: list[tuple[int, int, int, float, float]] = []
    for i in range(n):
        sent, received = start_ns + i * 10_000_000, start_ns + i * 10_000_000 + 1_000_000
        kind = DEPTH if i else SNAPSHOT
        rows.append((BOTH | kind | BUY, sent, received, 100.0, 5.0 + i % 3))
        rows.append((BOTH | kind | SELL, sent, received, 100.1, 5.0 + i % 2))
        rows.append((BOTH | TRADE | BUY, sent + 1, received + 1, 100.1, 1.0))
    events = np.zeros(len(rows), EVENT_DTYPE)
    for column, name in enumerate(("ev", "exch_ts", "local_ts", "px", "qty")):
        events[name] = [row[column] for row in rows]
    return events


def truncated(path: Path) -> None:
    np.savez_compressed(path, data=make_events())
    path.write_bytes(path.read_bytes()[:-900])


def truncated_array(path: Path) -> None:
    np.save(path.with_suffix(".npy"), make_events())
    path.write_bytes(path.with_suffix(".npy").read_bytes()[:-100])


def flipped(path: Path) -> None:
    np.savez_compressed(path, data=make_events())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def array_with(path: Path, byte: int, value: int) -> None:
    """An array that is not packed, with one byte changed."""
    np.save(path.with_suffix(".npy"), make_events())
    content = bytearray(path.with_suffix(".npy").read_bytes())
    content[byte] = value
    path.write_bytes(content)


def array_of(path: Path, count: int) -> None:
    """An array whose header tells of `count` events; there are 180."""
    np.save(path.with_suffix(".npy"), make_events())
    content = path.with_suffix(".npy").read_bytes()
    header, told = content[:512], f"({count},)".encode()
    end = header.index(b"\n")
    text = header[:end].replace(b"(180,)", told).rstrip().ljust(end)
    path.write_bytes(text + content[end:])


def archive_with(path: Path, byte: int, value: int) -> None:
    """An archive with one byte of its table of contents changed."""
    np.savez(path, data=make_events())
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + byte] = value
    path.write_bytes(content)


# What writes a file, and what is said of it.
WRONG_FILES: list[tuple[Callable[[Path], object], str]] = [
    (lambda path: None, "cannot be read (No such file or directory); make an event file with"),
    (lambda path: path.write_bytes(b""), "the file is empty"),
    (lambda path: path.write_bytes(b"garbage " * 99), "neither .npz nor .npy; raw captures"),
    (truncated, "damaged or truncated"),
    (truncated_array, "damaged or truncated (it ends after 178 of 180 events)"),
    (lambda path: array_of(path, 10**12), "(it ends after 180 of 1000000000000 events)"),
    (lambda path: array_of(path, -5), "damaged or truncated (it ends after 180 of -5 events)"),
    (flipped, "damaged or truncated"),
    (lambda path: array_with(path, 8, 20), "damaged or truncated (('EOF in multi-line"),
    (lambda path: array_with(path, 29, ord(",")), "damaged or truncated (invalid syntax"),
    (lambda path: archive_with(path, 8, 1), "damaged or truncated (File 'data.npy' is encrypted"),
    (lambda path: archive_with(path, 10, 77), "(That compression method is not supported)"),
    (lambda path: np.savez(path, other=make_events()), "array named 'data'; it has: other"),
    (lambda path: np.savez(path, data=np.zeros(5)), "expected events with the fields"),
    (lambda path: np.savez(path, data=np.zeros(5, "V0")), "expected events with the fields"),
    (lambda path: np.savez(path, data=np.zeros((5, 6))), "hftbacktest.data.utils.migration2"),
    (lambda path: np.savez(path, data=make_events().reshape(2, -1)), "got shape (2, 90)"),
    (lambda path: np.savez(path, data=make_events(0)), "holds no events"),
    (
        lambda path: np.savez(path, data=make_events(), meta=np.frombuffer(b"{", np.uint8)),
        "'meta' is not JSON",
    ),
    (
        lambda path: np.savez(path, data=make_events(), meta=np.frombuffer(b"[]", np.uint8)),
        "'meta' is list; expected a JSON object",
    ),
    (
        lambda path: save_events(path, make_events(), {"instrument": {"symbol": "X"}}),
        "meta.instrument.tick_size: missing",
    ),
    (
        lambda path: np.savez(path, data=np.array([{"a": 1}], object), allow_pickle=True),
        "damaged or truncated (Object arrays cannot be loaded",
    ),
]
# Row, field and value that are wrong, and what is said of them.
WRONG_ROWS: list[tuple[int, str, float, str]] = [
    (7, "local_ts", 5, "row 7: local_ts goes back from 1021000000 to 5 (1 such rows); sort"),
    (7, "exch_ts", 5, "row 7: exch_ts goes back from 1020000000 to 5"),
    (4, "px", float("nan"), "row 4: px is nan; expected a finite number ≥ 0 (1 such rows)"),
    (4, "qty", -1.0, "row 4: qty is -1.0"),
    (4, "qty", float("inf"), "row 4: qty is inf"),
    (9, "ev", BOTH | DEPTH, "row 9: a depth event needs exactly one of the flags BUY"),
    (9, "ev", BOTH | DEPTH | BUY | SELL, "row 9: a depth event needs exactly one"),
    (9, "ev", BOTH | 10 | BUY, "row 9: a market-by-order event (kind 10)"),
    (9, "ev", BOTH | 77, "row 9: unknown event kind 77"),
]
