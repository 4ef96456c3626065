"""The report in the terminal.

Entry point: `print_report(report, console)`: what it cost, what was assumed, what went wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tickrt.report.charts import ordered_stages, stage_name
from tickrt.report.format import (
    PERCENTILES,
    count_rows,
    gpu_rows,
    gpu_sentences,
    number,
    percentile,
    strategy_rows,
    too_few,
)
from tickrt.report.summary import assumed, went_wrong
from tickrt.runtime.report_types import GpuUse, LatencySummary, Report

__all__ = ["print_report"]

_SHOWN = ("p50", "p99", "p999")


def print_report(report: Report, console: Console) -> None:
    """Print latency by stage, what happened and what it earned, assumptions, and troubles."""
    console.print(_heading(report))
    if ordered_stages(report.latency_us):
        console.print(Padding(_latency(report.latency_us), (1, 0, 0, 2)))
        shown = [report.latency_us[stage] for stage in ordered_stages(report.latency_us)]
        if too_few(shown):
            console.print(Text(f"  {too_few(shown)}", style="dim"))
    console.print(Padding(_outcome(report), (1, 0, 0, 2)))
    if report.gpu is not None:
        _gpu(console, report.gpu)
    _sentences(console, "what was assumed", assumed(report), "")
    troubles = went_wrong(report)
    _sentences(console, "what went wrong", troubles or ["nothing"], "yellow" if troubles else "")


def _gpu(console: Console, use: GpuUse) -> None:
    """What the GPU did meanwhile."""
    heading, *rows = gpu_rows(use)
    if rows:
        table = _table(*heading)
        for row in rows:
            table.add_row(*row)
        console.print(Padding(table, (1, 0, 0, 2)))
    _sentences(console, "on the GPU", gpu_sentences(use), "")


def _sentences(console: Console, heading: str, sentences: Sequence[str], style: str) -> None:
    console.print(Text(f"\n  {heading}", style="dim"))
    for sentence in sentences:
        console.print(Padding(Text(sentence, style=style), (0, 0, 0, 4)))


def _heading(report: Report) -> Text:
    engine = report.engine
    parts = [", ".join(report.symbols), engine.model or "", engine.backend, report.spec]
    line = Text(f"{report.kind} ", style="bold")
    return line.append(" · ".join(part for part in parts if part), style="cyan")


def _table(*headings: str) -> Table:
    """A plain table; the first column to the left, the others to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i else "left")
    return table


def _latency(latency: Mapping[str, LatencySummary]) -> Table:
    table = _table("latency", "count", *(PERCENTILES[name] for name in _SHOWN), "max")
    for stage in ordered_stages(latency):
        summary = latency[stage]
        table.add_row(
            stage_name(stage),
            number(summary.count),
            *(percentile(summary, name) for name in (*_SHOWN, "max")),
            style="bold" if stage == "tick_to_order" else None,
        )
    return table


def _outcome(report: Report) -> Table:
    """Counts and times; after a backtest what was earned, beside or below them."""
    counts = _table("what happened", "")
    for name, value in count_rows(report):
        counts.add_row(name, value)
    results = _results(report)
    if results is None:
        return counts
    layout = Table.grid(padding=(0, 2, 0, 0))
    if len(report.strategies) == 1:
        layout.add_row(counts, results)
    else:
        layout.add_row(counts)
        layout.add_row()
        layout.add_row(results)
    return layout


def _results(report: Report) -> Table | None:
    """What each strategy earned; None for a run."""
    rows = strategy_rows(report)
    if not rows:
        return None
    table = _table(*rows[0])
    for row in rows[1:]:
        table.add_row(*row)
    return table
