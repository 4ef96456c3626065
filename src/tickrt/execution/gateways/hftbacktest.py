"""hftbacktest as the venue: queue position, order latency, fees, and its functions by address.

Entry points: `VenueConfig`, `HftbacktestGateway`. The backtester is built once, from the same event
files that the loop reads; compiled code then calls its exported C functions by address
(`hftbacktest_kernels`), so nothing of it has to be compiled by Numba, and kernels that use it are
cached on disk.

Known limits of hftbacktest 2.4.4, which the code works around or names:
- its own account ignores partial fills (its issues #299, #316): positions and cash come from our
  own accounts here, fed by the unfilled quantity of each order;
- its exchange with partial fills stops with error 14 when a fill is exact (its issues #301, #312):
  so a millionth of a lot less than ordered is submitted, and lots are rounded;
- several executions of one order that are reported at one moment show the last price only: such a
  taking order is booked at that price, its worst;
- `exchange="whole"` fills an order whole or not at all, a taking one at the best price whatever is
  displayed there: keep orders small against the touch;
- our orders leave no trace in the book (no impact), as in any replay of recorded data.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickrt.compile.by_ref import Pinned
from tickrt.compile.codes import EXCH
from tickrt.compile.jit import CFunction, c_function
from tickrt.errors import DataError
from tickrt.execution.gateways import hftbacktest_kernels
from tickrt.execution.gateways.gateway import CAPACITY, GatewayContext
from tickrt.execution.gateways.venue import VenueConfig
from tickrt.market.instrument import Instrument
from tickrt.memory.records import INTENT_DTYPE, REPORT_DTYPE
from tickrt.memory.ring import Ring

__all__ = ["CALLS", "HftbacktestGateway", "VenueConfig"]


# Columns of `VenueState.calls`: addresses.
CALLS: tuple[str, ...] = (
    "elapse",
    "current_timestamp",
    "submit_buy_order",
    "submit_sell_order",
    "cancel",
    "orders",
    "clear_inactive_orders",
)
_SHORT_LOTS = 1e-6

_ERRORS = {
    10: "an order id was used twice",
    11: "a request of that order is under way already",
    12: "it does not know that order",
    13: "an order request that it does not understand",
    14: 'an order whose state allows no fill (its issue #312): use exchange="whole"',
}


def _asset(api: Any, config: VenueConfig, data: NDArray[np.void], instrument: Instrument) -> Any:
    asset = api.BacktestAsset().data(data)
    if instrument.contract == "inverse":
        asset = asset.inverse_asset(instrument.contract_size)
    else:
        asset = asset.linear_asset(instrument.contract_size)
    if config.latency_file is not None:
        asset = asset.intp_order_latency([str(config.latency_file)])
    else:
        asset = asset.constant_order_latency(config.entry_latency_ns, config.response_latency_ns)
    name = config.queue_model.rstrip("23")
    queue = getattr(asset, f"{name}_queue_model{config.queue_model.removeprefix(name)}")
    asset = queue(config.queue_power) if config.queue_model.startswith("power") else queue()
    whole = config.exchange == "whole"
    asset = asset.no_partial_fill_exchange() if whole else asset.partial_fill_exchange()
    asset = asset.trading_value_fee_model(instrument.maker_fee, instrument.taker_fee)
    asset = asset.tick_size(instrument.tick_size).lot_size(instrument.lot_size)
    return asset.last_trades_capacity(0)


def _address(function: Any) -> int:
    return int(ctypes.cast(function, ctypes.c_void_p).value or 0)


@cache
def _functions() -> tuple[CFunction, CFunction]:
    return (
        c_function(hftbacktest_kernels.venue_submit, 2),
        c_function(hftbacktest_kernels.venue_read_reports, 2),
    )


class HftbacktestGateway:
    """hftbacktest as the gateway of one loop: one asset for each symbol, in order.

    Args:
        config: the venue.
        events: `EVENT_DTYPE` events with EXCH and LOCAL flags of each symbol.
        context: what the loop's strategies trade.

    Raises:
        DataError: a symbol has no events for the exchange's side.
    """

    name = "hftbacktest"

    def __init__(
        self,
        config: VenueConfig,
        events: Sequence[NDArray[np.void]],
        context: GatewayContext,
    ) -> None:
        import hftbacktest as api  # it compiles at import: only when a backtest is wanted
        from hftbacktest import _hftbacktest as build
        from hftbacktest import binding

        files = list(zip(events, context.markets, strict=True))
        _check_exchange_side(files)
        self.orders = Ring.local(CAPACITY, INTENT_DTYPE)
        self.reports = Ring.local(CAPACITY, REPORT_DTYPE)
        self._owned = tuple(np.ascontiguousarray(data) for data, _ in files)
        self._assets = [
            _asset(api, config, d, f[1]) for d, f in zip(self._owned, files, strict=True)
        ]
        self.state = hftbacktest_kernels.new_state(
            [_address(getattr(binding, f"hashmapbt_{name}")) for name in CALLS],
            _address(binding.orders_get),
            int(build.build_hashmap_backtest(self._assets)),
            _SHORT_LOTS if config.exchange == "partial" else 0.0,
            (self.orders.view, self.reports.view),
            context.symbols,
            [(context.markets[s].tick_size, context.markets[s].lot_size) for s in context.symbols],
        )
        self._close = binding.hashmapbt_close
        self._pinned = Pinned(self.state)

    def handle(self) -> NDArray[np.int64]:
        """int64[4] in the order of `codes.GATEWAY_*`."""
        submit, read_reports = (function.address for function in _functions())
        return np.array([submit, read_reports, 0, self._pinned.address], np.int64)

    def describe(self) -> dict[str, Any]:
        """Its name."""
        return {"gateway": self.name}

    @property
    def refused(self) -> int:
        """How many orders it refused."""
        return int(self.state.times[hftbacktest_kernels.REFUSED])

    def error(self) -> str:
        """What hftbacktest reported when one of its functions failed."""
        code = int(self.state.times[hftbacktest_kernels.VENUE_ERROR])
        if code == 0:
            return ""
        text = _ERRORS.get(code, "see hftbacktest's documentation")
        return f"hftbacktest stopped with error {code}: {text}"

    def close(self) -> None:
        """Free the backtester; a second call does nothing."""
        if self.state.pointer[0]:
            self._close(int(self.state.pointer[0]))
            self.state.pointer[0] = 0
            self._pinned.close()


def _check_exchange_side(files: Sequence[tuple[NDArray[np.void], Instrument]]) -> None:
    for data, instrument in files:
        if not (data["ev"] & np.uint64(EXCH)).any():
            raise DataError(
                f"{instrument.symbol}: no event carries the EXCH flag (1 << 31), so there is no "
                "exchange to simulate: convert the data again with `tickrt data convert`"
            )
