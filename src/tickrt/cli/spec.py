"""``tickrt spec hash | show``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tickrt.cli.common import Json, complete_spec

if TYPE_CHECKING:
    from tickrt.feature.spec import FeatureSpec

__all__ = ["hash_", "show"]

_Named = Annotated[
    str,
    typer.Argument(
        metavar="SPEC", help="A shipped feature spec or a TOML file.", autocompletion=complete_spec
    ),
]


def hash_(spec: _Named, as_json: Json = False) -> None:
    """Print the hash of a feature spec: what a model's metadata must carry.

    It changes with everything that changes a row, a user column's source included, and with
    nothing else: the name and comments do not count.

    [bold]Examples[/bold]

    \b
      tickrt spec hash light
      tickrt spec hash my.toml
    """
    from tickrt.cli.output import emit
    from tickrt.feature.spec import load_spec

    found = load_spec(spec)
    emit({"spec": found.name, "hash": found.hash}, as_json, show=lambda: typer.echo(found.hash))


def _groups(spec: FeatureSpec) -> list[dict[str, Any]]:
    """One entry per column group: its kind, place in the row, names, settings."""
    groups, at = [], 0
    for column in spec.columns:
        names = column.names
        settings: dict[str, Any] = {"depth": column.depth} if column.depth > 1 else {}
        settings |= {"unit": column.unit} if column.unit != 1 else {}
        settings |= {"scale": "log"} if column.log else {}
        settings |= {"lags": list(column.lags)} if column.lags else {}
        settings |= {"file": str(column.file)} if column.file else {}
        groups.append(
            {
                "kind": column.kind,
                "first": at,
                "numbers": len(names),
                "names": list(names),
                "settings": settings,
            }
        )
        at += len(names)
    return groups


def show(spec: _Named, as_json: Json = False) -> None:
    """Show a feature spec: its columns in row order, window, normalisation and hash.

    [bold]Examples[/bold]

    \b
      tickrt spec show light
      tickrt spec show my.toml --json
    """
    from tickrt.cli.output import emit, print_facts, print_table
    from tickrt.feature.spec import load_spec

    found = load_spec(spec)
    groups = _groups(found)
    facts: dict[str, Any] = {
        "name": found.name,
        "hash": found.hash,
        "path": str(found.path),
        "window": found.window,
        "width": found.width,
        "row_on": found.row_on,
        "clip": None if math.isinf(found.clip) else found.clip,
        "normalised": any(found.mean) or any(std != 1 for std in found.std),
    }

    def table() -> None:
        print_facts(
            found.name,
            {
                **{k: facts[k] for k in ("hash", "path")},
                "window": f"{found.window} rows × {found.width} numbers",
                "a row on each": found.row_on,
                "clip": "none" if facts["clip"] is None else f"±{found.clip:g}",
                "normalised": "yes" if facts["normalised"] else "no",
            },
        )
        rows = [
            (
                f"{g['first']}" + (f"–{g['first'] + g['numbers'] - 1}" if g["numbers"] > 1 else ""),
                g["kind"],
                g["names"][0] + (f" … {g['names'][-1]}" if g["numbers"] > 1 else ""),
                ", ".join(f"{name} = {value}" for name, value in g["settings"].items()) or "–",
            )
            for g in groups
        ]
        print_table(("numbers", "kind", "names", "settings"), rows, indent=2)

    emit({**facts, "columns": groups}, as_json, show=table)
