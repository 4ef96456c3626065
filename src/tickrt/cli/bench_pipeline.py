"""``tickrt bench pipeline``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tickrt.cli.common import Json

if TYPE_CHECKING:
    from tickrt.config import SessionConfig
    from tickrt.risk.limits import RiskLimits
    from tickrt.strategy.params import TakerParams

__all__ = ["measure", "pipeline", "unbounded"]

SIMULATED_EVENTS = 1_000_000
STAGES = ("tick_to_order", "book", "features", "engine", "decision")


def unbounded() -> tuple[TakerParams, RiskLimits]:
    """A policy and limits that let an order out on every row whose signal has a direction."""
    from tickrt.risk.limits import RiskLimits
    from tickrt.strategy.params import TakerParams

    many = 1_000_000_000
    policy = TakerParams(max_position_lots=many, cooldown_ns=0, max_spread_ticks=many)
    risk = RiskLimits(
        max_data_age_ns=many * 1000,
        max_order_notional=1e15,
        price_collar=0.5,
        max_position_lots=many,
        duplicate_ns=0,
        max_messages=1024,
        message_window_ns=1,
        max_executions=many,
    )
    return policy, risk


def _config(data: Path, spec: str) -> SessionConfig:
    """An order on every row: the null engine always says up, and nothing holds the taker back."""
    from tickrt.config import SessionConfig, StrategySettings

    policy, risk = unbounded()
    strategy = StrategySettings(spec=spec, policy=policy, risk=risk)
    return SessionConfig(data=(data,), strategies=(strategy,), backend="null")


def measure(data: Path, spec: str, repeat: int, quiet: bool) -> dict[str, Any]:
    """Play `data` `repeat` times with the null engine; the run with the median p99 counts."""
    from tickrt.cli.progress import bar, first_compile, working
    from tickrt.interrupts import check
    from tickrt.report.report import to_json
    from tickrt.runtime.session import Session

    reports = []
    for i in range(repeat):
        compiling = first_compile("run")
        with working(f"{spec}: loading{compiling.note}", quiet, compiling.about_s):
            session = Session(_config(data, spec), keep_records=False)
        compiling.done(session.compile_s)
        with session, bar(f"{spec}: {i + 1} of {repeat}", quiet) as report:
            reports.append(session.run(progress=report))
        check()
    reports.sort(key=lambda r: r.latency_us["tick_to_order"].p99)
    typical = to_json(reports[len(reports) // 2])
    return {
        "spec": spec,
        **{k: typical[k] for k in ("events", "rows", "orders", "events_per_s")},
        "compile_s": max(r.compile_s for r in reports),
        "latency_us": {stage: typical["latency_us"][stage] for stage in STAGES},
        "runs": [
            {name: getattr(r.latency_us["tick_to_order"], name) for name in ("p50", "p99", "p999")}
            for r in reports
        ],
        "floor": typical["floor"],
        "machine": typical["machine"],
    }


def _print(results: list[dict[str, Any]]) -> None:
    from tickrt.cli.output import print_table
    from tickrt.report.format import number
    from tickrt.report.svg import duration

    numbers = ("events/s", "orders", "p50", "p99", "p99.9", "book", "features")
    rows = []
    for result in results:
        latency = result["latency_us"]
        total = latency["tick_to_order"]
        rows.append(
            (
                result["spec"],
                number(round(result["events_per_s"])),
                number(result["orders"]),
                *(duration(total[name]) for name in ("p50", "p99", "p999")),
                *(duration(latency[stage]["p50"]) for stage in ("book", "features")),
            )
        )
    typer.echo("tick-to-order with the null engine; book and features: their p50\n")
    print_table(("spec", *numbers), rows, right=numbers)


def pipeline(
    data: Annotated[
        Path | None,
        typer.Option("--data", "-d", help="Event file; default: a simulated million events."),
    ] = None,
    spec: Annotated[
        list[str], typer.Option("--spec", "-s", help="Feature spec; repeat for several.")
    ] = ["light", "l2_100x100"],  # noqa: B006 - typer copies it
    repeat: Annotated[int, typer.Option(min=1, help="Runs per spec; the best counts.")] = 3,
    as_json: Json = False,
) -> None:
    """Measure the loop without a model: tick in, order out, on every row.

    The engine is `null` and answers at once, so this is what tickrt itself costs
    on this machine: book, features, policy, risk and the clock reads in between.

    [bold]Examples[/bold]

    \b
      tickrt bench pipeline
      tickrt bench pipeline --data btc.npz --spec light --json
    """
    from tickrt.cli.data_simulate import simulate_file
    from tickrt.cli.output import emit

    with tempfile.TemporaryDirectory(prefix="tickrt-bench-") as folder:
        if data is None:
            data = Path(folder) / "simulated.npz"
            simulate_file(
                data, seconds=None, events=SIMULATED_EVENTS, seed=1, symbol="SIM", quiet=as_json
            )
        results = [measure(data, name, repeat, as_json) for name in spec]
    emit(results, as_json, show=lambda: _print(results))
