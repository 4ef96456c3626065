"""Every exception that tickrt raises on purpose, and the codes that compiled kernels return.

    TickrtError
    ├── ConfigError          a setting or an argument is wrong
    ├── DataError            a file of market data is wrong: where, what, how to fix
    │   └── GapError         the feed's sequence chain is broken
    ├── BookError            the order book refused an event
    ├── SpecError            a feature spec is wrong
    ├── ModelError           an ONNX model cannot be used
    │   ├── FeatureMismatchError  the model was trained on another feature spec
    │   ├── SplitError       a model could not be split, or the split is not exact
    │   ├── PrecisionError   a precision cannot be applied to a layer
    │   └── BuildError       the engine builder failed
    ├── BundleError          a bundle cannot be used
    │   ├── TamperedError    its signature or a digest does not match
    │   └── IncompatibleError built for another GPU, driver or library
    ├── RegistryError        the engine registry refused an operation
    ├── EngineError          an engine failed while it ran
    │   └── HostError        the process that owns an engine failed, ended or did not answer
    └── HaltedError          a strategy is halted until a person re-arms it

Compiled code never raises; it returns a `Code`, and `raise_code` turns that into an exception.
"""

from __future__ import annotations

from enum import IntEnum

from tickrt.compile import codes

__all__ = [
    "BookError",
    "BuildError",
    "BundleError",
    "Code",
    "ConfigError",
    "DataError",
    "EngineError",
    "FeatureMismatchError",
    "GapError",
    "HaltedError",
    "HostError",
    "IncompatibleError",
    "ModelError",
    "PrecisionError",
    "RegistryError",
    "SpecError",
    "SplitError",
    "TamperedError",
    "TickrtError",
    "raise_code",
]


class TickrtError(Exception):
    """Base of every tickrt exception. The message says where, what, and how to fix it.

        try:
            tr.load_events("nowhere.npz")
        except tr.TickrtError as error:
            print(error)

    `tickrt.errors` has its kinds.
    """


class ConfigError(TickrtError):
    """A setting or an argument is wrong."""


class DataError(TickrtError):
    """A file of market data is wrong."""


class GapError(DataError):
    """The feed's sequence chain is broken."""


class BookError(TickrtError):
    """The order book refused an event."""


class SpecError(TickrtError):
    """A feature spec is wrong."""


class ModelError(TickrtError):
    """An ONNX model cannot be used."""


class FeatureMismatchError(ModelError):
    """The model was trained on another feature spec than the one that runs."""


class SplitError(ModelError):
    """A model could not be split, or the split is not exact."""


class PrecisionError(ModelError):
    """A precision cannot be applied to a layer."""


class BuildError(ModelError):
    """The engine builder failed."""


class BundleError(TickrtError):
    """A bundle cannot be used."""


class TamperedError(BundleError):
    """A bundle's signature or a digest does not match."""


class IncompatibleError(BundleError):
    """A bundle was built for another GPU, driver or library."""


class RegistryError(TickrtError):
    """The engine registry refused an operation."""


class EngineError(TickrtError):
    """An engine failed while it ran."""


class HostError(EngineError):
    """The process that owns an engine failed, ended or did not answer."""


class HaltedError(TickrtError):
    """A strategy is halted until a person re-arms it."""


class Code(IntEnum):
    """What a compiled kernel returns. Zero and positive values are good news."""

    OK = codes.OK
    PENDING = codes.PENDING
    BOOK_CROSSED = codes.BOOK_CROSSED
    BOOK_FAR_FULL = codes.BOOK_FAR_FULL
    BOOK_BAD_EVENT = codes.BOOK_BAD_EVENT
    ENGINE_FAILED = codes.ENGINE_FAILED
    ENGINE_TIMEOUT = codes.ENGINE_TIMEOUT
    ENGINE_STALE = codes.ENGINE_STALE
    ENGINE_NOT_FINITE = codes.ENGINE_NOT_FINITE
    RING_FULL = codes.RING_FULL
    RING_OVERRUN = codes.RING_OVERRUN
    ORDERS_FULL = codes.ORDERS_FULL
    BAD_TRANSITION = codes.BAD_TRANSITION
    COLUMN_NOT_FINITE = codes.COLUMN_NOT_FINITE
    VENUE_FAILED = codes.VENUE_FAILED


_TABLE: dict[Code, tuple[type[TickrtError], str]] = {
    Code.BOOK_CROSSED: (
        BookError,
        "the book is crossed after a complete batch: the feed lost or reordered a message; "
        "convert with --on-gap resync",
    ),
    Code.BOOK_FAR_FULL: (
        BookError,
        "too many levels outside the price ladder: raise `far_capacity` or `ladder_ticks`",
    ),
    Code.BOOK_BAD_EVENT: (
        BookError,
        "an event with a price or quantity that is negative or not finite: "
        "check the file with `tickrt data info`",
    ),
    Code.ENGINE_FAILED: (EngineError, "the engine reported an error"),
    Code.ENGINE_TIMEOUT: (EngineError, "the engine missed its deadline"),
    Code.ENGINE_STALE: (EngineError, "the engine's output belongs to another row"),
    Code.ENGINE_NOT_FINITE: (EngineError, "the engine's output is NaN or infinite"),
    Code.RING_FULL: (EngineError, "a ring is full: its reader is too slow or has died"),
    Code.RING_OVERRUN: (EngineError, "a ring's writer overtook its reader: events were lost"),
    Code.ORDERS_FULL: (EngineError, "a strategy has more open orders than its table holds"),
    Code.BAD_TRANSITION: (EngineError, "an order report that its state does not allow"),
    Code.COLUMN_NOT_FINITE: (
        SpecError,
        "a user's feature column raised an exception or returned NaN or infinity",
    ),
    Code.VENUE_FAILED: (EngineError, "the gateway's venue reported an error"),
}


def raise_code(code: int, where: str) -> None:
    """Raise the exception for `code`, with `where` in front; do nothing for codes >= 0.

    Args:
        code: what a kernel returned.
        where: what was being done, e.g. ``btc.npz: event 1041``.

    Raises:
        TickrtError: the subclass that `Code` stands for.
    """
    if code >= 0:
        return
    kind, text = _TABLE[Code(code)]
    raise kind(f"{where}: {text} ({Code(code).name})")
