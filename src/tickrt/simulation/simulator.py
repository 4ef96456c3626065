"""A seeded queue-reactive market: event files of any length that look like a recorded perpetual.

Model and source: W. Huang, C.-A. Lehalle, M. Rosenbaum, "Simulating and analyzing order book data:
the queue-reactive model", JASA 110 (2015). How it was adapted to a sparse book, how it was
calibrated, and where it does not fit, is told in ``docs/simulator.md``; `simulator_kernels` holds
the chain itself.

Entry points: `simulate` for an array of events, `Simulator` for an endless stream in chunks,
`load_calibration` and the shipped calibrations in this folder (``calibration_<name>.json``).

Invariants: the same seed, calibration and `GENERATOR` version give the same bytes on every machine
and with `NUMBA_DISABLE_JIT=1`. The first message is CLEAR and SNAPSHOT; every message ends with
BATCH_END; the book is never crossed, not even between two events of one message; times never go
back and ``exch_ts < local_ts``. Prices are mildly predictable, as they are in the model: the side
with the smaller best queue empties first, its next queue is small as well, and moves cascade.

Known limits: depth and trade messages only, no BBO; one symbol; orders are not told apart.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from tickrt.errors import ConfigError
from tickrt.memory.records import EVENT_DTYPE
from tickrt.simulation import queue_kernels as queues
from tickrt.simulation import simulator_kernels as kernels

__all__ = ["GENERATOR", "START_NS", "Calibration", "Simulator", "load_calibration", "simulate"]

GENERATOR = "queue-reactive/1"  # changes whenever the same seed would give other bytes
START_NS = 1_723_161_600_000_000_000  # 2024-08-09 00:00 UTC, the middle of the capture
CHUNK = 1 << 18
MICRO = 1_000_000
UNIT = 1 << 32
CHANCES = ("hazard", "theta", "theta_reinit", "cascade", "persist")

Events = npt.NDArray[np.void]
Record = npt.NDArray[np.void]  # one record: the kernels' tables or state


@dataclass(frozen=True)
class Calibration:
    """The numbers of one market, as `calibrate` wrote them.

    Attributes:
        name: how `simulate` finds it.
        instrument: symbol, what `Instrument.from_dict` takes.
        params: the kernels' arrays.
        start_tick: the first reference bid, in ticks.
        document: the whole JSON document.
    """

    name: str
    instrument: dict[str, Any]
    params: Record
    start_tick: int
    document: dict[str, Any]


def load_calibration(name: str | Path = "btcusd_perp") -> Calibration:
    """Read a calibration by its name, or from a JSON file.

    Raises:
        ConfigError: no such calibration, or its tables do not fit together.
    """
    folder = Path(__file__).parent
    path = Path(name) if str(name).endswith(".json") else folder / f"calibration_{name}.json"
    if not path.is_file():
        known = sorted(p.stem.removeprefix("calibration_") for p in folder.glob("calibration_*"))
        raise ConfigError(
            f"calibration {str(name)!r}: not found; give a .json file or one of {', '.join(known)}"
        )
    try:
        return from_document(json.loads(path.read_text(encoding="utf-8")))
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{path}: not a calibration ({type(error).__name__}: {error}); "
            "make it with `python -m tickrt.simulation.calibrate`"
        ) from error


def from_document(document: dict[str, Any]) -> Calibration:
    """Turn a calibration document into the kernels' arrays.

    Raises:
        KeyError, ValueError: a table is missing, or its shape is not what the cells ask for.
    """
    edge = np.array(document["cells"], np.int64)
    cells, depth = len(edge) - 1, int(edge[-1])
    if edge[0] != 0 or edge[1] != 1 or np.any(np.diff(edge) < 1):
        raise ValueError("cells: expected rising ticks from 0, 1, …")
    rates, sizes, batches = document["rates"], document["sizes"], document["batches"]
    bins = len(rates["market"])

    def table(values: Any, *shape: int, scale: float = 1.0) -> npt.NDArray[np.int64]:
        array = np.rint(np.array(values, np.float64) * scale).astype(np.int64)
        wrong = array.ndim != len(shape) or any(
            want not in (-1, got) for want, got in zip(shape, array.shape, strict=True)
        )
        if wrong or array.size == 0 or np.any(array < 0):
            raise ValueError(f"a table has shape {array.shape}, expected {shape}, none negative")
        return array

    rate = np.zeros((cells, bins, queues.LEVEL_KINDS), np.int64)
    for kind, key in enumerate(("more", "less", "delete", "touch")):
        rate[:, :, kind] = table(rates[key], cells, bins, scale=MICRO)
    rate[0, :, kernels.MARKET] = table(rates["market"], bins, scale=MICRO)
    classes = len(batches["sizes"])
    next_size = table(batches["next"], -1, -1, classes, scale=UNIT)
    entries = len(sizes["fills"])
    instrument = document["instrument"]
    near = document["near_cells"], batches["fast_shift"], batches["slow_shift"]
    values: dict[str, Any] = {
        "edge": edge,
        "cell": np.repeat(np.arange(cells), np.diff(edge)),
        "bin_edge": table(document["bin_edges"], cells, bins - 1),
        "rate": rate,
        "level_rate": rate.sum(axis=2),
        "new": table([0, *rates["new"][1:]], cells, scale=MICRO),
        "blink": table([0, *rates["blink"][1:]], cells, scale=MICRO),
        "occupied": table(document["occupied"], cells, scale=UNIT),
        "rest_size": table(sizes["rest"], cells, entries),
        "new_size": table(sizes["new"], cells, entries),
        "more_size": table(sizes["more"], cells, entries),
        "less_part": table(sizes["less"], 2, bins, entries),
        "market_part": table(sizes["market"], bins, entries),
        "fills": np.minimum(table(sizes["fills"], entries), kernels.FILLS_MAX),
        "follow_size": table(sizes["follow"], entries),
        "refill_size": table(sizes["refill"], entries),
        "left": table(sizes["left"], entries),
        "jump": table(sizes["jump"], entries),
        "best_more": table(sizes["best_more"], bins, entries),
        "chance": table([document[key] for key in CHANCES], queues.CHANCES, scale=UNIT),
        "next_size": next_size,
        "batch_size": table(batches["sizes"], classes, entries),
        "gap_ns": table(batches["gap_ns"], classes, entries + 1),
        "fast_edge": table(batches["fast_edges"], next_size.shape[0] - 1, scale=65536),
        "slow_edge": table(batches["slow_edges"], next_size.shape[1] - 1, scale=65536),
        "latency_ns": table(document["latency_ns"], entries + 1),
        "knob": np.array(near, np.int64),
        "unit": np.array([1 / instrument["tick_size"], 1 / instrument["lot_size"]]).round(6),
    }
    if depth > CHUNK // 64:
        raise ValueError(f"cells: depth {depth} ticks, expected at most {CHUNK // 64}")
    contexts = next_size.shape[:2]
    params = np.zeros(1, queues.params_dtype(cells, bins, depth, entries, classes, contexts))
    for name, value in values.items():
        params[name][0] = value
    return Calibration(document["name"], instrument, params, int(document["start_tick"]), document)


def _words(seed: int) -> list[int]:
    """Four 32-bit words from a seed by splitmix64 (Steele, Lea & Flood 2014)."""
    words: list[int] = []
    state = seed & 0xFFFFFFFFFFFFFFFF
    while len(words) < 4:
        state = (state + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        z ^= z >> 31
        words += [z & 0xFFFFFFFF, z >> 32]
    return words


def _new_state(params: Record, seed: int, start_tick: int, start_ns: int) -> Record:
    cells, bins = params["level_rate"].shape[1:]
    depth = params["cell"].shape[1]
    slots = 1 << (4 * depth - 1).bit_length()
    state = np.zeros(1, queues.state_dtype(cells, bins, depth, slots))
    state["rng"][0] = _words(seed)
    state["group"] = -1
    scalar = state["scalar"][0]
    scalar[queues.REFERENCE] = start_tick
    scalar[queues.NOW] = start_ns
    scalar[queues.FAST] = scalar[queues.SLOW] = (params["batch_size"].shape[1] << 16) // 2
    return cast("Record", state)


class Simulator:
    """An endless market; `chunk` gives its next events.

    Args:
        seed: any integer; its low 64 bits count.
        calibration: a name, a JSON file, or a loaded calibration.
        symbol: the name that the metadata carries.
        start_ns: exchange time of the first message.
    """

    def __init__(
        self,
        seed: int,
        *,
        calibration: str | Path | Calibration = "btcusd_perp",
        symbol: str = "SIM",
        start_ns: int = START_NS,
    ) -> None:
        loaded = calibration
        if not isinstance(loaded, Calibration):
            loaded = load_calibration(loaded)
        self.calibration = loaded
        self.seed = seed
        self.symbol = symbol
        self.start_ns = start_ns
        self._params = loaded.params
        self._state = _new_state(loaded.params, seed, loaded.start_tick, start_ns)
        self._buffer = np.zeros(CHUNK, EVENT_DTYPE)
        self._started = False

    @property
    def elapsed_ns(self) -> int:
        """Exchange time since the first message."""
        return int(self._state["scalar"][0, queues.NOW]) - self.start_ns

    def chunk(self, events: int = CHUNK, until_ns: int = (1 << 62)) -> Events:
        """The next whole messages: `events` events and a few, or what the buffer takes.

        Args:
            events: stop at the first message that reaches so many.
            until_ns: stop before the first message later than this (exchange time).

        Returns:
            A view of an internal buffer, EVENT_DTYPE[n], overwritten by the next call; empty only
            when `until_ns` is reached.
        """
        n = 0
        if not self._started:
            n = int(kernels.start(self._state, self._params, self._buffer))
            self._started = True
        n = int(kernels.run(self._state, self._params, self._buffer, n, events, until_ns))
        return self._buffer[:n]

    def meta(self, count: int) -> dict[str, Any]:
        """Metadata for `save_events`, JSON-ready."""
        return {
            "symbol": self.symbol,
            "instrument": {**self.calibration.instrument, "symbol": self.symbol},
            "source": "simulator",
            "generator": GENERATOR,
            "seed": self.seed,
            "calibration": self.calibration.name,
            "calibrated_on": self.calibration.document.get("source", {}),
            "seconds": self.elapsed_ns / 1e9,
            "events": count,
        }


def simulate(
    seconds: float | None = None,
    events: int | None = None,
    seed: int = 1,
    *,
    calibration: str | Path | Calibration = "btcusd_perp",
    symbol: str = "SIM",
    start_ns: int = START_NS,
    progress: Callable[[float], None] | None = None,
) -> tuple[Events, dict[str, Any]]:
    """Make a session of market data.

        events, meta = tr.simulate(seconds=60, seed=1)
        tr.save_events("sim.npz", events, meta)

    Args:
        seconds: how long, in exchange time; or
        events: how many at least (the last message is complete). Exactly one of the two.
        seed: the same seed gives the same bytes.
        calibration: a name, a JSON file, or a loaded calibration.
        symbol: the name that the metadata carries.
        start_ns: exchange time of the first message.
        progress: called now and then with the finished share, 0…1.

    Returns:
        Events, EVENT_DTYPE[n], and the metadata for `save_events`.

    Raises:
        ConfigError: neither or both of `seconds` and `events`, or one that is not positive.
    """
    if (seconds is None) == (events is None):
        raise ConfigError("simulate: give either `seconds` or `events`")
    wanted = seconds if seconds is not None else events
    if wanted is None or not 0 < wanted < 1e12:
        raise ConfigError(f"simulate: expected a positive length, got {wanted}")
    simulator = Simulator(seed, calibration=calibration, symbol=symbol, start_ns=start_ns)
    until_ns = start_ns + int(seconds * 1e9) if seconds is not None else 1 << 62
    parts: list[Events] = []
    count = 0
    while events is None or count < events:
        part = simulator.chunk(CHUNK if events is None else events - count, until_ns)
        if len(part) == 0:
            break
        parts.append(part.copy())
        count += len(part)
        if progress is not None:
            done = count / events if events else simulator.elapsed_ns / (until_ns - start_ns)
            progress(min(1.0, done))
    return np.concatenate(parts), simulator.meta(count)
