"""``tickrt demo``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tickrt.cli.common import Force, Json, Model

if TYPE_CHECKING:
    from tickrt.config import SessionConfig
    from tickrt.runtime.report_types import Report

__all__ = ["demo"]


def demo(
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder for the results; default: a new one, out/demo-TIME."
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=10.0, help="Length of the simulated session.")
    ] = 120.0,
    model: Model = None,
    seed: Annotated[int, typer.Option(help="Of the simulated market.")] = 1,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """From nothing to a report: simulate a market, run it, backtest it.

    Needs no data, no network and no GPU. The model was trained on a recorded
    market; on the simulated one it shows the machinery, not an edge.

    [bold]Examples[/bold]

    \b
      tickrt demo --out out/demo
      tickrt demo --out out/demo --seconds 600 --model light_lstm
    """
    started = time.perf_counter()
    if not as_json:
        typer.echo("tickrt demo: simulate a market, run it through the loop, backtest it")
    from tickrt.cli.data_simulate import simulate_file
    from tickrt.cli.output import REPORT_FILES, RunFolder, emit
    from tickrt.cli.progress import first_compile
    from tickrt.interrupts import check

    chosen = model or "seed_lstm"
    reports = [f"{part}/{name}" for part in ("run", "backtest") for name in REPORT_FILES]
    folder = RunFolder("demo", out, force, ("session.npz", *reports))
    folder.check()
    out = folder.make()
    data = out / "session.npz"
    note = first_compile("simulate").note
    _step(1, f"simulating {seconds:g} s of market → {data}{note}", as_json)
    meta = simulate_file(data, seconds=seconds, events=None, seed=seed, symbol="SIM", quiet=as_json)
    note = first_compile("run").note
    count = f"{meta['events']:,} events"
    _step(2, f"running {count} through the loop, model {chosen}{note}", as_json)
    ran = _run(data, chosen, out / "run", as_json)
    check()
    note = first_compile("backtest").note
    _step(3, f"backtesting against the simulated exchange{note}", as_json)
    tested = _backtest(data, chosen, out / "backtest", as_json)
    check()
    wall_s = time.perf_counter() - started
    summary = _summary(meta, ran, tested, wall_s, out)
    emit(summary, as_json, show=lambda: _print(ran, tested, wall_s, out))


def _step(number: int, text: str, quiet: bool) -> None:
    if not quiet:
        typer.secho(f"{number}/3 {text}", fg=typer.colors.CYAN)


def _config(data: Path, model: str) -> SessionConfig:
    from tickrt.cli.options import SessionOptions, session_config

    return session_config(SessionOptions(data=[data], model=model))


def _run(data: Path, model: str, out: Path, quiet: bool) -> Report:
    from tickrt.cli.progress import bar, first_compile, working
    from tickrt.interrupts import deferred
    from tickrt.report.report import write_report

    compiling = first_compile("run")
    with working(f"loading{compiling.note}", quiet, compiling.about_s):
        from tickrt.runtime.session import Session

        session = Session(_config(data, model), keep_records=False)
    compiling.done(session.compile_s)
    with session, deferred():  # a signal ends the loop; then its report is written
        with bar("events", quiet) as report:
            result = session.run(progress=report)
        write_report(result, out)
    return result


def _backtest(data: Path, model: str, out: Path, quiet: bool) -> Report:
    from tickrt.cli.progress import bar, first_compile, working
    from tickrt.interrupts import deferred
    from tickrt.report.report import write_report

    compiling = first_compile("backtest")
    with working(f"loading{compiling.note}", quiet, compiling.about_s):
        from tickrt.backtest.run import Backtest

        test = Backtest(_config(data, model))
    compiling.done(test.compile_s)
    with test, deferred():
        with bar("backtest", quiet) as report:
            result = test.run(report)
        write_report(result, out)
    return result


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
    console.print(Text(f"\n  done in {wall_s:.0f} s. What to look at:", style="bold"))
    for path, what in (
        (out / "run" / "report.html", "latency, tick by tick: where the time goes"),
        (out / "backtest" / "report.html", "what it earned and lost, with queue, latency, fees"),
        (out / "session.npz", f"the market itself: tickrt data info {out / 'session.npz'}"),
    ):
        console.print(Text(f"  {path}  {what}"), soft_wrap=True)
    console.print(
        Text("  Next: tickrt config show, and your own model (README, Bring your model).", "dim"),
        soft_wrap=True,
    )
