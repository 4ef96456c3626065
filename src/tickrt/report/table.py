"""The report in the terminal.

Entry point: `print_report(report, console)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tickrt.report.charts import ordered_stages, stage_name
from tickrt.report.format import metric_rows, number, strategy_rows
from tickrt.report.svg import duration

__all__ = ["print_report"]


def print_report(report: Mapping[str, Any], console: Console) -> None:
    """Print latency by stage, what happened, and what risk refused."""
    console.print(_heading(report))
    latency = report.get("latency_us") or {}
    if ordered_stages(latency):
        console.print(Padding(_latency(latency), (1, 0, 0, 2)))
    console.print(Padding(_outcome(report), (1, 0, 0, 2)))
    if strategy_rows(report):
        console.print(Padding(_by_strategy(report), (1, 0, 0, 2)))
    for note in report.get("notes") or []:
        console.print(Text(f"  note: {note}", style="yellow"))


def _heading(report: Mapping[str, Any]) -> Text:
    engine = report.get("engine") or {}
    kind = str(report.get("kind", "run"))
    parts = [", ".join(map(str, report.get("symbols") or []))]
    parts += [str(v) for v in (engine.get("model"), engine.get("backend"), report.get("spec")) if v]
    line = Text(f"{kind} ", style="bold")
    return line.append(" · ".join(p for p in parts if p), style="cyan")


def _latency(latency: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("latency")
    for name in ("count", "p50", "p99", "p99.9", "max"):
        table.add_column(name, justify="right")
    for stage in ordered_stages(latency):
        numbers = latency[stage]
        table.add_row(
            stage_name(stage),
            number(numbers.get("count")),
            *(duration(numbers.get(n)) for n in ("p50", "p99", "p999", "max")),
            style="bold" if stage == "tick_to_order" else None,
        )
    return table


def _outcome(report: Mapping[str, Any]) -> Table:
    """Counts and metrics on the left, risk rejects on the right."""
    rows = metric_rows(report)
    rejects = sorted((report.get("risk_rejects") or {}).items(), key=lambda item: -item[1])
    refused = [(r.replace("_", " ").lower(), number(n)) for r, n in rejects if n]
    refused = refused or [("nothing", "")]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading, justify in (("what happened", "left"), ("", "right"), ("refused by risk", "left")):
        table.add_column(heading, justify="right" if justify == "right" else "left")
    table.add_column("", justify="right")
    for i in range(max(len(rows), len(refused))):
        left = rows[i] if i < len(rows) else ("", "")
        right = refused[i] if i < len(refused) else ("", "")
        table.add_row(*left, *right)
    return table


def _by_strategy(report: Mapping[str, Any]) -> Table:
    """A backtest's metrics, one column per strategy."""
    rows = strategy_rows(report)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("by strategy")
    for _ in rows[0][1:]:
        table.add_column(justify="right")
    for row in rows:
        table.add_row(*row)
    return table
