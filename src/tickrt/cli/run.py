"""``tickrt run``."""

from __future__ import annotations

import logging
import os
from typing import Annotated

import typer

from tickrt.cli.common import Json
from tickrt.cli.groups import grouped
from tickrt.cli.options import SessionOptions, session_config
from tickrt.errors import ConfigError

__all__ = ["run"]

_LOG = logging.getLogger("tickrt.cli")
_HOW = "How to run it"


def _check_core(pin: int | None) -> None:
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if pin is not None and pin not in usable:
        cores = ", ".join(map(str, sorted(usable))) or "none on this system"
        raise ConfigError(f"--pin {pin}: expected a core that this process may use: {cores}")


def _parse_pace(text: str | None) -> float | None:
    from tickrt.config import parse_pace

    try:
        return None if text is None else parse_pace(text)
    except ConfigError as error:
        raise ConfigError(f"--pace: {error}") from None


@grouped
def run(
    options: SessionOptions,
    pace: Annotated[
        str | None,
        typer.Option(
            help="max, realtime, or a speed such as 10x; below max the loop spins between ticks "
            "as it would live.",
            show_default="max",
            rich_help_panel=_HOW,
        ),
    ] = None,
    deadline_us: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="An engine result later than this is a fault: the rule-based fallback decides.",
            show_default="100000",
            rich_help_panel=_HOW,
        ),
    ] = None,
    pin: Annotated[
        int | None,
        typer.Option(help="Pin the hot thread to this core.", rich_help_panel=_HOW),
    ] = None,
    lock_memory: Annotated[
        bool | None,
        typer.Option(
            "--lock-memory/--no-lock-memory",
            help="Keep all memory of the process out of swap while it runs, where permitted "
            "(see: tickrt doctor).",
            show_default="no-lock-memory",
            rich_help_panel=_HOW,
        ),
    ] = None,
    realtime_priority: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=99,
            help="Run the hot thread before everything else (SCHED_FIFO), where permitted; pin "
            "it to a core that nothing else needs.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Play recorded market data through the loop: tick in, order out.

    Book, features, ONNX model, policy and risk checks run in one compiled
    thread. Orders are answered by a simple paper gateway; for queue positions,
    order latency and a result in money, use: tickrt backtest

    [bold]Examples[/bold]

    \b
      tickrt run --data btc.npz
      tickrt run session.toml
      tickrt run session.toml --model light_lstm --out out/light
      tickrt run --data btc.npz --model light_lstm --strategy maker
      tickrt run --data btc.npz --pace 10x --pin 3
      tickrt run --data btc.npz --pace realtime --pin 3 --lock-memory
      tickrt run --data btc.npz --data eth.npz --strategy taker --strategy maker
      tickrt run --data btc.npz -p enter_threshold=0.4 -r max_position_lots=5
      tickrt run --data btc.npz --model seed.bundle --trust file:desk.sign.pub
      tickrt run --data btc.npz --no-split
      tickrt run --data btc.npz --backend null --spec light --json

    [bold]Parameters[/bold] (--param)

    \b
      taker  enter_threshold exit_threshold qty_lots max_position_lots
             cooldown_ns max_spread_ticks through_ticks
      maker  qty_lots max_position_lots half_spread_ticks signal_skew_ticks
             position_skew_ticks requote_ticks min_rest_ns

    [bold]Limits[/bold] (--risk)

    \b
      max_data_age_ns min_signal max_order_lots max_order_notional price_collar
      max_position_lots max_loss duplicate_ns max_messages message_window_ns
      max_executions execution_window_ns
    """
    from tickrt.cli.output import RunFolder, print_result
    from tickrt.cli.progress import bar, first_compile, working
    from tickrt.config import HftbacktestSettings
    from tickrt.interrupts import deferred

    _check_core(pin)
    config = session_config(
        options,
        pace=_parse_pace(pace),
        deadline_us=deadline_us,
        pin_cpu=pin,
        lock_memory=lock_memory,
        realtime_priority=realtime_priority,
    )
    if isinstance(config.gateway, HftbacktestSettings):
        _LOG.warning("gateway hftbacktest is for `tickrt backtest`: run answers orders on paper")
    folder = RunFolder("run", config.out, options.force)
    folder.check()
    compiling = first_compile("run")
    with working(f"loading{compiling.note}", as_json, compiling.about_s):
        from tickrt.runtime.session import Session

        session = Session(config, keep_records=False)
    compiling.done(session.compile_s)
    _LOG.info("loaded %s in %.1f s", ", ".join(map(str, config.data)), session.startup_s)
    out = folder.make()
    with session, deferred():  # a signal ends the loop; then the report is written
        with bar("events", as_json) as report:
            result = session.run(progress=report)
        print_result(result, out, as_json)
