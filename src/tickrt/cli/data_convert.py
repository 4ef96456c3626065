"""``tickrt data convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tickrt.cli.common import Force, Json
from tickrt.literals import CaptureKind, OnGap

__all__ = ["convert"]


def convert(
    captures: Annotated[
        list[Path], typer.Argument(help="Raw captures of one session, in order; .gz or plain.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The event file to write (.npz).")],
    kind: Annotated[
        CaptureKind, typer.Option(help="What the captures are; auto looks into them.")
    ] = "auto",
    symbol: Annotated[
        str | None, typer.Option(help="Which symbol to keep, where there are several.")
    ] = None,
    on_gap: Annotated[
        OnGap,
        typer.Option(help="A break in the chain of updates: stop, or drop to the next snapshot."),
    ] = "error",
    snapshot: Annotated[
        list[Path] | None,
        typer.Option(help="File with the snapshot, where the captures hold none."),
    ] = None,
    keep_bbo: Annotated[
        bool, typer.Option("--keep-bbo", help="Keep best-bid-offer messages as events.")
    ] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Turn raw exchange captures into an event file.

    The chain of update ids is checked message by message. What was dropped, and
    why, is counted and kept in the file.

    [bold]Examples[/bold]

    \b
      tickrt data convert btcusd_0808.gz btcusd_0809.gz -o btc.npz
      tickrt data convert all.gz -o eth.npz --symbol ETHUSDT --on-gap resync
      tickrt data convert 1.csv 2.csv --snapshot snapshot.csv -o gdax.npz
    """
    from tickrt.cli.output import check_free, emit
    from tickrt.cli.progress import bar
    from tickrt.feeds.captures.convert import ConvertOptions
    from tickrt.feeds.captures.convert import convert as convert_captures

    check_free(out, force)
    with bar("converting", as_json) as report:
        summary = convert_captures(
            captures,
            out,
            kind=kind,
            symbol=symbol,
            on_gap=on_gap,
            snapshot=snapshot or None,
            options=ConvertOptions(keep_bbo=keep_bbo),
            progress=report,
        )
    emit(summary, as_json, title=str(out))
