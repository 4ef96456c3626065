"""The report as one HTML file: no script, no network, light and dark.

Entry point: `render_html(report)`. Every text from outside is escaped. The first screen says what
it cost, what was assumed and what went wrong.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from html import escape
from importlib.resources import files

from tickrt.report import charts
from tickrt.report.charts import ordered_stages, stage_name
from tickrt.report.format import (
    PERCENTILES,
    carries,
    count_rows,
    engine_rows,
    gpu_rows,
    gpu_sentences,
    headline,
    money_unit,
    number,
    percentile,
    strategy_rows,
    too_few,
)
from tickrt.report.summary import assumed, reason_name, went_wrong
from tickrt.runtime.report_types import FillRow, LatencySummary, Machine, Report, Series

__all__ = ["render_html"]

MAX_SERIES = 8
_UNITS = {"mhz": "MHz", "memory_gib": "GiB"}


def render_html(report: Report) -> str:
    """The page for a report."""
    css = files("tickrt.report").joinpath("assets/report.css").read_text(encoding="utf-8")
    title = _title(report)
    body = "".join(
        (
            _header(report, title),
            _tiles(report),
            _summary(report),
            _latency(report),
            *(_market(report, series) for series in report.series[:MAX_SERIES]),
            _outcome(report),
            _gpu(report),
            _graphs(report),
            _provenance(report),
        )
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} · tickrt</title><style>{css}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


def _title(report: Report) -> str:
    what = "Backtest" if report.kind == "backtest" else "Run"
    model = (report.engine.model or "").removesuffix(".onnx")
    return " · ".join(part for part in (what, ", ".join(report.symbols), model) if part)


def _header(report: Report, title: str) -> str:
    parts = [
        f"{number(report.events)} events",
        f"engine {report.engine.backend}",
        f"spec {report.spec}",
        f"pace {report.pace}" if report.kind == "run" else "",
        _period(report),
        report.machine.cpu,
    ]
    line = " · ".join(escape(part) for part in parts if part)
    return f'<header><span class="mark">tickrt</span><h1>{escape(title)}</h1><p>{line}</p></header>'


def _period(report: Report) -> str:
    times = [t for s in report.series for t in s.t_ns[:1] + s.t_ns[-1:]]
    if not times:
        return ""
    first, last = (datetime.fromtimestamp(t / 1e9, UTC) for t in (min(times), max(times)))
    end = "%H:%M:%S" if first.date() == last.date() else "%Y-%m-%d %H:%M:%S"
    return f"{first:%Y-%m-%d %H:%M:%S} – {last.strftime(end)} UTC"


def _tiles(report: Report) -> str:
    tiles = "".join(
        f'<div class="tile{" lead" if i == 0 else ""}">'
        f'<b class="{tile.tone}">{escape(tile.value)}</b><span>{escape(tile.label)}</span></div>'
        for i, tile in enumerate(headline(report))
    )
    return f'<div class="tiles">{tiles}</div>'


def _summary(report: Report) -> str:
    """What was assumed, and what went wrong."""
    troubles = went_wrong(report)
    wrong = _sentences(troubles, "note") if troubles else "<p>Nothing.</p>"
    return (
        '<section class="summary"><div class="columns">'
        f"<div><h2>What was assumed</h2>{_sentences(assumed(report), '')}</div>"
        f"<div><h2>What went wrong</h2>{wrong}</div></div></section>"
    )


def _sentences(sentences: Sequence[str], css: str) -> str:
    return "".join(f'<p class="{css}">{escape(sentence)}</p>' for sentence in sentences)


def _legend(entries: Iterable[tuple[str, str]]) -> str:
    items = "".join(f'<span><i class="{css}"></i>{escape(label)}</span>' for css, label in entries)
    return f'<span class="legend">{items}</span>'


def _figure(svg: str, caption: str, legend: str = "") -> str:
    if not svg:
        return ""
    head = f"<figcaption><b>{escape(caption)}</b>{legend}</figcaption>"
    return f"<figure>{head}{svg}</figure>"


def _latency(report: Report) -> str:
    latency = {stage: report.latency_us[stage] for stage in ordered_stages(report.latency_us)}
    if not latency:
        return ""
    floor = report.floor or {}
    bars = _figure(
        charts.latency_bars(latency, floor["clock_read"].p50 if "clock_read" in floor else None),
        "Percentiles by stage",
        _legend([("p50", "p50"), ("p99", "p99"), ("p999", "p99.9"), ("max", "max")]),
    )
    drawn = {
        stage: summary
        for stage, summary in latency.items()
        if carries(summary.count, "p50") and report.latency_cdf.get(stage)
    }
    cdf = _figure(
        charts.latency_cdf(report.latency_cdf, drawn),
        "Share of ticks within a latency, as far as ten ticks lie beyond",
        _legend((f"line s{i % 8}", stage_name(stage)) for i, stage in enumerate(drawn)),
    )
    return (
        "<section><h2>Latency</h2><p>From the event being readable in memory to the order being "
        f"readable by the gateway, by the CPU's own clock.</p>{bars}{cdf}"
        f"{_latency_table(latency, floor)}</section>"
    )


def _latency_table(
    latency: Mapping[str, LatencySummary], floor: Mapping[str, LatencySummary]
) -> str:
    columns = ("mean", *PERCENTILES, "max")
    head = "".join(f"<th>{PERCENTILES.get(name, name)}</th>" for name in columns)
    rows = [(stage_name(s), summary, s == "tick_to_order") for s, summary in latency.items()]
    rows += [(f"machine: {stage_name(n)}", summary, False) for n, summary in floor.items()]
    body = "".join(
        f"<tr{' class=lead' if lead else ''}><td>{escape(name)}</td>"
        f"<td>{number(summary.count)}</td>"
        + "".join(f"<td>{percentile(summary, column)}</td>" for column in columns)
        + "</tr>"
        for name, summary, lead in rows
    )
    note = too_few([summary for _, summary, _ in rows])
    return (
        f'<div class="wide"><table><tr><th>stage</th><th>count</th>{head}</tr>{body}</table></div>'
        + (f'<p class="foot">{note}</p>' if note else "")
    )


def _market(report: Report, series: Series) -> str:
    def mine(fill: FillRow) -> bool:
        return (fill.symbol, fill.strategy) == (series.symbol, series.strategy)

    fills = [fill for fill in report.fill_list if mine(fill)]
    lines = [("line equity", "net")]
    if series.equity_gross:
        lines.append(("line gross", "gross"))
    figures = (
        _figure(
            charts.price(series, fills),
            "Mid price and fills (quote currency)",
            _legend([("line mid", "mid"), ("buy", "▲ buy"), ("sell", "▼ sell")]),
        ),
        _figure(
            charts.signal(series),
            "Signal: p(up) − p(down)",
            _legend([("buy", "leans up"), ("sell", "leans down")]),
        ),
        _figure(charts.curve(series), f"Equity ({money_unit(series.currency)})", _legend(lines)),
        _figure(charts.position(series), "Position (lots)"),
    )
    if not any(figures):
        return ""
    head = f"<h2>{escape(f'{series.symbol} · {series.strategy}')}</h2><p>Times are UTC.</p>"
    return f"<section>{head}{''.join(figures)}</section>"


def _outcome(report: Report) -> str:
    left = _definitions(count_rows(report), "What happened")
    svg = charts.reject_bars(report.risk_rejects, reason_name)
    right = f'<div class="half"><h3>Refused by risk</h3>{svg or "<p>nothing</p>"}</div>'
    columns = f'<div class="columns">{left}{right}</div>'
    return f"<section><h2>Orders and risk</h2>{columns}{_results(report)}</section>"


def _results(report: Report) -> str:
    """What a backtest's strategies earned, side by side."""
    rows = strategy_rows(report)
    if not rows:
        return ""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows[1:]
    )
    return (
        f'<h3>Results</h3><div class="wide"><table class="results"><tr>{head}</tr>{body}'
        "</table></div>"
    )


def _gpu(report: Report) -> str:
    """What the GPU did meanwhile; nothing for a run without one."""
    if report.gpu is None:
        return ""
    heading, *rows = gpu_rows(report.gpu)
    head = "".join(f"<th>{escape(cell)}</th>" for cell in heading)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    table = f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>' if rows else ""
    said = _sentences(gpu_sentences(report.gpu), "foot")
    return f"<section><h2>GPU</h2>{table}{said}</section>"


def _definitions(rows: Iterable[tuple[str, str]], heading: str) -> str:
    items = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in rows)
    return f"<div><h3>{escape(heading)}</h3><dl>{items}</dl></div>"


def _graphs(report: Report) -> str:
    figures = "".join(
        f"<figure><figcaption>{escape(model)}</figcaption>{svg}</figure>"
        for model, svg in report.graphs.items()
    )
    if not figures:
        return ""
    return (
        "<section><h2>What runs on the path</h2><details><summary>The model's graph, split at its "
        f"newest row</summary>{figures}</details></section>"
    )


def _machine_rows(machine: Machine) -> list[tuple[str, str]]:
    return [
        (name.removesuffix("_gib"), f"{number(value)} {_UNITS.get(name, '')}".strip())
        for name, value in asdict(machine).items()
        if value is not None
    ]


def _provenance(report: Report) -> str:
    engine = [
        *(row for engine in report.engines for row in engine_rows(engine)),
        ("feature spec", report.spec),
        ("spec's SHA-256", report.feature_hash),
    ]
    where = [
        ("tickrt", report.version),
        ("created", report.created),
        ("data", ", ".join(report.data)),
        *_machine_rows(report.machine),
    ]
    config = json.dumps(report.config, indent=1, ensure_ascii=False)
    return (
        '<section><h2>Provenance</h2><div class="columns">'
        f"{_definitions(engine, 'Engine and features')}"
        f"{_definitions(where, 'Origin and machine')}"
        f"</div><details><summary>Configuration</summary><pre>{escape(config)}</pre></details>"
        "</section><footer>Made by tickrt; the same figures are in report.json.</footer>"
    )
