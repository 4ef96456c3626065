"""The tree of commands.

Entry points: `app`, `run_app`. Adding a command: write its file, register it here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from tickrt import __version__
from tickrt.cli import (
    backtest,
    bench_pipeline,
    bench_split,
    build,
    data_convert,
    data_info,
    data_simulate,
    data_verify,
    demo,
    diff,
    inspect,
    keys,
    models,
    rebuild,
    registry,
    run,
    split,
)
from tickrt.cli.errors import exit_code

__all__ = ["app", "run_app"]

_SETTINGS = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    name="tickrt",
    help="Deep-learning inference inside a low-latency trading loop.\n\n"
    "Market data in, an ONNX model in the middle, risk-checked orders out.\n"
    "Start with: tickrt demo --out out/demo",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings=_SETTINGS,
)
data = typer.Typer(
    help="Event files: convert captures, describe and verify them, simulate a market.",
    no_args_is_help=True,
    context_settings=_SETTINGS,
)
bench = typer.Typer(help="Measure this machine.", no_args_is_help=True, context_settings=_SETTINGS)
key_files = typer.Typer(
    help="Keys that sign and encrypt bundles.", no_args_is_help=True, context_settings=_SETTINGS
)
store = typer.Typer(
    help="Built bundles, and the channels that say which of them runs where.",
    no_args_is_help=True,
    context_settings=_SETTINGS,
)

app.command("demo")(demo.demo)
app.command("run")(run.run)
app.command("backtest")(backtest.backtest)
app.add_typer(data, name="data")
data.command("convert")(data_convert.convert)
data.command("info")(data_info.info)
data.command("simulate")(data_simulate.simulate)
data.command("verify")(data_verify.verify)
app.add_typer(bench, name="bench")
bench.command("pipeline")(bench_pipeline.pipeline)
bench.command("split")(bench_split.bench_split)
app.command("models")(models.models)
app.command("split")(split.split)
app.command("build")(build.build)
app.command("inspect")(inspect.inspect)
app.command("verify-on-target")(inspect.verify_on_target)
app.command("diff")(diff.diff)
app.command("rebuild", context_settings={"allow_extra_args": True})(rebuild.rebuild)
app.add_typer(key_files, name="keys")
key_files.command("new")(keys.new)
app.add_typer(store, name="registry")
store.command("add")(registry.add)
store.command("list")(registry.list_)
store.command("promote")(registry.promote)
store.command("rollback")(registry.rollback)
store.command("history")(registry.history)
store.command("gc")(registry.gc)


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
) -> None:
    """Holds the options of `tickrt` itself."""


def run_app(arguments: Sequence[str] | None = None) -> int:
    """Run a command; errors of ours become one line on stderr.

    Returns:
        0; 2 for an error of ours or a wrong argument; 1 where a command says so; 130 on Ctrl-C.
    """
    return exit_code(lambda: app(args=arguments, prog_name="tickrt"))
