"""``tickrt backtest``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tickrt.cli import keys, options
from tickrt.cli.options import Backend, Policy
from tickrt.errors import ConfigError

if TYPE_CHECKING:
    from tickrt.backtest.latency import InferenceLatency

__all__ = ["backtest", "parse_latency"]

_VENUE = "The venue"


class Queue(StrEnum):
    """How our place in a queue advances when quantity before us is cancelled."""

    RISK_ADVERSE = "risk_adverse"
    LOG_PROB = "log_prob"
    LOG_PROB2 = "log_prob2"
    POWER_PROB = "power_prob"
    POWER_PROB2 = "power_prob2"
    POWER_PROB3 = "power_prob3"


class Exchange(StrEnum):
    """Whether an order can be filled in part."""

    WHOLE = "whole"
    PARTIAL = "partial"


def parse_latency(text: str) -> InferenceLatency:
    """``measured``, microseconds, or the path of a run's report.

    Raises:
        ConfigError: none of them.
        DataError: the report cannot be read.
    """
    from tickrt.backtest.latency import InferenceLatency

    if text == "measured":
        return InferenceLatency.measured()
    try:
        value = float(text)
    except ValueError:
        if not Path(text).exists():
            expected = "'measured', microseconds, or a run's report.json"
            raise ConfigError(f"--latency-us: expected {expected}, got {text!r}") from None
        from tickrt.report.report import load_report

        return InferenceLatency.from_report(load_report(text))
    if not 0 <= value < 1e9:
        raise ConfigError(f"--latency-us: expected 0 … 1e9 microseconds, got {text}")
    return InferenceLatency.constant(round(value * 1000))


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
    split: options.Split = True,
    stateful: options.Stateful = False,
    trust: keys.Trust = None,
    key: keys.Key = None,
    allow_unsigned: keys.AllowUnsigned = False,
    latency_us: Annotated[
        str,
        typer.Option(
            metavar="US|measured|REPORT",
            help="Time charged for each inference: microseconds; what it takes in this very "
            "backtest; or drawn from a run's report.json.",
            rich_help_panel=_VENUE,
        ),
    ] = "measured",
    order_latency_us: Annotated[
        float,
        typer.Option(
            min=0.0, help="From us to the exchange, and back as much.", rich_help_panel=_VENUE
        ),
    ] = 2_000.0,
    queue: Annotated[
        Queue,
        typer.Option(
            help="How our place in a queue advances; risk_adverse: by trades only.",
            rich_help_panel=_VENUE,
        ),
    ] = Queue.RISK_ADVERSE,
    exchange: Annotated[
        Exchange, typer.Option(help="Fill orders whole or in part.", rich_help_panel=_VENUE)
    ] = Exchange.WHOLE,
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
      tickrt backtest --data btc.npz --latency-us out/run/report.json
      tickrt backtest --data btc.npz --param enter_threshold=0.4 --json
    """
    from tickrt.cli.output import prepare_out, print_result
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
        split=split,
        stateful=stateful,
        trust=tuple(trust or ()),
        bundle_key=key,
        allow_unsigned=allow_unsigned,
    )
    order_ns = round(order_latency_us * 1000)
    with working("loading and compiling", as_json):
        from tickrt.backtest.run import Backtest
        from tickrt.execution.gateways.hftbacktest import VenueConfig

        venue = VenueConfig(
            queue_model=queue.value,
            exchange=exchange.value,
            entry_latency_ns=order_ns,
            response_latency_ns=order_ns,
        )
        test = Backtest(config, venue, latency)
    prepare_out(out)
    with test, bar("backtest", as_json) as report:
        result = test.run(report)
    print_result(result, out, as_json)
