"""What commands print on stdout: JSON, a table of facts, a report and where it went.

Entry points: `print_json`, `print_facts`, `prepare_out`, `print_result`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tickrt.errors import ConfigError

if TYPE_CHECKING:
    from tickrt.runtime.report_types import Report

__all__ = ["prepare_out", "print_facts", "print_json", "print_result"]

_LONG = ("series", "fill_list", "latency_cdf")


def print_json(value: Any) -> None:
    """`value` as strict JSON."""
    from tickrt.report.report import plain

    typer.echo(json.dumps(plain(value), indent=2, allow_nan=False, ensure_ascii=False))


def _lines(value: Any, path: str) -> list[tuple[str, str]]:
    """Nested mappings as (dotted name, value)."""
    from tickrt.report.format import number

    if isinstance(value, Mapping):
        items = value.items()
        return [line for key, item in items for line in _lines(item, f"{path}.{key}".strip("."))]
    if isinstance(value, (list, tuple)):
        return [(path, ", ".join(number(v) for v in value) if value else "none")]
    return [(path, number(value))]


def print_facts(title: str, facts: Mapping[str, Any]) -> None:
    """A titled list of names and values; nested mappings become dotted names."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 2))
    table.add_column(style="dim")
    table.add_column()
    for name, value in _lines(facts, ""):
        table.add_row(Text(name), Text(value))
    console = Console()
    console.print(Text(title, style="bold"))
    console.print(table)


def prepare_out(out: Path) -> None:
    """Make the folder `out` before the work, so that its results have where to go.

    Raises:
        ConfigError: it cannot be made or written to.
    """
    problem = None
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = error.strerror or str(error)
    if problem is None and not os.access(out, os.W_OK | os.X_OK):
        problem = "not writable"
    if problem is not None:
        raise ConfigError(f"--out {out}: cannot write there ({problem}): name another folder")


def print_result(report: Report, out: Path, as_json: bool) -> None:
    """Write `report` to `out` and print it: the table, or without its long lists as JSON."""
    from tickrt.report.report import to_json, write_report

    json_path, html_path = write_report(report, out)
    if as_json:
        short = {key: value for key, value in to_json(report).items() if key not in _LONG}
        print_json({**short, "report": str(json_path), "html": str(html_path)})
        return
    from rich.console import Console
    from rich.text import Text

    from tickrt.report.table import print_report

    console = Console(highlight=False)
    print_report(report, console)
    console.print(Text(f"\n  report: {html_path}", style="bold"), soft_wrap=True)
