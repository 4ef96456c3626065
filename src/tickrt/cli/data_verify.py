"""``tickrt data verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tickrt.cli.common import Json

__all__ = ["verify"]


def verify(
    file: Annotated[Path, typer.Argument(help="An event file that `tickrt data convert` made.")],
    captures: Annotated[list[Path], typer.Argument(help="The captures that it was made from.")],
    least: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Smallest share of equal updates.")
    ] = 0.999,
    as_json: Json = False,
) -> None:
    """Check a converted file against the exchange's own best prices.

    The book is rebuilt from the file; at each depth update its best prices are
    compared with the newest bookTicker message that is not younger. Exit code 1
    when too few agree.

    [bold]Examples[/bold]

    \b
      tickrt data verify btc.npz btcusd_0808.gz btcusd_0809.gz
    """
    from tickrt.cli.output import emit
    from tickrt.cli.progress import bar
    from tickrt.feeds.captures.verify import verify_best

    with bar("verifying", as_json) as report:
        result = verify_best(file, captures, progress=report)
    emit(result, as_json, title=str(file))
    if result["share"] < least:
        raise typer.Exit(1)
