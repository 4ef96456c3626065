"""``tickrt demo``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tickrt.cli import options
from tickrt.cli.options import Backend, Policy

if TYPE_CHECKING:
    from tickrt.config import SessionConfig
    from tickrt.runtime.report_types import Report

__all__ = ["demo"]


def demo(
    out: options.Out = Path("out/demo"),
    seconds: Annotated[
        float, typer.Option(min=10.0, help="Length of the simulated session.")
    ] = 120.0,
    model: options.Model = "seed_lstm",
    seed: Annotated[int, typer.Option(help="Of the simulated market.")] = 1,
    as_json: options.Json = False,
) -> None:
    """From nothing to a report: simulate a market, run it, backtest it.

    Needs no data, no network and no GPU. The model was trained on a recorded
    market; on the simulated one it shows the machinery, not an edge.

    [bold]Examples[/bold]

    \b
      tickrt demo --out out/demo
      tickrt demo --out out/demo --seconds 600 --model light_lstm
    """
    from tickrt.cli.data_simulate import simulate_file
    from tickrt.cli.output import print_json
    from tickrt.report.report import write_report

    started = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    data = out / "session.npz"
    _step(1, f"simulating {seconds:g} s of market → {data}", as_json)
    meta = simulate_file(data, seconds=seconds, events=None, seed=seed, symbol="SIM", quiet=as_json)
    _step(2, f"running {meta['events']:,} events through the loop, model {model}", as_json)
    ran = _run(data, model, as_json)
    write_report(ran, out / "run")
    _step(3, "backtesting against the simulated exchange", as_json)
    tested = _backtest(data, model, as_json)
    write_report(tested, out / "backtest")
    wall_s = time.perf_counter() - started
    if as_json:
        print_json(_summary(meta, ran, tested, wall_s, out))
    else:
        _print(ran, tested, wall_s, out)


def _step(number: int, text: str, quiet: bool) -> None:
    if not quiet:
        typer.secho(f"{number}/3 {text}", fg=typer.colors.CYAN)


def _config(data: Path, model: str) -> SessionConfig:
    return options.build_config(
        data=[data],
        model=model,
        spec=None,
        symbols=None,
        policies=[Policy.TAKER],
        params=None,
        limits=None,
        backend=Backend.ONNXRUNTIME,
        threads=1,
    )


def _run(data: Path, model: str, quiet: bool) -> Report:
    from tickrt.cli.progress import bar, working

    with working("loading and compiling", quiet):
        from tickrt.runtime.session import Session

        session = Session(_config(data, model))
    with session, bar("events", quiet) as report:
        return session.run(progress=report)


def _backtest(data: Path, model: str, quiet: bool) -> Report:
    from tickrt.cli.progress import bar, working

    with working("loading and compiling", quiet):
        from tickrt.backtest.run import Backtest

        test = Backtest(_config(data, model))
    with test, bar("backtest", quiet) as report:
        return test.run(report)


def _summary(
    meta: dict[str, Any],
    ran: Report,
    tested: Report,
    wall_s: float,
    out: Path,
) -> dict[str, Any]:
    from tickrt.report.report import to_json

    whole = to_json(ran)
    keys = ("events", "rows", "orders", "latency_us", "engine", "feature_hash", "compile_s")
    return {
        "wall_s": wall_s,
        "session": meta["path"],
        "run": {key: whole[key] for key in keys},
        "backtest": tested.backtest,
        "reports": [str(out / part / "report.html") for part in ("run", "backtest")],
    }


def _print(ran: Report, tested: Report, wall_s: float, out: Path) -> None:
    from rich.console import Console
    from rich.text import Text

    from tickrt.report.table import print_report

    console = Console(highlight=False)
    for report in (ran, tested):
        console.print()
        print_report(report, console)
    console.print(Text(f"\n  done in {wall_s:.0f} s", style="dim"))
    for part in ("run", "backtest"):
        path = out / part / "report.html"
        console.print(Text(f"  {part}: {path}", style="bold"), soft_wrap=True)
