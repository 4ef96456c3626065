"""hftbacktest as the venue: queue position, order latency, fees, and its functions by address.

Entry points: `VenueConfig`, `open_venue`. The backtester is built once, from the same event files
that the loop reads; compiled code then calls its exported C functions by address (`Venue.calls`),
so nothing of it has to be compiled by Numba, and kernels that use it are cached on disk.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from tickrt.errors import ConfigError, DataError, EngineError
from tickrt.execution.orders import SLOTS
from tickrt.literals import Exchange, QueueModel
from tickrt.market.instrument import Instrument

__all__ = ["OpenVenue", "Venue", "VenueConfig", "open_venue"]


# Columns of `Venue.calls`: addresses.
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
VENUE_FAILED = -50  # what the kernels return when hftbacktest reported an error

_ERRORS = {
    10: "an order id was used twice",
    11: "a request of that order is under way already",
    12: "it does not know that order",
    13: "an order request that it does not understand",
    14: 'an order whose state allows no fill (its issue #312): use exchange="whole"',
}


@dataclass(frozen=True)
class VenueConfig:
    """The simulated venue.

    Attributes:
        queue_model: how our place in a queue advances: `risk_adverse` only by trades (a lower bound
            of fills); the others also when quantity before us is cancelled, with the probability
            models of hftbacktest.
        queue_power: exponent of the `power_prob` models.
        exchange: fill orders also in part (`partial`), or `whole` or not at all.
        entry_latency_ns: from our decision to the venue.
        response_latency_ns: from the venue back to us.
        latency_file: recorded order latencies instead (hftbacktest's ``.npz``).
    """

    queue_model: QueueModel = "risk_adverse"
    queue_power: float = 2.0
    exchange: Exchange = "partial"
    entry_latency_ns: int = 2_000_000
    response_latency_ns: int = 2_000_000
    latency_file: Path | None = None

    def __post_init__(self) -> None:
        if self.queue_model not in get_args(QueueModel):
            expected = ", ".join(get_args(QueueModel))
            raise ConfigError(f"venue.queue_model: expected {expected}, got {self.queue_model!r}")
        if self.exchange not in get_args(Exchange):
            raise ConfigError(f"venue.exchange: expected partial or whole, got {self.exchange!r}")
        if not self.queue_power > 0:
            raise ConfigError(f"venue.queue_power: expected more than 0, got {self.queue_power!r}")
        for name in ("entry_latency_ns", "response_latency_ns"):
            if not 0 <= getattr(self, name) <= 3_600_000_000_000:
                got = getattr(self, name)
                raise ConfigError(f"venue.{name}: expected 0 … 1 h in ns, got {got!r}")
        if self.latency_file is not None and not Path(self.latency_file).is_file():
            raise DataError(f"venue.latency_file: {self.latency_file}: no such file")


class Venue(NamedTuple):
    """The venue as compiled code sees it."""

    calls: NDArray[np.int64]  # [7] addresses of CALLS
    get: NDArray[np.int64]  # [1] address of hftbacktest's orders_get
    pointer: NDArray[np.int64]  # [1] the backtester
    cancel_sent: NDArray[np.int64]  # [P, SLOTS] 1 = the venue has our cancel
    short_lots: NDArray[np.float64]  # [1] by how much less than ordered is submitted
    times: NDArray[np.int64]  # [4] its time, end of data reached, its error, orders it refused


@dataclass(frozen=True)
class OpenVenue:
    """A built backtester; `owners` are what its memory refers to."""

    venue: Venue
    owners: tuple[Any, ...]
    _close: Any

    def close(self) -> None:
        """Free the backtester; a second call does nothing."""
        if self.venue.pointer[0]:
            self._close(int(self.venue.pointer[0]))
            self.venue.pointer[0] = 0

    def raise_error(self) -> None:
        """Raise what hftbacktest reported.

        Raises:
            EngineError: always.
        """
        code = int(self.venue.times[2])
        text = _ERRORS.get(code, "see hftbacktest's documentation")
        raise EngineError(f"hftbacktest stopped with error {code}: {text}")


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


def open_venue(
    config: VenueConfig,
    files: Sequence[tuple[NDArray[np.void], Instrument]],
    strategies: int,
) -> OpenVenue:
    """Build the backtester: one asset for each symbol, in order.

    Args:
        config: the venue.
        files: (`EVENT_DTYPE` events with EXCH and LOCAL flags, instrument) of each symbol.
        strategies: how many strategies will send orders.

    Raises:
        DataError: a symbol has no events for the exchange's side.
    """
    import hftbacktest as api  # it compiles at import: only when a backtest is wanted
    from hftbacktest import _hftbacktest as build
    from hftbacktest import binding

    for data, instrument in files:
        if not (data["ev"] & np.uint64(1 << 31)).any():
            raise DataError(
                f"{instrument.symbol}: no event carries the EXCH flag (1 << 31), so there is no "
                "exchange to simulate: convert the data again with `tickrt data convert`"
            )
    owned = tuple(np.ascontiguousarray(data) for data, _ in files)
    assets = [_asset(api, config, d, f[1]) for d, f in zip(owned, files, strict=True)]
    pointer = int(build.build_hashmap_backtest(assets))
    calls = [_address(getattr(binding, f"hashmapbt_{name}")) for name in CALLS]
    venue = Venue(
        calls=np.array(calls, np.int64),
        get=np.array([_address(binding.orders_get)], np.int64),
        pointer=np.array([pointer], np.int64),
        cancel_sent=np.zeros((strategies, SLOTS), np.int64),
        short_lots=np.array([_SHORT_LOTS if config.exchange == "partial" else 0.0]),
        times=np.zeros(4, np.int64),
    )
    return OpenVenue(venue, (owned, assets), binding.hashmapbt_close)
