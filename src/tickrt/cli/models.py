"""``tickrt models``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tickrt.cli import options
from tickrt.errors import ConfigError

__all__ = ["models"]


def _facts(name: str) -> dict[str, Any]:
    """What a model is, without running it."""
    from tickrt.engines.graph.check import read_model
    from tickrt.feature.spec import load_spec
    from tickrt.models import find_model

    files = find_model(name)
    model = read_model(files.onnx)
    spec = load_spec(files.spec) if files.spec else None
    return {
        "name": files.name,
        "window": spec.window if spec else None,
        "width": spec.width if spec else None,
        "spec": spec.name if spec else None,
        "feature_hash": spec.hash if spec else None,
        "sha256": model.sha256,
        "kib": round(files.onnx.stat().st_size / 1024),
        "path": str(files.onnx),
        "card": str(files.card) if files.card else None,
    }


def _print_list(found: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for column in ("model", "spec", "window × width", "size", "sha256"):
        table.add_column(column)
    for facts in found:
        shape = f"{facts['window']} × {facts['width']}" if facts["spec"] else "–"
        row = (facts["name"], facts["spec"] or "–", shape)
        table.add_row(*row, f"{facts['kib']:,} KiB", facts["sha256"][:12])
    Console(highlight=False).print(table)


def models(
    name: Annotated[
        str | None, typer.Argument(help="Show this model's card; default: list them all.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """List the models that ship with the package, or show one's model card.

    [bold]Examples[/bold]

    \b
      tickrt models
      tickrt models seed_lstm
    """
    from tickrt.cli.output import print_json
    from tickrt.models import find_model, list_models

    if name is None:
        found = [_facts(known) for known in list_models()]
        if as_json:
            print_json(found)
        else:
            _print_list(found)
        return
    if as_json:
        print_json(_facts(name))
        return
    card = find_model(name).card
    if card is None:
        raise ConfigError(f"{name}: it has no model card (a .md file beside the .onnx)")
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(card.read_text(encoding="utf-8")))
