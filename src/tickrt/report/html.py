"""The report as one HTML file: no script, no network, light and dark.

Entry point: `render_html(report)`. Every text from outside is escaped; a missing part of the report
is a missing part of the page, never an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from typing import Any

from tickrt.report import charts
from tickrt.report.charts import ordered_stages, stage_name
from tickrt.report.format import headline, metric_rows, number, strategy_rows
from tickrt.report.svg import duration

__all__ = ["render_html"]

Report = Mapping[str, Any]
MAX_SERIES = 8


def render_html(report: Report) -> str:
    """The page for a report as `report.plain` gives it (see the schema there)."""
    css = files("tickrt.report").joinpath("assets/report.css").read_text(encoding="utf-8")
    title = _title(report)
    body = "".join(
        (
            _header(report, title),
            _tiles(report),
            _notes(report),
            _latency(report),
            *(_market(report, series) for series in _series(report)[:MAX_SERIES]),
            _outcome(report),
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


def _series(report: Report) -> list[Mapping[str, Any]]:
    series = report.get("series") or []
    return [series] if isinstance(series, Mapping) else list(series)


def _title(report: Report) -> str:
    if report.get("title"):
        return str(report["title"])
    what = "Backtest" if report.get("kind") == "backtest" else "Run"
    symbols = ", ".join(str(s) for s in report.get("symbols") or [])
    model = str((report.get("engine") or {}).get("model") or "").removesuffix(".onnx")
    return " · ".join(part for part in (what, symbols, model) if part)


def _header(report: Report, title: str) -> str:
    engine = report.get("engine") or {}
    parts = [
        f"{number(report['events'])} events" if report.get("events") is not None else "",
        f"engine {engine['backend']}" if engine.get("backend") else "",
        f"spec {report['spec']}" if report.get("spec") else "",
        f"pace {report['pace']}" if report.get("pace") else "",
        _period(report),
        str((report.get("machine") or {}).get("cpu", "")),
    ]
    line = " · ".join(escape(p) for p in parts if p)
    return f'<header><span class="mark">tickrt</span><h1>{escape(title)}</h1><p>{line}</p></header>'


def _period(report: Report) -> str:
    times = [
        t for s in _series(report) for t in (s.get("t_ns") or [])[:: max(1, len(s["t_ns"]) - 1)]
    ]
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
    return f'<div class="tiles">{tiles}</div>' if tiles else ""


def _notes(report: Report) -> str:
    return "".join(f'<p class="note">{escape(str(n))}</p>' for n in report.get("notes") or [])


def _legend(entries: Iterable[tuple[str, str]]) -> str:
    items = "".join(f'<span><i class="{css}"></i>{escape(label)}</span>' for css, label in entries)
    return f'<span class="legend">{items}</span>'


def _figure(svg: str, caption: str, legend: str = "") -> str:
    if not svg:
        return ""
    head = f"<figcaption><b>{escape(caption)}</b>{legend}</figcaption>"
    return f"<figure>{head}{svg}</figure>"


def _latency(report: Report) -> str:
    latency = report.get("latency_us") or {}
    stages = ordered_stages(latency)
    if not stages:
        return ""
    floor = (report.get("floor") or {}).get("clock_read") or {}
    bars = _figure(
        charts.latency_bars(latency, floor.get("p50")),
        "Percentiles by stage",
        _legend([("p50", "p50"), ("p99", "p99"), ("p999", "p99.9"), ("max", "max")]),
    )
    shown = [s for s in stages if (report.get("latency_cdf") or {}).get(s)]
    cdf = _figure(
        charts.latency_cdf(
            report.get("latency_cdf") or {}, shown, max(latency[s]["count"] for s in stages)
        ),
        "Share of ticks within a latency",
        _legend((f"line s{i % 8}", stage_name(s)) for i, s in enumerate(shown)),
    )
    return (
        "<section><h2>Latency</h2><p>From the event being readable in memory to the order being "
        f"readable by the gateway, by the CPU's own clock.</p>{bars}{cdf}"
        f"{_latency_table(latency, stages, report.get('floor') or {})}</section>"
    )


def _latency_table(latency: Report, stages: Sequence[str], floor: Report) -> str:
    names = ("mean", "p50", "p90", "p99", "p999", "max")
    head = "".join(f"<th>{n.replace('p999', 'p99.9')}</th>" for n in names)
    rows = [(stage_name(s), latency[s], s == "tick_to_order") for s in stages]
    rows += [(f"machine: {stage_name(n)}", numbers, False) for n, numbers in floor.items()]
    body = "".join(
        f"<tr{' class=lead' if lead else ''}><td>{escape(name)}</td>"
        f"<td>{number(numbers.get('count'))}</td>"
        + "".join(f"<td>{duration(numbers.get(n))}</td>" for n in names)
        + "</tr>"
        for name, numbers, lead in rows
    )
    return (
        f'<div class="wide"><table><tr><th>stage</th><th>count</th>{head}</tr>{body}</table></div>'
    )


def _market(report: Report, series: Mapping[str, Any]) -> str:
    def mine(fill: Mapping[str, Any]) -> bool:
        return all(
            fill.get(key) is None or series.get(key) is None or fill[key] == series[key]
            for key in ("symbol", "strategy")
        )

    fills = [f for f in report.get("fill_list") or [] if mine(f)]
    currency = f" ({series['currency']})" if series.get("currency") else ""
    lines = [("line equity", "net")]
    if series.get("equity_gross"):
        lines.append(("line gross", "gross"))
    figures = (
        _figure(
            charts.price(series, fills),
            "Mid price and fills",
            _legend([("line mid", "mid"), ("buy", "▲ buy"), ("sell", "▼ sell")]),
        ),
        _figure(
            charts.signal(series),
            "Signal: p(up) − p(down)",
            _legend([("buy", "leans up"), ("sell", "leans down")]),
        ),
        _figure(charts.curve(series), f"Equity{currency}", _legend(lines)),
        _figure(charts.position(series), "Position"),
    )
    if not any(figures):
        return ""
    name = " · ".join(str(series[k]) for k in ("symbol", "strategy") if series.get(k) is not None)
    head = f"<h2>{escape(name or 'Market')}</h2><p>Times are UTC.</p>"
    return f"<section>{head}{''.join(figures)}</section>"


def _outcome(report: Report) -> str:
    rejects = report.get("risk_rejects") or {}
    left = _definitions(metric_rows(report), "What happened")
    svg = charts.reject_bars(rejects, lambda reason: reason.replace("_", " ").lower())
    right = f'<div class="half"><h3>Refused by risk</h3>{svg or "<p>nothing</p>"}</div>'
    columns = f'<div class="columns">{left}{right}</div>'
    return f"<section><h2>Orders and risk</h2>{columns}{_by_strategy(report)}</section>"


def _by_strategy(report: Report) -> str:
    """The backtest's metrics side by side, where several strategies ran."""
    rows = strategy_rows(report)
    if not rows:
        return ""
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    return f'<h3>By strategy</h3><div class="wide"><table>{body}</table></div>'


def _definitions(rows: Iterable[tuple[str, str]], heading: str) -> str:
    items = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in rows)
    return f"<div><h3>{escape(heading)}</h3><dl>{items}</dl></div>" if items else ""


def _flat(mapping: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (key.replace("_", " "), value if isinstance(value, str) else json.dumps(value))
        for key, value in mapping.items()
        if value is not None and not isinstance(value, (Mapping, list))
    ]


def _graphs(report: Report) -> str:
    figures = "".join(
        f"<figure><figcaption>{escape(model)}</figcaption>{svg}</figure>"
        for model, svg in (report.get("graphs") or {}).items()
    )
    if not figures:
        return ""
    return (
        "<section><h2>What runs on the path</h2><details><summary>The model's graph, split at its "
        f"newest row</summary>{figures}</details></section>"
    )


def _provenance(report: Report) -> str:
    engine = dict(report.get("engine") or {})
    if report.get("feature_hash"):
        engine["feature_hash"] = report["feature_hash"]
    data = report.get("data") or []
    origin = {
        "tickrt": report.get("version"),
        "created": report.get("created"),
        "data": ", ".join(map(str, data)) if isinstance(data, list) else str(data),
    }
    where = [*_flat(origin), *_flat(report.get("machine") or {})]
    config = json.dumps(report.get("config") or {}, indent=1, ensure_ascii=False)
    return (
        '<section><h2>Provenance</h2><div class="columns">'
        f"{_definitions(_flat(engine), 'Engine and features')}"
        f"{_definitions(where, 'Origin and machine')}"
        f"</div><details><summary>Configuration</summary><pre>{escape(config)}</pre></details>"
        "</section><footer>Made by tickrt; the same figures are in report.json.</footer>"
    )
