"""The state of feature streams: one record of arrays for all (symbol, spec) pairs of a session.

`new_streams` lays out a `Streams` for the kernels in `feature.kernels`; `window` is the newest T
rows as a view. A stream's rows live in a mirrored ring of 2·T rows: row q is written at slot
``q % T`` and at ``q % T + T``, so the newest window is contiguous and is never copied.

Known limits: the scratch arrays are shared by the streams of one record, so one thread drives it.
The record holds addresses of its own arrays (for user columns): it cannot be copied or pickled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tickrt.errors import SpecError
from tickrt.feature import kernels as k_
from tickrt.feature.spec import Column, FeatureSpec
from tickrt.feature.user_columns import column_address

__all__ = ["Streams", "new_streams", "window"]

I8 = NDArray[np.int64]
F8 = NDArray[np.float64]
F4 = NDArray[np.float32]

_OPS = {
    "levels": k_.LEVELS,
    "volume": k_.VOLUME,
    "order_flow": k_.ORDER_FLOW,
    "imbalance": k_.IMBALANCE,
    "microprice": k_.MICROPRICE,
    "spread": k_.SPREAD,
    "returns": k_.RETURNS,
    "elapsed": k_.ELAPSED,
    "user": k_.USER,
}


class Streams(NamedTuple):
    """K streams. F = width, T = window of a stream."""

    symbol: I8  # [K] index of the symbol in the book
    width: I8  # [K] F
    window: I8  # [K] T
    row_offset: I8  # [K] where the stream's ring starts in `rows`
    norm_offset: I8  # [K] where its numbers start in `mean`, `inv_std`
    on_depth: I8  # [K] 1: only a batch that touches the book makes a row
    depth: I8  # [K] book levels a side that a row reads
    rows: F4  # mirrored rings, 2·T·F per stream
    mean: F4
    inv_std: F4
    clip: F4  # [K]
    seq: I8  # [K] rows ever made
    count: I8  # type: ignore[assignment]  # [K] rows since the last reset; the window is complete from T on
    last_ts: I8  # [K] time of the last row, ns
    ops: I8  # [O,8] the programs; columns as KIND…LEVEL_COUNT in kernels.py
    op_range: I8  # [K,2] first and last + 1 op of a stream
    params: F8
    acc: F8  # [K,8] signed and unsigned volume, depth seen, since the last row
    scratch_tick: I8  # [2,128] best levels of the symbol in hand
    scratch_qty: F8  # [2,128]
    changed: I8  # [128] of these, the ones whose quantity changed since the last row
    raw: F4  # [max F] the row before normalisation
    logs: F8  # [K,2,1024,2] last quantity by price slot, and its logarithm
    before: F8  # [K,2,2,10] ticks and quantities at the last row, for order flow
    mids: F8  # [K,H] mid prices of the last H rows, H a power of two
    user: F8  # [U,40] a user column's result, state and parameters
    addresses: I8  # [3] of scratch_tick, scratch_qty, user


def _params(column: Column) -> list[float]:
    if column.kind == "returns":
        return [float(lag) for lag in column.lags]
    if column.kind == "imbalance":
        return [float(column.depth)]
    return [1.0 / column.unit, float(column.log)]


def _program(
    specs: Sequence[FeatureSpec],
) -> tuple[list[list[int]], list[list[int]], list[float], list[Column]]:
    """Ops, op ranges, parameters and user columns of the streams."""
    ops: list[list[int]] = []
    ranges: list[list[int]] = []
    params: list[float] = []
    users: list[Column] = []
    for spec in specs:
        first, out = len(ops), 0
        for i, column in enumerate(spec.columns):
            size, function = len(column.names), 0
            if column.kind == "user":
                function = column_address(column, f"{spec.path or spec.name}: $.columns[{i}]")
                users.append(column)
            count = column.depth if column.kind == "levels" else size
            row = [_OPS[column.kind], out, count, len(params), function, len(users) - 1]
            row += [column.depth, 0]
            ops.append(row)
            params += _params(column)
            out += size
        ranges.append([first, len(ops)])
    return ops, ranges, params, users


def _user_blocks(users: Sequence[Column]) -> F8:
    blocks = np.zeros((max(1, len(users)), k_.BLOCK_SIZE))
    for i, column in enumerate(users):
        blocks[i, k_.PARAMS : k_.PARAMS + len(column.params)] = column.params
    return blocks


def _offsets(sizes: Sequence[int]) -> I8:
    return np.concatenate([[0], np.cumsum(sizes)])[: len(sizes)].astype(np.int64)


def new_streams(items: Sequence[tuple[int, FeatureSpec, float]]) -> Streams:
    """Make the state of the streams `items` = (symbol index, spec, tick size).

    Compiles the user columns that the specs name (about a second each, once per process).

    Raises:
        SpecError: a user column cannot be used.
    """
    if not items:
        raise SpecError("a session needs at least one (symbol, spec) stream")
    specs = [spec for _, spec, _ in items]
    n = len(items)
    ops, ranges, params, users = _program(specs)
    widths = [spec.width for spec in specs]
    lags = [lag for spec in specs for column in spec.columns for lag in column.lags]
    user = _user_blocks(users)
    tick, qty = np.zeros((2, k_.MAX_LEVELS), np.int64), np.zeros((2, k_.MAX_LEVELS))

    def ints(values: Any) -> I8:
        return np.array(values, np.int64)

    return Streams(
        symbol=ints([symbol for symbol, _, _ in items]),
        width=ints(widths),
        window=ints([spec.window for spec in specs]),
        row_offset=_offsets([2 * spec.window * spec.width for spec in specs]),
        norm_offset=_offsets(widths),
        on_depth=ints([spec.row_on == "depth" for spec in specs]),
        depth=ints([spec.depth for spec in specs]),
        rows=np.zeros(sum(2 * spec.window * spec.width for spec in specs), np.float32),
        mean=np.concatenate([spec.mean for spec in specs]).astype(np.float32),
        inv_std=(1.0 / np.concatenate([spec.std for spec in specs])).astype(np.float32),
        clip=np.array([spec.clip for spec in specs], np.float32),
        seq=np.zeros(n, np.int64),
        count=np.zeros(n, np.int64),
        last_ts=np.zeros(n, np.int64),
        ops=ints(ops),
        op_range=ints(ranges),
        params=np.array(params, np.float64),
        acc=np.zeros((n, 8)),
        scratch_tick=tick,
        scratch_qty=qty,
        changed=np.zeros(k_.MAX_LEVELS, np.int64),
        raw=np.zeros(max(widths), np.float32),
        logs=np.full((n, 2, k_.LOG_SLOTS, 2), -1.0),
        before=np.zeros((n, 2, 2, k_.FLOW_LEVELS)),
        mids=np.zeros((n, 1 << max(lags, default=0).bit_length())),
        user=user,
        addresses=ints([tick.ctypes.data, qty.ctypes.data, user.ctypes.data]),
    )


def window(streams: Streams, k: int) -> F4:
    """Stream k's newest window, float32 [T, F]: a view, valid until its next row.

    Rows older than the last reset are in it while ``count[k] < T``.
    """
    t, f = int(streams.window[k]), int(streams.width[k])
    first = int(streams.row_offset[k]) + (int(streams.seq[k]) % t + 1) * f
    return streams.rows[first : first + t * f].reshape(t, f)
