"""The settings of the simulated venue: plain data, nothing of hftbacktest is loaded for it.

Entry point: `VenueConfig`. `gateways.hftbacktest` says what each of them means there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from tickrt.errors import ConfigError, DataError
from tickrt.literals import Exchange, QueueModel

__all__ = ["VenueConfig"]


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
