"""The report: strict JSON, one self-contained page, nothing lost and nothing invented."""

from __future__ import annotations

import io
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from helpers.reports import START_NS, figures, fill, make_report, series, summary
from tickrt.errors import DataError
from tickrt.observe.machine import machine_info
from tickrt.report.format import figure_rows, headline
from tickrt.report.html import render_html
from tickrt.report.report import load_report, plain, to_json, write_report
from tickrt.report.summary import assumed, went_wrong
from tickrt.report.table import print_report
from tickrt.runtime.report_types import EngineFacts, Report
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
def report() -> Report:
    n = 400
    rng = np.random.default_rng(3)
    t_ns = [START_NS + i * 10**8 for i in range(n)]
    p_down = [0.2 if i % 50 else None for i in range(n)]
    engine = EngineFacts(backend="onnxruntime", model="m<i>", on_path_share=0.0129)
    mine = {"symbol": "BTC<b>", "qty": 1.0}
    return make_report(
        kind="backtest",
        symbols=["BTC<b>"],
        events=12_345,
        rows=n,
        signals=400,
        intents=50,
        orders=7,
        fills=2,
        risk_rejects={"stale_data": 3, "position": 40, "size": 0},
        latency_us={
            "tick_to_order": summary(20_000, p50=2.0, p90=3.0, p99=4.0, p999=5.5, max=70.0),
            "book": summary(200, p50=0.25, p90=0.35, p99=0.45, p999=0.55, max=0.65),
            "queued": summary(200, p50=0.0, max=0.0),
            "engine": summary(0, max=0.0),
        },
        latency_cdf={"tick_to_order": [(1.0, 0.5), (5.0, 0.9), (70.0, 1.0)]},
        engine=engine,
        engines=[engine],
        series=[
            series(
                symbol="BTC<b>",
                currency="coin",
                t_ns=t_ns,
                mid=(61_000 + np.cumsum(rng.integers(-1, 2, n)) * 0.5).tolist(),
                p_up=rng.random(n).tolist(),
                p_down=p_down,
                position=rng.integers(-3, 4, n).tolist(),
                equity=np.cumsum(rng.normal(size=n)).tolist(),
            )
        ],
        fill_list=[
            fill(**mine, t_ns=t_ns[5], px=61_000.100000000006),
            fill(**mine, t_ns=t_ns[9], side=-1),
            fill(symbol="another", t_ns=t_ns[9], side=-1),
        ],
        backtest=figures(currency="coin", hit_rate=0.51),
        backtest_by_strategy=[figures(currency="coin", hit_rate=0.51)],
        notes=["mind <this>"],
    )


def terminal(report: Report) -> str:
    out = io.StringIO()
    print_report(report, Console(file=out, width=120))
    return out.getvalue()


def test_page_is_self_contained_and_escapes_what_comes_from_outside(report: Report) -> None:
    page = render_html(report)
    drawings = check_page(page)
    assert len(drawings) == 7  # bars, CDF, price, signal, equity, position, rejects
    assert "BTC<b>" not in page
    assert "m<i>" not in page
    assert "mind &lt;this&gt;" in page


def test_page_shows_the_figures_that_the_report_holds(report: Report) -> None:
    page = render_html(report)
    for text in ("12,345", "70 µs", "30 µs", "51.0 % of 4", "ab" * 32, "1.3 % of the multi"):
        assert text in page
    assert page.count('class="buy" d=') == 1
    assert page.count('class="sell" d=') == 1  # the other symbol's fill is not in this chart
    assert "bought 1 contracts at 61,000.1<" in page
    assert "tick-to-order" in page
    assert ">queued<" not in page  # it took no time


def test_the_first_screen_says_what_it_cost_was_assumed_and_went_wrong(report: Report) -> None:
    page = render_html(report)
    first_screen = page[: page.index("<h2>Latency</h2>")]
    for text in (
        "5.5 µs</b><span>tick-to-order p99.9<",
        "−1.50000000</b><span>PnL net, coin<",
        "3.50000000</b><span>fees, coin<",
        "Charged 30 µs for each inference.",
        "fees of 0.05 % of the traded value",
        "mind &lt;this&gt;",
        "refused by risk: 43 of 50 intents (position 40, stale data 3)",
    ):
        assert text in first_screen


def test_no_percentile_is_shown_that_the_count_cannot_carry(report: Report) -> None:
    text = terminal(report)
    book = next(line for line in text.splitlines() if "book" in line)
    assert book.split() == ["book", "200", "250", "ns", "–", "–", "650", "ns"]
    assert "fewer than ten values" in text
    page = render_html(report)
    assert "350 ns" in page  # p90 of 200
    assert "450 ns" not in page
    assert "550 ns" not in page
    few = replace(
        report,
        latency_us={
            "tick_to_order": summary(71, p50=2.0, p99=4.0, max=70.0),
            "tick_to_decision": summary(1000, p99=3.0, p999=9.0),
        },
    )
    assert [(tile.value, tile.label) for tile in headline(few)[:4]] == [
        ("2 µs", "tick-to-order p50"),
        ("70 µs", "tick-to-order, slowest of 71"),
        ("3 µs", "tick-to-decision p99"),
        ("−1.50000000", "PnL net, coin"),
    ]
    assert len(check_page(render_html(few))) == 7


def test_the_annual_sharpe_needs_a_day(report: Report) -> None:
    rows = dict(figure_rows(figures(), 0))
    assert "Sharpe, annualised" not in rows
    assert rows["annualised (needs a day)"] == "–"
    assert dict(figure_rows(figures(seconds=90_000.0), 0))["Sharpe, annualised"] == "−1,404"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"faults": 5, "signals": 95}, "5 of 100 engine results were missing"),
        ({"fallback_decisions": 1200}, "1,200 decisions were made on the rule-based signal"),
        ({"waited": 3}, "3 ticks waited"),
        ({"modes": {"taker": "shadow"}}, "in shadow: it sent nothing"),
        ({"lost_records": 7, "lost_records_by_kind": {"fill": 7}}, "7 records found no room"),
    ],
)
def test_what_went_wrong_is_said(change: dict[str, Any], said: str) -> None:
    assert went_wrong(make_report()) == []
    assert said in " ".join(went_wrong(make_report(**change)))
    assert said in " ".join(terminal(make_report(**change)).split())
    assert said in render_html(make_report(**change))


@pytest.mark.parametrize(
    ("venue", "said"),
    [
        ({"entry_latency_ns": 1_500_000, "response_latency_ns": 0}, "takes 1.5 ms to the venue"),
        ({"latency_file": "lat.npz"}, "Order latencies are those recorded in lat.npz."),
        ({"queue_model": "log_prob", "exchange": "partial"}, "(model log_prob); orders fill also"),
    ],
)
def test_what_the_venue_assumes_is_said(report: Report, venue: Any, said: str) -> None:
    assert said in " ".join(assumed(replace(report, config={"venue": venue})))


def test_a_run_in_which_nothing_happened_has_a_page_without_charts() -> None:
    assert check_page(render_html(make_report())) == []
    assert "nothing" in terminal(make_report())


@pytest.mark.parametrize("points", [0, 1, 2, 3])
def test_flat_and_tiny_series_are_drawn(points: int) -> None:
    flat = series(t_ns=list(range(10**18, 10**18 + points)))
    assert len(check_page(render_html(make_report(series=[flat])))) == (4 if points > 1 else 0)


def test_files_are_strict_json_and_are_read_back(tmp_path: Path, report: Report) -> None:
    json_path, html_path = write_report(report, tmp_path / "a" / "b")
    text = json_path.read_text()
    found = json.loads(text, parse_constant=pytest.fail)
    assert found["series"][0]["p_down"][0] is None
    assert "equity_gross" not in found["series"][0]  # it does not apply
    assert found["interrupted"] is None
    assert load_report(tmp_path / "a" / "b") == load_report(json_path) == report
    check_page(html_path.read_text())
    assert sorted(p.name for p in json_path.parent.iterdir()) == ["report.html", "report.json"]


def test_values_that_json_has_not_become_null() -> None:
    assert plain({"a": float("nan"), "b": np.array([1.0, np.inf])}) == {"a": None, "b": [1.0, None]}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 99}', '{"schema": true}', "{"])
def test_a_file_that_is_not_a_report_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(DataError, match=r"report\.json"):
        load_report(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r["latency_us"]["book"].update(p99="fast"), "$.latency_us.book.p99: expected a"),
        (lambda r: r["engines"][0].update(signal=3), "$.engines[0].signal: expected a list"),
        (lambda r: r.update(orders=1.5), "$.orders: expected an integer"),
        (lambda r: r.update(orders=None), "$.orders: expected an integer"),
        (lambda r: r.update(kind="walk"), "$.kind: expected 'run' or 'backtest'"),
        (lambda r: r.pop("machine"), "$.machine: missing: made by another version?"),
        (lambda r: r.update(mood=1), "$.mood: unknown key: made by another version?"),
    ],
)
def test_a_wrong_value_is_named_by_its_path(
    tmp_path: Path, report: Report, change: Any, said: str
) -> None:
    found = to_json(report)
    change(found)
    (tmp_path / "report.json").write_text(json.dumps(found))
    with pytest.raises(DataError) as caught:
        load_report(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'report.json'}: {said}")


def test_table_holds_latency_counts_and_rejects(report: Report) -> None:
    text = terminal(report)
    for expected in ("tick-to-order", "12,345", "stale data", "30 µs", "mind <this>"):
        assert expected in text


def test_table_sets_strategies_side_by_side(report: Report) -> None:
    several = [figures(), figures(strategy="maker", pnl_net=2.0)]
    text = terminal(replace(report, strategies=["taker", "maker"], backtest_by_strategy=several))
    assert re.search(r"result +taker · BTCUSDT +maker · BTCUSDT", text)
    assert re.search(r"PnL net +−1.50 quote +2.00 quote", text)


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
