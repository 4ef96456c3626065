"""``tickrt backtest``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tickrt.cli import options
from tickrt.cli.options import Backend, Policy
from tickrt.errors import ConfigError

__all__ = ["backtest", "parse_latency"]

_VENUE = "The venue"


def parse_latency(text: str) -> float | None:
    """``measured`` → None, a number of microseconds → that number.

    Raises:
        ConfigError: anything else.
    """
    if text == "measured":
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise ConfigError(f"--latency-us: expected 'measured' or microseconds, got {text!r}")
    return value


def backtest(
    data: options.Data,
    model: options.Model = "seed_lstm",
    spec: options.Spec = None,
    symbol: options.Symbols = None,
    strategy: options.PolicyOption = [Policy.TAKER],  # noqa: B006 - typer copies it
    param: options.Params = None,
    risk: options.Limits = None,
    backend: options.BackendOption = Backend.ONNXRUNTIME,
    threads: options.Threads = 1,
    latency_us: Annotated[
        str,
        typer.Option(
            metavar="US|measured",
            help="Time charged from tick to order: microseconds, or what this machine measures "
            "while it runs.",
            rich_help_panel=_VENUE,
        ),
    ] = "measured",
    entry_latency_us: Annotated[
        float,
        typer.Option(
            min=0.0, help="From us to the exchange, and back as much.", rich_help_panel=_VENUE
        ),
    ] = 5_000.0,
    out: options.Out = Path("out/backtest"),
    as_json: options.Json = False,
) -> None:
    """Trade recorded market data against a simulated exchange.

    The very step that `tickrt run` executes decides; hftbacktest is the venue,
    with queue positions, order latency and fees. The time that inference takes
    is charged. For --param and --risk see: tickrt run --help

    [bold]Examples[/bold]

    \b
      tickrt backtest --data btc.npz
      tickrt backtest --data btc.npz --latency-us 30 --strategy maker
      tickrt backtest --data btc.npz --param enter_threshold=0.4 --json
    """
    from tickrt.cli.output import print_result
    from tickrt.cli.progress import bar, working

    latency = parse_latency(latency_us)
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
    )
    with working("loading", as_json):
        from tickrt.backtest import run_backtest
    with bar("backtest", as_json) as report:
        result = run_backtest(
            config,
            inference_latency_us=latency,
            order_latency_us=entry_latency_us,
            progress=report,
        )
    print_result(result, out, as_json)
