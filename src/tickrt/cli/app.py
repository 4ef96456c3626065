"""The tree of commands.

Entry points: `app`, `run_app`. Adding a command: write its file, register it here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from tickrt import __version__
from tickrt.cli import (
    backtest,
    bench_estimate,
    bench_pipeline,
    bench_split,
    build,
    bundle,
    config,
    data_convert,
    data_info,
    data_rows,
    data_simulate,
    data_verify,
    demo,
    doctor,
    keys,
    log,
    model,
    registry,
    registry_watch,
    run,
    spec,
    split,
)
from tickrt.cli.errors import exit_code
from tickrt.errors import ConfigError

__all__ = ["app", "run_app"]

_SETTINGS = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    name="tickrt",
    help="Deep-learning inference inside a low-latency trading loop.\n\n"
    "Market data in, an ONNX model in the middle, risk-checked orders out.\n"
    "Start with: tickrt demo",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings=_SETTINGS,
)

Command = Callable[..., None]
_COMMANDS: dict[str, Command] = {
    "demo": demo.demo,
    "run": run.run,
    "backtest": backtest.backtest,
    "split": split.split,
    "build": build.build,
    "doctor": doctor.doctor,
}
_GROUPS: dict[str, tuple[str, dict[str, Command]]] = {
    "data": (
        "Event files: convert captures, describe and verify them, simulate a market, make rows.",
        {
            "convert": data_convert.convert,
            "info": data_info.info,
            "rows": data_rows.rows,
            "simulate": data_simulate.simulate,
            "verify": data_verify.verify,
        },
    ),
    "spec": ("Feature specs: what a model sees.", {"hash": spec.hash_, "show": spec.show}),
    "model": (
        "Models that ship, models' cards, and models as loops.",
        {"list": model.list_, "show": model.show, "program": model.program},
    ),
    "bundle": (
        "Built engines as files: look into them, verify and compare them.",
        {"inspect": bundle.inspect, "verify": bundle.verify, "diff": bundle.diff},
    ),
    "registry": (
        "Built bundles, and the channels that say which of them runs where.",
        {
            "add": registry.add,
            "list": registry.list_,
            "promote": registry.promote,
            "rollback": registry.rollback,
            "history": registry.history,
            "gc": registry.gc,
            "watch": registry_watch.watch,
        },
    ),
    "keys": ("Keys that sign and encrypt bundles.", {"new": keys.new}),
    "config": ("Session files: every setting, with its meaning.", {"show": config.show}),
    "bench": (
        "Measure this machine.",
        {
            "estimate": bench_estimate.bench_estimate,
            "pipeline": bench_pipeline.pipeline,
            "split": bench_split.bench_split,
        },
    ),
}
_PASSES_ARGUMENTS_ON = {registry_watch.watch}


def _register() -> None:
    for name, command in _COMMANDS.items():
        app.command(name)(command)
    for name, (text, commands) in _GROUPS.items():
        group = typer.Typer(help=text, no_args_is_help=True, context_settings=_SETTINGS)
        for verb, command in commands.items():
            passes = {"allow_extra_args": command in _PASSES_ARGUMENTS_ON}
            group.command(verb, context_settings=passes)(command)
        app.add_typer(group, name=name)


_register()


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tickrt {__version__}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose", "-v", count=True, help="Say what is done; twice: everything.", max=2
        ),
    ] = 0,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress and no warnings, only errors.")
    ] = False,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Say it as JSON lines, and show no progress.")
    ] = False,
) -> None:
    """Holds the options of `tickrt` itself. They stand before the command."""
    if verbose and quiet:
        raise ConfigError("--verbose and --quiet: give one of the two")
    log.set_up(-1 if quiet else verbose, log_json)


def run_app(arguments: Sequence[str] | None = None) -> int:
    """Run a command; errors of ours become one line on stderr.

    Returns:
        0; 2 for an error of ours or a wrong argument; 1 where a command says so; 130 on Ctrl-C.
    """
    return exit_code(lambda: app(args=arguments, prog_name="tickrt"))
