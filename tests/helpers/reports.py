"""Reports made by hand, for tests of what shows and reads them."""

from __future__ import annotations

from typing import Any

from tickrt.runtime.report_types import (
    BacktestFigures,
    ChargedLatency,
    EngineFacts,
    FillRow,
    LatencySummary,
    Machine,
    Report,
    Series,
)

START_NS = 1_723_161_600_000_000_000


def summary(count: int, **times: float) -> LatencySummary:
    """A distribution in µs; what `times` does not give is 1 µs."""
    names = ("mean", "min", "p50", "p90", "p99", "p999", "max")
    return LatencySummary(count=count, **{name: times.get(name, 1.0) for name in names})


def series(**values: Any) -> Series:
    """A flat series of three points."""
    flat = {"mid": 100.0, "p_up": 0.5, "p_down": 0.25, "position": 1, "equity": 1.0}
    points = len(values.get("t_ns", range(3)))
    given: dict[str, Any] = {
        "symbol": "BTCUSDT",
        "strategy": "taker",
        "currency": "quote",
        "t_ns": [START_NS + i * 10**8 for i in range(points)],
        **{name: [value] * points for name, value in flat.items()},
    }
    return Series(**(given | values))


def fill(**values: Any) -> FillRow:
    """A bought unit."""
    given: dict[str, Any] = {
        "t_ns": START_NS,
        "symbol": "BTCUSDT",
        "strategy": "taker",
        "side": 1,
        "px": 100.0,
        "qty": 1.0,
        "maker": False,
        "fee": 0.05,
    }
    return FillRow(**(given | values))


def figures(**values: Any) -> BacktestFigures:
    """What a strategy earned in 40 s."""
    given: dict[str, Any] = {
        "strategy": "taker",
        "symbol": "BTCUSDT",
        "currency": "quote",
        "pnl_gross": 2.0,
        "pnl_net": -1.5,
        "fees": 3.5,
        "sharpe": -0.25,
        "sharpe_annual": -1404.4,
        "max_drawdown": 2.5,
        "turnover": 7000.0,
        "fill_ratio": 0.75,
        "hit_rate": 0.5,
        "orders": 8,
        "trades": 6,
        "closing_trades": 4,
        "maker_trades": 2,
        "final_position": 0,
        "seconds": 40.0,
        "inference_latency_us": ChargedLatency(p50=30.0, p99=30.0),
    }
    return BacktestFigures(**(given | values))


def make_report(**values: Any) -> Report:
    """A run in which nothing happened, with `values` instead."""
    engine = EngineFacts(backend="null", signal=[0.0, 0.0, 1.0])
    counts = ("events", "batches", "rows", "signals", "intents", "orders", "cancels", "fills")
    counts += ("faults", "waited", "fallback_decisions", "lost_records")
    given: dict[str, Any] = {
        "kind": "run",
        "version": "0.1.0",
        "created": "2024-08-09T00:00:00Z",
        "data": ["btc.npz"],
        "pace": "max",
        **dict.fromkeys(counts, 0),
        "risk_rejects": {},
        "lost_records_by_kind": {},
        "modes": {"taker": "live"},
        "latency_us": {},
        "latency_cdf": {},
        "engine": engine,
        "engines": [engine],
        "graphs": {},
        "feature_hash": "ab" * 32,
        "spec": "light",
        "symbols": ["BTCUSDT"],
        "strategies": ["taker"],
        "series": [],
        "fill_list": [],
        "notes": [],
        "interrupted": None,
        "wall_s": 0.5,
        "events_per_s": 0.0,
        "compile_s": 0.0,
        "startup_s": 0.0,
        "machine": Machine(cpu="a CPU", cores=2, system="Linux", python="3.11"),
        "config": {"gateway": {"kind": "paper"}},
    }
    return Report(**(given | values))
