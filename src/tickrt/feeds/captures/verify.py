"""Checks a converted event file against the raw captures: best prices against bookTicker messages.

The exchange sends the best bid and ask by themselves (bookTicker), each with an update id `u`.
After a depth update with id `u`, the book that was built from snapshot and diffs must have the best
prices of the newest bookTicker whose id is not above it. `verify_best` reads the bookTicker
messages from the captures by itself, so a mistake of the codec cannot hide in both.

Needs the update ids that `convert` keeps in ``order_id``; files of other converters have none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tickrt.compile.codes import DEPTH, KIND_MASK
from tickrt.errors import DataError
from tickrt.feeds.captures.reader import Capture, Progress
from tickrt.feeds.captures.replay import guess_tick_size, replay_book
from tickrt.market.event_file import load_events

__all__ = ["Tickers", "read_tickers", "verify_best"]

_EXAMPLES = 10


class Tickers(NamedTuple):
    """bookTicker messages in the order of their update ids; n of them."""

    update: npt.NDArray[np.int64]  # [n]
    px: npt.NDArray[np.float64]  # [n, 2]: best bid, best ask
    qty: npt.NDArray[np.float64]  # [n, 2]


def verify_best(
    path: str | Path,
    captures: str | Path | Sequence[str | Path],
    *,
    tick_size: float | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Compare the book at each depth update with the newest bookTicker not above its update id.

    Args:
        path: an event file that `convert` made.
        captures: the captures it was made from.
        tick_size: None: the file's instrument, else guessed from the prices.
        progress: called with (bytes done, bytes in all) of the captures.

    Returns:
        ``updates`` (depth batches), ``compared`` (those with a bookTicker before them), ``equal``
        and ``share`` (both best prices equal), ``qty_equal`` (quantities too), ``crossed_batches``,
        ``refused_events``, and up to ten ``mismatches``.

    Raises:
        DataError: a file is unusable, the event file has no update ids, or the captures hold no
            bookTicker of its symbol.
    """
    file = load_events(path)
    events = file.data
    if tick_size is None:
        tick_size = file.instrument.tick_size if file.instrument else guess_tick_size(events)
    symbol = (file.meta or {}).get("symbol")
    tickers = read_tickers(captures, symbol, progress=progress)
    replay = replay_book(events, tick_size)
    last = events[replay.row]
    depth = (last["ev"] & np.uint64(KIND_MASK)) == DEPTH
    update = last["order_id"][depth].astype(np.int64)
    if not update.any():
        raise DataError(
            f"{path}: no update ids: only files made by `tickrt data convert` have them"
        )
    at = np.searchsorted(tickers.update, update, side="right") - 1
    known = at >= 0
    at = at[known]
    ticks = np.rint(tickers.px[at] / tick_size).astype(np.int64)
    book = np.stack([replay.bid, replay.ask], axis=1)[depth][known]
    equal = (book == ticks).all(axis=1)
    same_qty = equal & (replay.qtys[depth][known] == tickers.qty[at]).all(axis=1)
    compared = len(equal)
    return {
        "updates": len(update),
        "compared": compared,
        "equal": int(equal.sum()),
        "share": float(equal.mean()) if compared else 0.0,
        "qty_equal": int(same_qty.sum()),
        "crossed_batches": int(replay.crossed.sum()),
        "refused_events": replay.refused,
        "mismatches": [
            {
                "row": int(replay.row[depth][known][i]),
                "update": int(update[known][i]),
                "book_ticks": book[i].tolist(),
                "ticker_ticks": ticks[i].tolist(),
                "ticker_update": int(tickers.update[at[i]]),
            }
            for i in np.flatnonzero(~equal)[:_EXAMPLES]
        ],
    }


def read_tickers(
    captures: str | Path | Sequence[str | Path],
    symbol: str | None = None,
    *,
    progress: Progress | None = None,
) -> Tickers:
    """The bookTicker messages of `symbol` (None: of all) in raw Binance captures.

    Raises:
        DataError: a file or line is unusable, or there are none.
    """
    paths = [captures] if isinstance(captures, (str, Path)) else captures
    capture = Capture([Path(path) for path in paths], progress=progress)
    rows: list[tuple[int, float, float, float, float]] = []
    for raw in capture:
        if b'"bookTicker"' not in raw:
            continue
        try:
            message = json.loads(raw.partition(b" ")[2])
            data = message.get("data", message)
            if symbol is None or data["s"] == symbol:
                prices = (float(data[name]) for name in ("b", "a", "B", "A"))
                rows.append((int(data["u"]), *prices))  # type: ignore[arg-type]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{capture.where}: malformed bookTicker: {error}") from None
    if not rows:
        raise DataError(
            f"{capture.path.name}: no bookTicker of {symbol or 'any symbol'}: the check needs a "
            "capture that recorded them"
        )
    rows.sort(key=lambda row: row[0])
    update = np.array([row[0] for row in rows], np.int64)
    values = np.array([row[1:] for row in rows], np.float64)
    return Tickers(update, values[:, :2], values[:, 2:])
