"""``tickrt run``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from tickrt.cli import keys, options
from tickrt.cli.options import Backend, Policy
from tickrt.errors import ConfigError

__all__ = ["run"]


def _check_core(pin: int | None) -> None:
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if pin is not None and pin not in usable:
        cores = ", ".join(map(str, sorted(usable))) or "none on this system"
        raise ConfigError(f"--pin {pin}: expected a core that this process may use: {cores}")


def run(
    data: options.Data,
    model: options.Model = "seed_lstm",
    spec: options.Spec = None,
    symbol: options.Symbols = None,
    strategy: options.PolicyOption = [Policy.TAKER],  # noqa: B006 - typer copies it
    param: options.Params = None,
    risk: options.Limits = None,
    pace: Annotated[
        str,
        typer.Option(
            help="max, realtime, or a speed such as 10x; below max the loop spins between ticks "
            "as it would live.",
            rich_help_panel="How to run it",
        ),
    ] = "max",
    backend: options.BackendOption = Backend.ONNXRUNTIME,
    threads: options.Threads = 1,
    split: options.Split = True,
    stateful: options.Stateful = False,
    trust: keys.Trust = None,
    key: keys.Key = None,
    allow_unsigned: keys.AllowUnsigned = False,
    deadline_us: Annotated[
        float,
        typer.Option(
            min=0.001,
            help="An engine result later than this is a fault: the rule-based fallback decides.",
            rich_help_panel="How to run it",
        ),
    ] = 100_000.0,
    pin: Annotated[
        int | None,
        typer.Option(help="Pin the hot thread to this core.", rich_help_panel="How to run it"),
    ] = None,
    out: options.Out = Path("out/run"),
    as_json: options.Json = False,
) -> None:
    """Play recorded market data through the loop: tick in, order out.

    Book, features, ONNX model, policy and risk checks run in one compiled
    thread. Orders are answered by a simple paper gateway; for queue positions,
    order latency and a result in money, use: tickrt backtest

    [bold]Examples[/bold]

    \b
      tickrt run --data btc.npz
      tickrt run --data btc.npz --model light_lstm --strategy maker
      tickrt run --data btc.npz --pace 10x --pin 3
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
    from tickrt.cli.output import prepare_out, print_result
    from tickrt.cli.progress import bar, working
    from tickrt.config import parse_pace

    _check_core(pin)
    config = options.build_config(
        data=data,
        model=model,
        spec=spec,
        symbols=symbol,
        policies=strategy,
        params=param,
        limits=risk,
        backend=backend,
        threads=threads,
        split=split,
        stateful=stateful,
        trust=tuple(trust or ()),
        bundle_key=key,
        allow_unsigned=allow_unsigned,
        pace=parse_pace(pace),
        deadline_us=deadline_us,
        pin_cpu=pin,
    )
    with working("loading and compiling", as_json):
        from tickrt.runtime.session import Session

        session = Session(config)
    prepare_out(out)
    with session, bar("events", as_json) as report:
        result = session.run(progress=report)
    print_result(result, out, as_json)
