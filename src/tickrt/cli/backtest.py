"""``tickrt backtest``."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tickrt.cli.common import Json
from tickrt.cli.groups import grouped
from tickrt.cli.options import SessionOptions, session_config
from tickrt.errors import ConfigError
from tickrt.literals import Exchange, QueueModel

if TYPE_CHECKING:
    from tickrt.config import HftbacktestSettings, SessionConfig

__all__ = ["VenueOptions", "backtest", "parse_latency"]

_LOG = logging.getLogger("tickrt.cli")
_VENUE = "The venue"


def parse_latency(text: str) -> dict[str, Any]:
    """``measured``, microseconds, or the path of a run's report, as settings of the gateway.

    Raises:
        ConfigError: none of them.
    """
    charged: dict[str, Any] = {"inference_latency_us": None, "inference_latency_report": None}
    if text == "measured":
        return charged
    try:
        value = float(text)
    except ValueError:
        if not Path(text).exists():
            expected = "'measured', microseconds, or a run's report.json"
            raise ConfigError(f"--latency-us: expected {expected}, got {text!r}") from None
        return {**charged, "inference_latency_report": Path(text)}
    if not 0 <= value < 1e9:
        raise ConfigError(f"--latency-us: expected 0 … 1e9 microseconds, got {text}")
    return {**charged, "inference_latency_us": value}


@dataclass(frozen=True)
class VenueOptions:
    """What a backtest asks of the venue; None: not given."""

    latency_us: Annotated[
        str | None,
        typer.Option(
            metavar="US|measured|REPORT",
            help="Time charged for each inference: microseconds; what it takes in this very "
            "backtest; or drawn from a run's report.json.",
            show_default="measured",
            rich_help_panel=_VENUE,
        ),
    ] = None
    order_latency_us: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="From us to the exchange, and back as much.",
            show_default="2000",
            rich_help_panel=_VENUE,
        ),
    ] = None
    queue: Annotated[
        QueueModel | None,
        typer.Option(
            help="How our place in a queue advances; risk_adverse: by trades only.",
            show_default="risk_adverse",
            rich_help_panel=_VENUE,
        ),
    ] = None
    exchange: Annotated[
        Exchange | None,
        typer.Option(
            help="Fill orders whole or in part.", show_default="whole", rich_help_panel=_VENUE
        ),
    ] = None

    def changes(self) -> dict[str, Any]:
        """The fields of `HftbacktestSettings` that were given."""
        order_ns = None if self.order_latency_us is None else round(self.order_latency_us * 1000)
        given = {
            "queue_model": self.queue,
            "exchange": self.exchange,
            "entry_latency_ns": order_ns,
            "response_latency_ns": order_ns,
        }
        latency = {} if self.latency_us is None else parse_latency(self.latency_us)
        return {**{name: v for name, v in given.items() if v is not None}, **latency}


def _with_venue(config: SessionConfig, venue: VenueOptions) -> SessionConfig:
    """The session against hftbacktest: the file's venue, or the usual one, with the options."""
    from tickrt.config import HftbacktestSettings, NullSettings

    if isinstance(config.gateway, NullSettings):
        _LOG.warning("gateway null is for `tickrt run`: a backtest trades against hftbacktest")
    gateway: HftbacktestSettings = (
        config.gateway if isinstance(config.gateway, HftbacktestSettings) else HftbacktestSettings()
    )
    return config.model_copy(update={"gateway": replace(gateway, **venue.changes())})


@grouped
def backtest(options: SessionOptions, venue: VenueOptions, as_json: Json = False) -> None:
    """Trade recorded market data against a simulated exchange.

    The very step that `tickrt run` executes decides; hftbacktest is the venue,
    with queue positions, order latency and fees. The time that inference takes
    is charged. For --param and --risk see: tickrt run --help; for every setting of
    the venue: tickrt config show --gateway hftbacktest

    [bold]Examples[/bold]

    \b
      tickrt backtest --data btc.npz
      tickrt backtest session.toml
      tickrt backtest --data btc.npz --latency-us 30 --strategy maker
      tickrt backtest --data btc.npz --latency-us out/run/report.json
      tickrt backtest --data btc.npz --param enter_threshold=0.4 --json
    """
    from tickrt.cli.output import RunFolder, print_result
    from tickrt.cli.progress import bar, first_compile, working
    from tickrt.interrupts import deferred

    config = _with_venue(session_config(options), venue)
    folder = RunFolder("backtest", config.out, options.force)
    folder.check()
    compiling = first_compile("backtest")
    with working(f"loading{compiling.note}", as_json, compiling.about_s):
        from tickrt.backtest.run import Backtest

        test = Backtest(config)
    compiling.done(test.compile_s)
    out = folder.make()
    with test, deferred():  # a signal ends the loop; then the report is written
        with bar("backtest", as_json) as report:
            result = test.run(report)
        print_result(result, out, as_json)
