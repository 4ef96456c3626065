"""The report: strict JSON, one self-contained page, nothing lost and nothing invented."""

from __future__ import annotations

import io
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tickrt.errors import DataError
from tickrt.observe.machine import machine_info
from tickrt.report.html import render_html
from tickrt.report.report import load_report, plain, write_report
from tickrt.report.table import print_report
from tickrt.runtime.results import thin

VOID = {"meta", "br", "link"}


class Balanced(HTMLParser):
    """Fails on a tag that is not closed, or closed twice."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def check_page(page: str) -> list[ET.Element]:
    """The page is well-formed, needs nothing from outside, and its drawings parse."""
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert not re.search(r"<script|<link|src=|href=|url\(|@import|https?://", page)
    return [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.S)]


@pytest.fixture
def report() -> dict[str, Any]:
    n = 400
    rng = np.random.default_rng(3)
    t_ns = 1_723_161_600_000_000_000 + np.arange(n) * 100_000_000
    mid = 61_000 + np.cumsum(rng.integers(-1, 2, n)) * 0.5
    stage = {"count": 9, "mean": 2.0, "min": 1.0, "p50": 2.0, "p90": 3.0, "p99": 4.0, "p999": 5.0}
    return {
        "kind": "backtest",
        "symbols": ["BTC<b>"],
        "events": 12_345,
        "rows": n,
        "orders": 7,
        "fills": 2,
        "risk_rejects": {"stale_data": 3, "position": 40, "size": 0},
        "latency_us": {
            "tick_to_order": {**stage, "max": 70.0},
            "book": {**stage, "max": 0.5},
            "queued": {**stage, "p50": 0, "max": 0},
            "engine": {"count": 0, "max": 0},
        },
        "latency_cdf": {"tick_to_order": [[1.0, 0.5], [5.0, 0.9], [70.0, 1.0]]},
        "engine": {"backend": "null", "model": "m<i>"},
        "feature_hash": "ab" * 32,
        "series": [
            {
                "symbol": "BTC<b>",
                "strategy": "taker",
                "currency": "coin",
                "t_ns": t_ns,
                "mid": mid,
                "p_up": rng.random(n),
                "p_down": np.where(np.arange(n) % 50, 0.2, np.nan),
                "position": rng.integers(-3, 4, n),
                "equity": np.cumsum(rng.normal(size=n)),
            }
        ],
        "fill_list": [
            {"t_ns": int(t_ns[5]), "symbol": "BTC<b>", "side": 1, "px": 61_000.0, "qty": 1.0},
            {"t_ns": int(t_ns[9]), "symbol": "BTC<b>", "side": -1, "px": 61_001.0, "qty": 2.0},
            {"t_ns": int(t_ns[9]), "symbol": "another", "side": -1, "px": 1.0, "qty": 2.0},
        ],
        "backtest": {"pnl_net": -1.5, "hit_rate": 0.51, "inference_latency_us": 703.2},
        "notes": ["mind <this>"],
    }


def test_page_is_self_contained_and_escapes_what_comes_from_outside(report: Any) -> None:
    page = render_html(plain(report))
    drawings = check_page(page)
    assert len(drawings) == 7  # bars, CDF, price, signal, equity, position, rejects
    assert "BTC<b>" not in page
    assert "m<i>" not in page
    assert "mind &lt;this&gt;" in page


def test_page_shows_the_figures_that_the_report_holds(report: Any) -> None:
    page = render_html(plain(report))
    for text in ("12,345", "70 µs", "703 µs", "51.0%", "ab" * 32, "position"):
        assert text in page
    assert page.count('class="buy" d=') == 1
    assert page.count('class="sell" d=') == 1  # the other symbol's fill is not in this chart
    assert "tick-to-order" in page
    assert ">queued<" not in page  # it took no time


def test_an_empty_report_is_an_empty_page_not_an_error() -> None:
    assert check_page(render_html({})) == []
    print_report({}, Console(file=io.StringIO()))


@pytest.mark.parametrize("points", [1, 2, 3])
def test_flat_and_tiny_series_are_drawn(points: int) -> None:
    flat = {"t_ns": [10**18 + i for i in range(points)], "symbol": "S"}
    flat.update({k: [1.0] * points for k in ("mid", "p_up", "p_down", "position", "equity")})
    assert len(check_page(render_html({"series": flat}))) == (4 if points > 1 else 0)


def test_files_are_strict_json_and_are_read_back(tmp_path: Path, report: Any) -> None:
    report["backtest"]["sharpe"] = float("nan")
    json_path, html_path = write_report(report, tmp_path / "a" / "b")
    text = json_path.read_text()
    loaded = json.loads(text, parse_constant=pytest.fail)
    assert loaded["backtest"]["sharpe"] is None
    assert loaded["series"][0]["p_down"][0] is None
    assert loaded == load_report(tmp_path / "a" / "b")
    check_page(html_path.read_text())
    assert sorted(p.name for p in json_path.parent.iterdir()) == ["report.html", "report.json"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 99}', "{"])
def test_a_file_that_is_not_a_report_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(DataError, match=r"report\.json"):
        load_report(tmp_path)


def test_table_holds_latency_counts_and_rejects(report: Any) -> None:
    out = io.StringIO()
    print_report(report, Console(file=out, width=120))
    text = out.getvalue()
    for expected in ("tick-to-order", "12,345", "stale data", "703 µs", "mind <this>"):
        assert expected in text
    assert text.index("position") < text.index("stale data")  # most frequent first


@pytest.mark.parametrize(("count", "limit"), [(0, 5), (5, 5), (6, 5), (1000, 7)])
def test_thin_keeps_the_ends_and_the_limit(count: int, limit: int) -> None:
    indices = thin(count, limit)
    assert len(indices) == min(count, limit)
    if count:
        assert indices[0] == 0
        assert indices[-1] == count - 1
        assert (np.diff(indices) > 0).all()


def test_machine_says_what_a_figure_was_measured_on() -> None:
    info = machine_info()
    assert info["cpu"]
    assert int(info["cores"]) >= 1
    assert info["numba"]
    json.dumps(info)
