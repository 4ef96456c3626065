"""The orders of a session: a table of 64 slots per strategy, allocated once.

`new_orders(P)` makes it; the kernels of `execution` change it. An order that has ended stays in its
slot until the slot is needed, so that a late report still finds it.

Invariants: `open_lots[p]` is the sum of the unfilled lots of the live orders (buys, sells) and
`live[p]` their number, after every kernel.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tickrt.compile.codes import ORDER_SLOTS
from tickrt.errors import ConfigError
from tickrt.execution.state_machine import TABLE

__all__ = ["Orders", "new_orders"]


class Orders(NamedTuple):
    """The orders of P strategies in C slots each."""

    order_id: NDArray[np.int64]  # [P, C] 0 = never used
    state: NDArray[np.int64]  # [P, C] OrderState
    side: NDArray[np.int64]  # [P, C] +1 / −1
    px_tick: NDArray[np.int64]  # [P, C]
    qty_lots: NDArray[np.int64]  # [P, C] as sent
    filled: NDArray[np.int64]  # [P, C] lots filled so far
    tif: NDArray[np.int64]  # [P, C] GTC, GTX, IOC
    sent_ns: NDArray[np.int64]  # [P, C] when it was decided
    seq: NDArray[np.int64]  # [P, C] the row that it was decided on
    open_lots: NDArray[np.int64]  # [P, 2] unfilled lots of live orders: buys, sells
    live: NDArray[np.int64]  # [P] live orders
    cursor: NDArray[np.int64]  # [P] where the search for a slot starts
    sent: NDArray[np.int64]  # [P] orders sent so far
    last_id: NDArray[np.int64]  # [P] the largest order id that was sent
    table: NDArray[np.int64]  # [states, events] state_machine.TABLE


def new_orders(strategies: int) -> Orders:
    """An empty table for that many strategies.

    Raises:
        ConfigError: fewer than one strategy.
    """
    if strategies < 1:
        raise ConfigError(f"orders: expected at least one strategy, got {strategies}")
    shape = (strategies, ORDER_SLOTS)

    def whole(*size: int) -> NDArray[np.int64]:
        return np.zeros(size, np.int64)

    return Orders(
        order_id=whole(*shape),
        state=whole(*shape),
        side=whole(*shape),
        px_tick=whole(*shape),
        qty_lots=whole(*shape),
        filled=whole(*shape),
        tif=whole(*shape),
        sent_ns=whole(*shape),
        seq=whole(*shape),
        open_lots=whole(strategies, 2),
        live=whole(strategies),
        cursor=whole(strategies),
        sent=whole(strategies),
        last_id=whole(strategies),
        table=TABLE.copy(),
    )
