"""The report as types: what a run or a backtest found out, each figure with its unit.

Entry points: `Report`, the root of the tree; `Unit`, what the numbers are counted in.
`report.report` writes and reads it as JSON; `python -m tickrt.report.schema` makes `docs/report.md`
and `docs/report.schema.json` from what stands here, so what is documented is what is written.

Invariants: frozen, keyword only, in the order in which JSON has them. A field whose default is None
is left out of the JSON where it does not apply; one without a default is always there. Nothing
here imports more than the standard library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal

__all__ = [
    "SCHEMA",
    "Arrangement",
    "BacktestFigures",
    "ChargedLatency",
    "Currency",
    "EngineFacts",
    "FillRow",
    "GpuFigure",
    "GpuSeen",
    "GpuUse",
    "LatencySummary",
    "Machine",
    "Metrics",
    "ModeName",
    "Report",
    "Series",
    "Unit",
]

SCHEMA: Final = 2  # of `report.json`; another number is another format


@dataclass(frozen=True)
class Unit:
    """What a number is counted in; stands in the JSON schema beside its type."""

    text: str

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        return {**handler(core), "unit": self.text}


Count = Annotated[int, Unit("count")]
Lots = Annotated[int, Unit("lots")]
Microseconds = Annotated[float, Unit("µs")]
Nanoseconds = Annotated[int, Unit("ns")]
Seconds = Annotated[float, Unit("s")]
Share = Annotated[float, Unit("share 0…1")]
Price = Annotated[float, Unit("quote currency")]
Money = Annotated[float, Unit("money, see `currency`")]
PerSecond = Annotated[float, Unit("1/s")]
Plain = Annotated[float, Unit("none")]

ModeName = Literal["live", "fallback", "shadow", "halted"]
Currency = Literal["coin", "quote"]


class _Strict:
    """Unknown keys and values of another type are errors when a report is read."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {
        "extra": "forbid",
        "strict": True,
        "allow_inf_nan": False,
        "use_attribute_docstrings": True,
    }


@dataclass(frozen=True, kw_only=True)
class LatencySummary(_Strict):
    """A latency's distribution; all zeros where nothing was measured. Percentiles err by at most
    1/32, upwards. What a count of values can carry is for the reader to judge
    (`report.format.carries`)."""

    count: Count
    """How many times were measured."""
    mean: Microseconds
    """Their mean."""
    min: Microseconds
    """The fastest."""
    p50: Microseconds
    """The median."""
    p90: Microseconds
    """Nine of ten are at most this."""
    p99: Microseconds
    """99 of 100 are at most this."""
    p999: Microseconds
    """999 of 1,000 are at most this."""
    max: Microseconds
    """The slowest."""


@dataclass(frozen=True, kw_only=True)
class EngineFacts(_Strict):
    """What an engine says of itself."""

    backend: str
    """What ran the model: `onnxruntime`, `null`, …"""
    version: str | None = None
    """Of the backend's library."""
    threads: Count | None = None
    """Threads that one inference uses; 1 is the loop's own."""
    model: str | None = None
    """The model's file name."""
    model_sha256: str | None = None
    """SHA-256 of the model's file."""
    split: str | None = None
    """How the off-path states are made: `pre` (from the window), `bank` (all positions step
    together) or `carry` (from row to row). Missing: the whole window runs on the path."""
    on_path_share: Share | None = None
    """Share of the model's multiplications that is left on the path."""
    split_error: Plain | None = None
    """Largest relative difference between the split and the whole model, when it was checked."""
    rows_per_s: dict[str, PerSecond] | None = None
    """Rows a second that one core can sustain, by way of running the model."""
    waits: Count | None = None
    """Rows whose states had to be prepared on the path."""
    signal: list[Plain] | None = None
    """What the `null` backend always answers: down, flat, up."""
    details: dict[str, Annotated[str | int | float | bool, Unit("in its name")]] | None = None
    """Whatever else the backend says of itself."""


@dataclass(frozen=True, kw_only=True)
class Series(_Strict):
    """One strategy over time, thinned to at most 2,000 points: lists of equal length, null where
    there is no value."""

    symbol: str
    """What it traded."""
    strategy: str
    """Its name."""
    currency: Currency
    """What `equity` is counted in: the contract's coin (inverse) or its quote currency."""
    t_ns: list[Nanoseconds]
    """Local times since 1970, UTC."""
    mid: list[Price | None]
    """Mid price."""
    p_up: list[Share | None]
    """The model's probability of up."""
    p_down: list[Share | None]
    """The model's probability of down."""
    position: list[Lots]
    """Position before the decision; negative is short."""
    equity: list[Money | None]
    """Cash and marked position, after fees."""
    equity_gross: list[Money | None] | None = None
    """The same before fees; backtests only."""


@dataclass(frozen=True, kw_only=True)
class FillRow(_Strict):
    """One fill."""

    t_ns: Nanoseconds
    """Local time since 1970, UTC."""
    symbol: str
    """What was traded."""
    strategy: str
    """Whose order it was."""
    side: Literal[1, -1]
    """1: bought, -1: sold."""
    px: Price
    """Its price."""
    qty: Annotated[float, Unit("the feed's unit of quantity")]
    """How much."""
    maker: bool
    """The order was resting."""
    fee: Money
    """Paid for it; negative is a rebate. In the currency of the strategy's series."""


@dataclass(frozen=True, kw_only=True)
class _Whose(_Strict):
    strategy: str
    """Whose figures these are."""
    symbol: str
    """What it traded."""
    currency: Currency
    """What its money is counted in: the contract's coin (inverse) or its quote currency."""


@dataclass(frozen=True, kw_only=True)
class Metrics(_Strict):
    """The figures of one strategy; `backtest.metrics` defines and computes them."""

    pnl_gross: Money
    """Profit before fees."""
    pnl_net: Money
    """Profit after fees, the open position marked at the mid price."""
    fees: Money
    """Fees paid."""
    sharpe: Plain | None
    """Mean over deviation of the change of equity per second; null where it is undefined."""
    sharpe_annual: Plain | None
    """`sharpe` · √(seconds of a year): a scale, not a forecast."""
    max_drawdown: Money
    """Largest fall of equity from an earlier maximum; ≥ 0."""
    turnover: Money
    """Traded value, both sides."""
    fill_ratio: Share | None
    """Filled lots over ordered lots; null without orders."""
    hit_rate: Share | None
    """Share of the closing fills that earned more than their fees; null without any."""
    orders: Count
    """Orders sent to the venue."""
    trades: Count
    """Fills."""
    closing_trades: Count
    """Fills that reduced the position."""
    maker_trades: Count
    """Fills of resting orders."""
    final_position: Lots
    """Position at the end; negative is short."""
    seconds: Seconds
    """Length of the data."""


@dataclass(frozen=True, kw_only=True)
class ChargedLatency(_Strict):
    """What a backtest charged for its inferences; null where there was none."""

    p50: Microseconds | None
    """The median."""
    p99: Microseconds | None
    """99 of 100 are at most this."""


@dataclass(frozen=True, kw_only=True)
class BacktestFigures(Metrics, _Whose):
    """What one strategy earned, and how."""

    inference_latency_us: ChargedLatency
    """What each inference was charged."""


@dataclass(frozen=True, kw_only=True)
class Machine(_Strict):
    """What it was measured on; what could not be found is missing."""

    cpu: str
    """Model of the processor."""
    cores: Count
    """Cores that the process may use."""
    mhz: Annotated[str, Unit("MHz")] | None = None
    """Clock rate of the first core when the report was made, as the system says it."""
    governor: str | None = None
    """Frequency governor of the first core."""
    memory_gib: Annotated[float, Unit("GiB")] | None = None
    """Main memory."""
    system: str
    """Kernel and architecture."""
    python: str
    """Version of Python."""
    numpy: str | None = None
    """Version of numpy."""
    numba: str | None = None
    """Version of Numba."""
    onnxruntime: str | None = None
    """Version of ONNX Runtime."""
    hftbacktest: str | None = None
    """Version of hftbacktest."""


@dataclass(frozen=True, kw_only=True)
class Arrangement(_Strict):
    """One thing that was asked of the system for the hot thread, and what came of it."""

    what: Literal["pin_cpu", "lock_memory", "realtime_priority"]
    """The setting that asked for it."""
    done: bool
    """Whether the system did it; the run went on without it otherwise."""
    detail: str
    """What was done, or why it was not permitted."""
    fix: str | None = None
    """How to permit it."""


@dataclass(frozen=True, kw_only=True)
class GpuFigure(_Strict):
    """One figure of a GPU over a run, sampled once a second beside the loop."""

    name: str
    """What it is: `utilisation`, `memory in use`, `clock`, `memory clock`, `power`, `temperature`;
    of everybody who uses the GPU."""
    unit: str
    """What it is counted in."""
    min: Annotated[float, Unit("see `unit`")]
    """The least of the samples."""
    median: Annotated[float, Unit("see `unit`")]
    """The one in the middle."""
    max: Annotated[float, Unit("see `unit`")]
    """The most of the samples."""


@dataclass(frozen=True, kw_only=True)
class GpuSeen(_Strict):
    """One GPU while the loop ran."""

    name: str
    """Its model."""
    bus: str
    """Its address."""
    driver: str
    """Version of the driver."""
    memory_mib: Annotated[int, Unit("MiB")] | None = None
    """Its memory."""
    figures: list[GpuFigure]
    """What was sampled."""
    throttled: dict[str, Share]
    """By reason why its clock was held back: the share of samples in which it was; empty where it
    never was."""
    missing: dict[str, str]
    """By figure that the driver does not give: what it said instead."""


@dataclass(frozen=True, kw_only=True)
class GpuUse(_Strict):
    """What the GPUs did while the loop ran, as NVML says."""

    samples: Count
    """How often they were asked: once a second, at least at both ends."""
    gpus: list[GpuSeen]
    """Each GPU that the driver shows."""
    problem: str | None = None
    """Why they could not be read, or no longer."""


@dataclass(frozen=True, kw_only=True)
class Report(_Strict):
    """All that a run or a backtest found out."""

    schema: Literal[2] = SCHEMA
    """Number of this format."""
    kind: Literal["run", "backtest"]
    """What was done."""
    version: str
    """Of tickrt."""
    created: str
    """When it ended: ISO 8601, UTC."""
    data: list[str]
    """The event files."""
    pace: str
    """`max` (as fast as it goes), `realtime`, or a speed such as `10x`."""
    events: Count
    """Market-data messages that were applied."""
    batches: Count
    """Complete batches of events."""
    rows: Count
    """Feature rows that were made."""
    signals: Count
    """Engine results that were used."""
    intents: Count
    """What strategies wanted: orders and cancels, before risk."""
    orders: Count
    """New orders that passed risk."""
    cancels: Count
    """Cancels that passed risk."""
    fills: Count
    """Fills; `fill_list` has them."""
    risk_rejects: dict[str, Count]
    """Intents that risk refused, by reason."""
    faults: Count
    """Engine results that were missing, late, stale, or not finite."""
    waited: Count
    """Batches that came before the off-path work of an earlier one had ended, or an answer to an
    earlier one, which they waited for, was dealt with."""
    fallback_decisions: Count
    """Decisions on the rule-based signal."""
    lost_records: Count
    """Records that found no room and are missing here; no order is ever lost."""
    lost_records_by_kind: dict[str, Count]
    """The same, by kind of record; empty where none was lost."""
    modes: dict[str, ModeName]
    """What each strategy traded on at the end."""
    latency_us: dict[str, LatencySummary]
    """By stage: `tick_to_order` (event readable → order readable by the gateway), `book`,
    `features`, `engine`, `decision`, `tick_to_decision`, `queued` (event readable → taken),
    `advance` (off-path work, the levels that no row sees among it), `wait` (part of `queued`: still
    preparing the engines' states)."""
    latency_cdf: dict[str, list[tuple[Microseconds, Share]]]
    """By stage: points of the distribution, latency and share of times at or below it."""
    engine: EngineFacts
    """The first engine."""
    engines: list[EngineFacts]
    """Every engine."""
    graphs: dict[str, str]
    """By model: an SVG of its graph with the on-path part marked."""
    feature_hash: str
    """SHA-256 of the first strategy's feature spec."""
    spec: str
    """Its name."""
    symbols: list[str]
    """The symbols, in the order of the data."""
    strategies: list[str]
    """The strategies' names."""
    series: list[Series]
    """One per strategy."""
    fill_list: list[FillRow]
    """The fills, in order."""
    notes: list[str]
    """What the reader must know: what went wrong, in sentences."""
    interrupted: str | None
    """Name of the signal that ended it early, such as `SIGINT`; null: it ran to the end."""
    backtest: BacktestFigures | None = None
    """Figures of the first strategy; backtests only."""
    backtest_by_strategy: list[BacktestFigures] | None = None
    """Figures of every strategy; backtests only."""
    wall_s: Seconds
    """Time in the loop."""
    events_per_s: PerSecond
    """`events` over `wall_s`."""
    compile_s: Seconds
    """Time to compile the loop, or to load it from the cache."""
    startup_s: Seconds
    """Time to load, build and compile before the first event."""
    floor: dict[str, LatencySummary] | None = None
    """What no latency measured here can be below: `clock_read` (two clock reads in a row), `spin`
    (a round of a loop that only reads the clock); runs only."""
    hot_thread: list[Arrangement] | None = None
    """What was asked of the system for the hot thread, and what came of it; runs only, missing
    where nothing was asked."""
    gpu: GpuUse | None = None
    """What the GPU did meanwhile; runs with engines on a GPU only."""
    machine: Machine
    """What it was measured on."""
    config: dict[str, Any]
    """The settings, as given (`config.SessionConfig`); a backtest adds `venue` and
    `inference_latency`, the source of the times that it charged."""
