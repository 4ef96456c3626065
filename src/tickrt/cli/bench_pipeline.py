"""``tickrt bench pipeline``."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tickrt.cli.common import Json, complete_backend, complete_model
from tickrt.errors import ConfigError

if TYPE_CHECKING:
    from tickrt.config import SessionConfig, StrategySettings
    from tickrt.risk.limits import RiskLimits
    from tickrt.strategy.params import TakerParams

__all__ = ["measure", "pipeline", "unbounded"]

SIMULATED_EVENTS, EVENTS_WITH_MODELS = 1_000_000, 100_000
SPECS, MODELS = ("light", "l2_100x100"), ("light_lstm", "seed_lstm")
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
    from tickrt.config import StrategySettings

    policy, risk = unbounded()
    return _session(data, "null", StrategySettings(spec=spec, policy=policy, risk=risk))


def _model_config(data: Path, model: str, backend: str, pace: float) -> SessionConfig:
    """An order on every row whose signal is not zero; an answer may take its time."""
    from tickrt.config import StrategySettings

    policy, risk = unbounded()
    policy = replace(policy, enter_threshold=1e-9, exit_threshold=-1.0)
    strategy = StrategySettings(model=model, policy=policy, risk=risk)
    return _session(data, backend, strategy, pace=pace, deadline_us=1e7)


def _session(data: Path, backend: str, strategy: StrategySettings, **more: Any) -> SessionConfig:
    from tickrt.config import SessionConfig

    return SessionConfig(data=(data,), strategies=(strategy,), backend=backend, **more)


def measure(data: Path, spec: str, repeat: int, quiet: bool) -> dict[str, Any]:
    """Play `data` `repeat` times with the null engine; the run with the median p99 counts."""
    return {"spec": spec, **_measured(_config(data, spec), spec, repeat, quiet)}


def _measured(config: SessionConfig, what: str, repeat: int, quiet: bool) -> dict[str, Any]:
    from tickrt.cli.progress import bar, first_compile, working
    from tickrt.interrupts import check
    from tickrt.report.report import to_json
    from tickrt.runtime.session import Session

    reports = []
    for i in range(repeat):
        compiling = first_compile("run")
        with working(f"{what}: loading{compiling.note}", quiet, compiling.about_s):
            session = Session(config, keep_records=False)
        compiling.done(session.compile_s)
        with session, bar(f"{what}: {i + 1} of {repeat}", quiet) as report:
            reports.append(session.run(progress=report))
        check()
    reports.sort(key=lambda r: r.latency_us["tick_to_order"].p99)
    typical = to_json(reports[len(reports) // 2])
    return {
        **{k: typical[k] for k in ("events", "rows", "orders", "events_per_s", "pace")},
        "compile_s": max(r.compile_s for r in reports),
        "latency_us": {stage: typical["latency_us"][stage] for stage in STAGES},
        "runs": [
            {name: getattr(r.latency_us["tick_to_order"], name) for name in ("p50", "p99", "p999")}
            for r in reports
        ],
        "engine": typical["engine"],
        "faults": typical["faults"],
        "notes": typical["notes"],
        "floor": typical["floor"],
        "machine": typical["machine"],
    }


def _print_models(results: list[dict[str, Any]]) -> None:
    from tickrt.cli.output import print_table
    from tickrt.report.format import NONE, carries, number
    from tickrt.report.svg import duration

    numbers = ("orders", "p50", "p99", "p99.9", "engine p50", "engine p99")
    rows = []
    for result in results:
        latency = result["latency_us"]

        def time(stage: str, name: str, latency: dict[str, Any] = latency) -> str:
            counted = carries(latency[stage]["count"], name)
            return duration(latency[stage][name]) if counted else NONE

        rows.append(
            (
                result["model"],
                number(result["orders"]),
                *(time("tick_to_order", name) for name in ("p50", "p99", "p999")),
                *(time("engine", name) for name in ("p50", "p99")),
            )
        )
    first = results[0]
    typer.echo(f"tick-to-order with the {first['backend']} backend at pace {first['pace']}\n")
    print_table(("model", *numbers), rows, right=numbers)
    for result in results:
        for note in result["notes"]:
            typer.echo(f"{result['model']}: {note}")


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
        list[str] | None,
        typer.Option(
            "--spec",
            "-s",
            help="Feature spec; repeat for several.",
            show_default="light, l2_100x100",
        ),
    ] = None,
    backend: Annotated[
        str,
        typer.Option(
            help="What runs models: null (none), native, onnxruntime, resident, or one that was "
            "added.",
            autocompletion=complete_backend,
        ),
    ] = "null",
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="With a backend that runs models: which; repeat for several.",
            show_default="light_lstm, seed_lstm",
            autocompletion=complete_model,
        ),
    ] = None,
    pace: Annotated[
        str,
        typer.Option(
            help="With a model: max, realtime, or a speed such as 10x; at max a row comes as soon "
            "as the last one's order is out."
        ),
    ] = "max",
    repeat: Annotated[int, typer.Option(min=1, help="Runs per spec; the best counts.")] = 3,
    as_json: Json = False,
) -> None:
    """Measure the loop: tick in, order out, on every row.

    The engine is `null` and answers at once, so this is what tickrt itself costs
    on this machine: book, features, policy, risk and the clock reads in between.
    With another backend a model is in the loop.

    [bold]Examples[/bold]

    \b
      tickrt bench pipeline
      tickrt bench pipeline --data btc.npz --spec light --json
      tickrt bench pipeline --backend native
      tickrt bench pipeline --backend resident --model seed_lstm --data btc.npz --pace 20x
    """
    from tickrt import backends
    from tickrt.cli.data_simulate import simulate_file
    from tickrt.cli.output import emit

    with_models = backends.probe(backend).needs_model
    speed = _check(with_models, backend, spec, model, pace)
    with tempfile.TemporaryDirectory(prefix="tickrt-bench-") as folder:
        if data is None:
            events = EVENTS_WITH_MODELS if with_models else SIMULATED_EVENTS
            data = Path(folder) / "simulated.npz"
            simulate_file(data, seconds=None, events=events, seed=1, symbol="SIM", quiet=as_json)
        if with_models:
            results = [
                {
                    "model": name,
                    "backend": backend,
                    **_measured(_model_config(data, name, backend, speed), name, repeat, as_json),
                }
                for name in model or MODELS
            ]
        else:
            results = [measure(data, name, repeat, as_json) for name in spec or SPECS]
    show = _print_models if with_models else _print
    emit(results, as_json, show=lambda: show(results))


def _check(
    with_models: bool, backend: str, spec: list[str] | None, model: list[str] | None, pace: str
) -> float:
    """The speed. Options that the backend has no use for are refused, not ignored.

    Raises:
        ConfigError: one was given, the pace is none, or the backend cannot run a model here.
    """
    from tickrt import backends
    from tickrt.config import parse_pace

    if with_models and (why := backends.probe(backend).runs):
        raise ConfigError(f"backend {backend!r} cannot run a model here: {why}")
    if with_models and spec:
        raise ConfigError("--spec: a model has its own: name models by --model")
    if not with_models and (model or pace != "max"):
        what = "--model" if model else "--pace"
        raise ConfigError(f"{what}: the {backend} backend runs no model: name one by --backend")
    try:
        return parse_pace(pace)
    except ConfigError as error:
        raise ConfigError(f"--pace: {error}") from None
