"""What one traded contract is: its tick, its lot, how it pays, what it costs.

`Instrument` is frozen and checked when it is made; `KNOWN` holds the contracts of the recorded
captures. Order quantity is counted in lots (``qty = lots × lot_size``), prices in ticks.

A *linear* contract pays ``qty × contract_size × (exit − entry)`` in the quote currency. An
*inverse* contract is worth `contract_size` of the quote currency and pays in coin:
``qty × contract_size × (1/entry − 1/exit)``, as hftbacktest's ``inverse_asset(contract_size)``.

Known limit: one fee schedule per contract; no fee tiers, funding or expiry.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tickrt.compile.codes import (
    CONTRACT,
    INSTRUMENT_COLUMNS,
    INVERSE,
    LOT,
    MAKER_FEE,
    TAKER_FEE,
    TICK,
)
from tickrt.errors import ConfigError

__all__ = ["KNOWN", "Instrument"]


@dataclass(frozen=True)
class Instrument:
    """One contract.

        tr.Instrument("MYCOIN", tick_size=0.01, lot_size=0.1, taker_fee=0.0004)

    Attributes:
        symbol: the venue's name of it.
        tick_size: smallest price step, in quote currency.
        lot_size: smallest quantity step, in the feed's unit of quantity.
        contract: ``linear`` (pays in quote currency) or ``inverse`` (pays in coin).
        contract_size: linear: coins per unit of quantity; inverse: quote currency per contract.
        maker_fee: share of the traded value; negative is a rebate.
        taker_fee: the same for orders that take liquidity.

    Raises:
        ConfigError: a field is missing its unit of sense; the message names it.
    """

    symbol: str
    tick_size: float
    lot_size: float
    contract: Literal["linear", "inverse"] = "linear"
    contract_size: float = 1.0
    maker_fee: float = 0.0002
    taker_fee: float = 0.0005

    def __post_init__(self) -> None:
        if not isinstance(self.symbol, str) or not self.symbol:
            raise ConfigError(f"instrument.symbol: expected a name, got {self.symbol!r}")
        for name in ("tick_size", "lot_size", "contract_size", "maker_fee", "taker_fee"):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not math.isfinite(value):
                raise ConfigError(f"instrument.{name}: expected a finite number, got {value!r}")
            if name.endswith("_size") and value <= 0:
                raise ConfigError(f"instrument.{name}: expected a number above 0, got {value!r}")
            if name.endswith("_fee") and abs(value) >= 1:
                raise ConfigError(
                    f"instrument.{name}: expected a share of the traded value "
                    f"(0.0005 is 5 basis points), got {value!r}"
                )
        if self.contract not in ("linear", "inverse"):
            raise ConfigError(
                f"instrument.contract: expected 'linear' or 'inverse', got {self.contract!r}"
            )

    @property
    def inverse(self) -> bool:
        """True where the contract pays in coin."""
        return self.contract == "inverse"

    def row(self) -> NDArray[np.float64]:
        """float64[8]: the instrument as kernels know it; columns: `codes.TICK` … `TAKER_FEE`."""
        row = np.zeros(INSTRUMENT_COLUMNS)
        row[TICK], row[LOT] = self.tick_size, self.lot_size
        row[INVERSE], row[CONTRACT] = float(self.inverse), self.contract_size
        row[MAKER_FEE], row[TAKER_FEE] = self.maker_fee, self.taker_fee
        return row

    def to_dict(self) -> dict[str, Any]:
        """The fields as a plain dict, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Instrument:
        """The instrument that `to_dict` described.

        Raises:
            ConfigError: an unknown or a missing field, or one out of range.
        """
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise ConfigError(
                    f"instrument.{name}: unknown field; expected some of {', '.join(known)}"
                )
        for name in ("symbol", "tick_size", "lot_size"):
            if name not in values:
                raise ConfigError(f"instrument.{name}: missing")
        return cls(**values)


# Fees: the venues' first tier at the time of the captures (Binance USD-M and COIN-M 0.02/0.05 %;
# Coinbase 0/0.3 %, April 2018).
KNOWN: dict[str, Instrument] = {
    known.symbol: known
    for known in (
        Instrument("BTCUSD_PERP", 0.1, 1.0, "inverse", 100.0),
        Instrument("ETHUSD_PERP", 0.01, 1.0, "inverse", 10.0),
        Instrument("BTCUSDT", 0.1, 0.001),
        Instrument("ETHUSDT", 0.01, 0.001),
        Instrument("BTC-USD", 0.01, 1e-8, maker_fee=0.0, taker_fee=0.003),
    )
}
