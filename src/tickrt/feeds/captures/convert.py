"""Raw captures → one event file. The I/O around the codecs.

`convert` reads captures line by line, decodes them, sets the local clock right, orders the events
as hftbacktest wants them and saves them with `market.io.save_events`. Several files are one
session, in the order given. What was seen, dropped and shifted is in the file's meta and in the
summary that is returned.

Known limit: the whole session is in memory, 64 bytes per event, about three times over while it is
put in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from tickrt import __version__
from tickrt.compile.codes import BATCH_END, BBO, CLEAR, DEPTH, KIND_MASK, LOCAL, SNAPSHOT, TRADE
from tickrt.errors import ConfigError, DataError, GapError
from tickrt.feeds.captures.event_order import order_events, shift_local_clock
from tickrt.feeds.captures.reader import Capture, Progress, detect
from tickrt.feeds.codecs.binance import BinanceCodec
from tickrt.feeds.codecs.buffer import EventBuffer
from tickrt.feeds.codecs.coinbase import GdaxCodec
from tickrt.literals import CaptureKind, OnGap
from tickrt.market.event_file import save_events
from tickrt.market.instrument import KNOWN

__all__ = ["KINDS", "KIND_NAMES", "ConvertOptions", "convert", "count_events"]

KINDS = get_args(CaptureKind)
KIND_NAMES = {DEPTH: "depth", TRADE: "trade", CLEAR: "clear", SNAPSHOT: "snapshot", BBO: "bbo"}

_GAPS_LISTED = 1000
PathLike = str | Path


@dataclass(frozen=True)
class ConvertOptions:
    """What few conversions need.

    Attributes:
        keep_bbo: keep Binance's bookTicker as BBO events; books ignore them.
        base_latency_ns: smallest latency after a local clock that is behind has been set right, or
            where no local time was recorded.

    Raises:
        ConfigError: `base_latency_ns` is negative.
    """

    keep_bbo: bool = False
    base_latency_ns: int = 1_000_000

    def __post_init__(self) -> None:
        if self.base_latency_ns < 0:
            raise ConfigError(f"base_latency_ns: expected 0 or more, got {self.base_latency_ns}")


class _Decoded(NamedTuple):
    events: npt.NDArray[Any]
    symbol: str
    kind: str
    messages: dict[str, Any]
    gaps: list[dict[str, Any]]


_DEFAULTS = ConvertOptions()


def convert(
    paths: PathLike | Sequence[PathLike],
    out: PathLike,
    *,
    kind: str = "auto",
    symbol: str | None = None,
    on_gap: OnGap = "error",
    snapshot: PathLike | Sequence[PathLike] | None = None,
    options: ConvertOptions = _DEFAULTS,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Convert raw captures of one symbol to an event file.

        tr.convert(["btc_1.gz", "btc_2.gz"], "btc.npz", on_gap="resync")

    Args:
        paths: one capture or several that are played as one session, in order; gzip or plain text.
        out: the event file to write (``.npz``); replaced at once when it is complete.
        kind: one of `KINDS`; ``auto`` looks at the content.
        symbol: the symbol to keep, e.g. ``BTCUSDT``; needed where a capture holds several. For gdax
            it only names the product (default ``BTC-USD``).
        on_gap: ``error``, or ``resync``: drop up to the next snapshot and count what was dropped.
        snapshot: file or files that hold the snapshot, where the captures do not.
        options: what few conversions need.
        progress: called with (bytes done, bytes in all) of the captures as they lie on disk.

    Returns:
        The file's meta and ``path``, ``events``, ``batches``, ``span_s``.

    Raises:
        ConfigError: an argument is wrong.
        GapError: the chain of updates is broken; the message says where (`on_gap="error"`).
        DataError: a file or line is unusable, or there is no snapshot; the message says where.
    """
    files = _paths(paths)
    snapshots = _paths(snapshot) if snapshot is not None else []
    path = Path(out)
    _check(files, path, on_gap)
    family, base_latency_ns = _family(files, kind), options.base_latency_ns
    order = snapshots + files if family == "gdax" else files
    capture = Capture(order, progress=progress, allow_truncated=on_gap == "resync")
    if family == "gdax":
        decoded = _gdax(capture, symbol or "BTC-USD")
        decoded.events["local_ts"] += base_latency_ns
        shift, smallest = base_latency_ns, 0
    else:
        codec = BinanceCodec(symbol=symbol, on_gap=on_gap, keep_bbo=options.keep_bbo)
        decoded = _binance(capture, codec, snapshots)
        if kind not in ("auto", "binance", decoded.kind):
            raise DataError(f"{files[0].name}: this is {decoded.kind}, not {kind}: use --kind auto")
        shift, smallest = shift_local_clock(decoded.events, base_latency_ns)
    events = order_events(decoded.events)
    meta = _meta(decoded, files, events)
    meta["clock"] = {
        "shift_ns": shift,
        "base_latency_ns": base_latency_ns,
        "smallest_latency_ns": smallest,
        "local_time": "recorded" if family == "binance" else "exchange time + base latency",
    }
    save_events(path, events, meta)
    local = events["local_ts"][(events["ev"] & np.uint64(LOCAL)) != 0]
    return {
        **meta,
        "path": str(path),
        "events": len(local),
        "batches": meta["counts"]["batches"],
        "span_s": float(local[-1] - local[0]) / 1e9,
    }


def count_events(events: npt.NDArray[Any]) -> dict[str, int]:
    """LOCAL events by kind (`KIND_NAMES`), LOCAL batches, and all rows."""
    flags = events["ev"]
    local = flags[(flags & np.uint64(LOCAL)) != 0]
    kinds = np.bincount((local & np.uint64(KIND_MASK)).astype(np.int64), minlength=256)
    counts = {name: int(kinds[kind]) for kind, name in KIND_NAMES.items()}
    counts["other"] = int(kinds.sum()) - sum(counts.values())
    counts["batches"] = int(np.count_nonzero(local & np.uint64(BATCH_END)))
    counts["rows"] = len(events)
    return counts


def _paths(paths: PathLike | Sequence[PathLike]) -> list[Path]:
    if isinstance(paths, (str, Path)):
        paths = [paths]
    return [Path(path) for path in paths]


def _check(files: list[Path], out: Path, on_gap: str) -> None:
    """Arguments that cannot be: said before the work, not after it."""
    if not files:
        raise ConfigError("convert: no capture given: name one or more files")
    if out.suffix != ".npz":
        raise ConfigError(f"{out}: expected an output file whose name ends in .npz")
    if on_gap not in ("error", "resync"):
        raise ConfigError(f"on_gap: expected error or resync, got {on_gap!r}")


def _family(files: list[Path], kind: str) -> str:
    """``binance`` or ``gdax``: what was asked for, and that every file is of it."""
    if kind not in KINDS:
        raise ConfigError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    found = [detect(path) for path in files]
    families = [name.split("_")[0] for name in found]
    wanted = families[0] if kind == "auto" else kind.split("_")[0]
    for path, family in zip(files, families, strict=True):
        if family != wanted:
            raise DataError(f"{path.name}: this is {family}, not {wanted}: convert it by itself")
    if "binance_snapshot" in found:
        path = files[found.index("binance_snapshot")]
        raise DataError(f"{path.name}: this is a snapshot: give it as the snapshot (--snapshot)")
    return wanted


def _binance(capture: Capture, codec: BinanceCodec, snapshots: list[Path]) -> _Decoded:
    buffer = EventBuffer()
    gaps: list[dict[str, Any]] = []
    stats = codec.stats
    for raw in capture:
        try:
            local_ns, message = _split(raw)
        except DataError as error:
            if not capture.allow_truncated:
                raise _located(error, capture.where) from None
            stats.malformed += 1
            stats.dropped_messages += 1
            continue
        for path in snapshots:
            _external_snapshot(path, codec, local_ns, buffer)
        snapshots = []
        known = stats.gaps
        try:
            codec.decode(message, local_ns, buffer)
        except DataError as error:
            raise _located(error, capture.where) from None
        if stats.gaps > known and len(gaps) < _GAPS_LISTED:
            gaps.append({"file": capture.path.name, "line": capture.line, "local_ns": local_ns})
    if not buffer.count:
        raise DataError(
            f"{capture.paths[0].name}: no usable snapshot in {capture.line} lines: give one as "
            "a file of its own (--snapshot), or record the session with its snapshot"
        )
    messages = {**stats.to_dict(), "truncated_files": [p.name for p in capture.truncated]}
    return _Decoded(buffer.events, codec.symbol, codec.venue, messages, gaps)


def _split(raw: bytes) -> tuple[int, bytes]:
    """``<local ns> <JSON>`` → its parts."""
    head, _, message = raw.partition(b" ")
    if not (head.isdigit() and len(head) == 19):
        raise DataError(
            f"malformed line: expected '<receive time, 19 digits of ns> <JSON>', got {raw[:60]!r}"
        )
    return int(head), message


def _external_snapshot(
    path: Path, codec: BinanceCodec, first_local_ns: int, buffer: EventBuffer
) -> None:
    """Start the book from a file that holds one snapshot, with or without a receive time."""
    for raw in Capture([path]):
        try:
            local_ns, message = (first_local_ns, raw) if raw.startswith(b"{") else _split(raw)
            codec.decode_snapshot(message, min(local_ns, first_local_ns), buffer)
        except DataError as error:
            raise _located(error, f"{path.name}:1") from None
        return


def _gdax(capture: Capture, symbol: str) -> _Decoded:
    capture.paths.sort(key=lambda path: detect(path) != "gdax_snapshot")
    codec, buffer = GdaxCodec(), EventBuffer()
    try:
        for raw in capture:
            codec.decode(raw, -1, buffer)
        codec.finish(buffer)
    except DataError as error:
        if str(error).startswith(capture.path.name):
            raise
        raise _located(error, capture.where) from None
    broken_off = [path.name for path in capture.truncated]
    if capture.truncated and capture.truncated != capture.paths[-1:]:
        raise DataError(
            f"{broken_off[0]}: the gzip data breaks off and what follows cannot be connected: "
            "copy the file again"
        )
    messages = {
        "snapshot_levels": codec.levels,
        "updates": codec.updates,
        "truncated_files": broken_off,
    }
    return _Decoded(buffer.events, symbol, "gdax", messages, [])


def _located(error: DataError, where: str) -> DataError:
    kind = GapError if isinstance(error, GapError) else DataError
    return kind(f"{where}: {error}")


def _meta(decoded: _Decoded, files: list[Path], events: npt.NDArray[Any]) -> dict[str, Any]:
    instrument = KNOWN.get(decoded.symbol)
    return {
        "symbol": decoded.symbol,
        "instrument": instrument.to_dict() if instrument else None,
        "source": {
            "kind": decoded.kind,
            "files": [path.name for path in files],
            "converter": f"tickrt {__version__}",
        },
        "counts": count_events(events),
        "messages": decoded.messages,
        "gaps": decoded.gaps,
    }
