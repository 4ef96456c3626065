"""What a run or a backtest found out: one plain dict, `report.json`, and a page to look at.

Entry points: `write_report(report, folder)` writes `report.json` and `report.html`;
`load_report(path)`; `plain(value)` makes anything JSON;
`table.print_report` prints it.

The report (`SCHEMA` = 1). Missing keys are allowed everywhere, extra ones are kept and shown:

    kind            "run" | "backtest"          version       of tickrt
    created         ISO time                    title         optional, shown on the page
    symbols         [str]                       pace          "max" | "realtime" | "10x"
    strategies      [str]                       data          path(s) of the event file
    events rows signals orders cancels fills    counts (int); fills is how many, see fill_list
    risk_rejects    {reason: count}             mode_changes  {"fallback": n, …}
    latency_us      {stage: {count mean min p50 p90 p99 p999 max}}; stages: book, features, engine,
                    decision, tick_to_order, and any other; from `histogram.percentiles`
    latency_cdf     {stage: [[us, share], …]}   from `histogram.cdf`
    floor           {"clock_read": {…}, "spin": {…}}  from `clock.floor`
    engine          {backend, model, model_sha256, threads, …}
    graphs          {model: SVG of its graph with the on-path part marked}
    feature_hash    SHA-256 of the spec         spec          its name
    wall_s          time in the loop            events_per_s  events / wall_s
    compile_s       time to the first tick that compiling took      startup_s  all of it
    machine         from `machine.machine_info`               config  the settings, as given
    series          a list (or one) of {symbol, strategy, currency, t_ns, mid, p_up, p_down,
                    position, equity, equity_gross}: lists of equal length ≤ 2000; null = no value
    fill_list       [{t_ns, symbol, strategy, side (+1/-1), px, qty, maker (bool), fee}]
    backtest        {metric: number}: pnl_gross, pnl_net, fees, sharpe, sharpe_annual,
                    max_drawdown, turnover, fill_ratio, hit_rate, inference_latency_us, …
    backtest_by_strategy  the same, one per strategy
    notes           [str] printed under the table: what the reader must know

Invariants: `report.json` is strict JSON (NaN and infinity become null), written atomically.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tickrt.errors import DataError
from tickrt.report.html import render_html

__all__ = ["SCHEMA", "load_report", "plain", "write_report"]

SCHEMA = 1


def plain(value: Any) -> Any:
    """`value` with only JSON's types: numpy becomes Python, NaN and infinity become None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, bool) or value is None or isinstance(value, (int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)


def _write(path: Path, text: str) -> None:
    """Write so that a reader never sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def write_report(report: Mapping[str, Any], folder: str | Path) -> tuple[Path, Path]:
    """Write `report.json` and `report.html` into `folder` (made if missing).

    Returns:
        The two paths.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    clean = plain({"schema": SCHEMA, **report})
    json_path, html_path = folder / "report.json", folder / "report.html"
    _write(json_path, json.dumps(clean, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    _write(html_path, render_html(clean))
    return json_path, html_path


def load_report(path: str | Path) -> dict[str, Any]:
    """Read a `report.json`, or the one in a folder.

    Raises:
        DataError: there is none, or it is not one of ours.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "report.json"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot read a report: {error}") from error
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        raise DataError(f"{path}: not a report of schema {SCHEMA}: made by another version?")
    return report
