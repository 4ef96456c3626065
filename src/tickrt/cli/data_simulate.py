"""``tickrt data simulate``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from tickrt.cli.common import Force, Json
from tickrt.errors import ConfigError

__all__ = ["simulate", "simulate_file"]


def simulate_file(
    out: Path,
    *,
    seconds: float | None,
    events: int | None,
    seed: int,
    symbol: str,
    calibration: str = "btcusd_perp",
    quiet: bool = False,
) -> dict[str, Any]:
    """Simulate a session into `out`; returns its meta with ``path`` and ``events``."""
    from tickrt.cli.progress import bar, first_compile, share, working
    from tickrt.interrupts import abrupt

    compiling = first_compile("simulate")
    started = time.perf_counter()
    with working("loading", quiet):
        from tickrt.market.event_file import save_events
        from tickrt.simulation.simulator import load_calibration
        from tickrt.simulation.simulator import simulate as make

        loaded = load_calibration(calibration)
    begun: list[float] = []  # when the first event was there, so what compiling took

    def made(share_done: float) -> None:
        if not begun:
            begun.append(time.perf_counter() - started)
        shown(share_done)

    with abrupt(), bar(f"simulating{compiling.note}", quiet) as report:
        shown = share(report)
        data, meta = make(seconds, events, seed, calibration=loaded, symbol=symbol, progress=made)
    if begun:
        compiling.done(begun[0])
    save_events(out, data, meta)
    return {**meta, "path": str(out), "events": len(data)}


def simulate(
    out: Annotated[Path, typer.Option("--out", "-o", help="The event file to write (.npz).")],
    seconds: Annotated[
        float | None, typer.Option(min=0.001, help="How long; default: 600 s.")
    ] = None,
    events: Annotated[int | None, typer.Option(min=1, help="How many events instead.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes, on every machine.")] = 1,
    symbol: Annotated[str, typer.Option(help="What to call it.")] = "SIM",
    calibration: Annotated[
        str, typer.Option(help="A shipped calibration or a JSON file.")
    ] = "btcusd_perp",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Simulate a market: a queue-reactive book, calibrated on a recorded BTC perpetual.

    Arrivals, cancels and trades depend on the sizes of the queues (Huang,
    Lehalle, Rosenbaum 2015). Nothing in it can be predicted better than from
    those queues.

    [bold]Examples[/bold]

    \b
      tickrt data simulate -o sim.npz
      tickrt data simulate -o big.npz --events 10000000 --seed 7
    """
    if seconds is not None and events is not None:
        raise ConfigError("--seconds and --events: give one of the two")
    if seconds is None and events is None:
        seconds = 600.0
    from tickrt.cli.output import check_free, emit

    check_free(out, force)
    meta = simulate_file(
        out,
        seconds=seconds,
        events=events,
        seed=seed,
        symbol=symbol,
        calibration=calibration,
        quiet=as_json,
    )
    emit(meta, as_json, title=str(out))
