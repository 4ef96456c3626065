"""``tickrt data info``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tickrt.cli.common import Json

__all__ = ["info"]


def info(
    file: Annotated[Path, typer.Argument(help="An event file: ours or hftbacktest's.")],
    tick_size: Annotated[
        float | None,
        typer.Option(help="Price step, where the file does not say; default: guessed."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what is in an event file: times, kinds, prices, levels, gaps.

    The events are played through a book, so crossed batches and events that the
    book refuses are counted too.

    [bold]Examples[/bold]

    \b
      tickrt data info btc.npz
      tickrt data info foreign.npz --tick-size 0.1 --json
    """
    from tickrt.cli.output import emit, print_facts
    from tickrt.cli.progress import working
    from tickrt.feeds.captures.describe import describe

    with working("reading", as_json):
        facts = describe(file, tick_size=tick_size)
    shown = {**facts, "price": _exact(facts["price"])}
    emit(facts, as_json, show=lambda: print_facts(str(file), shown))


def _exact(prices: Mapping[str, Any]) -> dict[str, Any]:
    """Prices to their last tick, not to four digits."""
    return {k: f"{v:,.12g}" if isinstance(v, float) else v for k, v in prices.items()}
