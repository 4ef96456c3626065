"""``tickrt diff``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tickrt.cli import options

__all__ = ["diff"]


def diff(
    a: Annotated[Path, typer.Argument(help="A bundle.")],
    b: Annotated[Path, typer.Argument(help="Another one.")],
    as_json: options.Json = False,
) -> None:
    """What differs between two bundles, field by field. Exit code 1 when anything does.

    [bold]Examples[/bold]

    \b
      tickrt diff yesterday.bundle today.bundle
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from tickrt.cli.output import print_json
    from tickrt.engines.build.inspect import diff as differences

    found = differences(a, b)
    if as_json:
        print_json([{"field": field, "a": left, "b": right} for field, left, right in found])
    else:
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
        for column in ("field", a.name, b.name):
            table.add_column(column, overflow="fold")
        for field, left, right in found:
            table.add_row(Text(field), *(Text("–" if v is None else str(v)) for v in (left, right)))
        Console(highlight=False).print(table if found else "no difference")
    if found:
        raise typer.Exit(1)
