"""The README's table of figures, made from ``results/*.json``: nothing in it is typed by hand.

    python -m benchmarks._readme        # rewrite the README's block

Entry points: `table()`, `main()`. A test holds README and results equal.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks._machine import RESULTS

README = Path(__file__).resolve().parent.parent / "README.md"
START, END = "<!-- figures -->\n", "<!-- /figures -->"

Row = tuple[str, str, str, str]  # what, figure, budget, benchmark


def _result(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _millions(value: float | None) -> str:
    return "" if value is None else f"{value / 1e6:.1f} M/s"


def _book_features(result: dict[str, Any]) -> list[Row]:
    return [
        (
            f"events/s, one core, {r['name']}",
            _millions(r["events_per_s"]),
            f"≥ {r['target_events_per_s'] / 1e6:g} M/s" if r["target_events_per_s"] else "",
            "book_features",
        )
        for r in result["results"]
    ]


def _pipeline(result: dict[str, Any]) -> list[Row]:
    rows = []
    budget = "≤ {p50:g} / {p99:g} µs".format(**result["target_us"])
    for r in result["results"]:
        total = r["latency_us"]["tick_to_order"]
        what = f"tick-to-order without a model, spec `{r['spec']}`, p50 / p99"
        shown = f"{total['p50']:.2f} / {total['p99']:.2f} µs"
        rows.append((what, shown, budget if r["spec"] == "light" else "", "pipeline"))
        book = r["latency_us"]["book"]
        shown = f"{book['p50']:.2f} / {book['p99']:.2f} µs"
        rows.append((f"the book's part of it, spec `{r['spec']}`", shown, "", "pipeline"))
    return rows


def _split_book(result: dict[str, Any]) -> list[Row]:
    rows = []
    for spec, found in result["results"].items():
        before, after = (
            found[name]["latency_us"]["tick_to_order"]["p99"] for name in ("before", "split")
        )
        what = f"p99 of tick-to-order, spec `{spec}` (before the book was split, by turns)"
        budget = f"≤ {result['target_p99_us'][spec]:g} µs"
        rows.append((what, f"{after:.2f} µs ({before:.2f} µs)", budget, "split_book"))
    return rows


def _split(result: dict[str, Any]) -> list[Row]:
    seed = result["models"]["lstm-seed"]
    full, step = seed["times_us"]["full"]["p50"], seed["times_us"]["step"]["p50"]
    what = "seed LSTM on the CPU, on-path after tick-split, p50 (whole window)"
    return [(what, f"{step:.0f} µs ({full:.0f} µs)", "≤ 1/25", "split")]


def _loop(result: dict[str, Any]) -> list[Row]:
    rows = []
    for model in ("seed_lstm", "light_lstm"):
        whole, split, native = (
            result[model][variant]["latency_us"]["engine"]
            for variant in ("whole", "split", "native")
        )
        what = f"`{model}` in the loop on the CPU, engine p50 / p99 (ONNX Runtime; whole window)"
        shown = f"{native['p50']:.1f} / {native['p99']:.1f} µs"
        shown += f" ({split['p50']:.0f} / {split['p99']:.0f} µs"
        shown += f"; {whole['p50']:.0f} / {whole['p99']:.0f} µs)"
        rows.append((what, shown, "", "loop"))
    order = result["seed_lstm"]["native"]["latency_us"]["tick_to_order"]
    what = "tick-to-order with `seed_lstm` on the CPU, p50 / p99"
    rows.append((what, f"{order['p50']:.1f} / {order['p99']:.1f} µs", "≤ 10 / 16 µs", "loop"))
    return rows


def _native(result: dict[str, Any]) -> list[Row]:
    rows = []
    for model, budget in (("lstm-seed", "≤ 1/3"), ("mlp", "≤ 1/4"), ("transformer-2", "< 1")):
        found = result["models"][model]
        ours, theirs = (
            found["after_1_mb"][backend]["step"]["p50"] for backend in ("native", "onnxruntime")
        )
        worst = found["every_column_new"]["native"]["step"]["p50"]
        what = (
            f"`{model}`: what is on the path, recorded rows, as generated C "
            "(where every column is new; in ONNX Runtime), p50"
        )
        rows.append((what, f"{ours:.1f} µs ({worst:.1f} µs; {theirs:.1f} µs)", budget, "native"))
    return rows


def _startup(result: dict[str, Any]) -> list[Row]:
    targets = result["targets_s"]
    names = (
        ("import_s", "`import tickrt`"),
        ("warm_first_tick_s", "`tickrt run` to its first tick, warm caches"),
        ("cold_first_tick_s", "`tickrt run` to its first tick, compiling everything"),
    )
    return [
        (
            what,
            f"{result[key] * 1e3:.0f} ms" if result[key] < 1 else f"{result[key]:.1f} s",
            f"≤ {targets[key]:g} s" if key in targets else "",
            "startup",
        )
        for key, what in names
    ]


def _event_stream(result: dict[str, Any]) -> list[Row]:
    plain, load, stream = (result["marked"][name] for name in ("numpy", "load", "stream"))
    rate, whole, unpacked = (_millions(r["events_per_s"]) for r in (stream, load, plain))
    return [
        (
            "events/s out of a compressed file in pieces (loaded whole; `numpy.load` alone)",
            f"{rate} ({whole}; {unpacked})",
            "",
            "event_stream",
        ),
        (
            f"memory that this adds, {result['events'] / 1e6:.0f} M events (loaded whole)",
            f"{stream['added_mib']:.0f} MiB ({load['added_mib']:.0f} MiB)",
            "",
            "event_stream",
        ),
    ]


def _memory(result: dict[str, Any]) -> list[Row]:
    resident = result["resident_mb"]
    early, late = resident["early in the run"], resident["late in the run"]
    millions = result["events"] / 1e6
    return [
        (
            f"resident memory of a run, seed LSTM, {millions:.0f} M events, early → late (peak)",
            f"{early:.0f} → {late:.0f} MB ({resident['peak']:.0f} MB)",
            f"flat, ≤ {result['target_mb']} MB",
            "memory",
        )
    ]


_PARTS = {
    "book_features": _book_features,
    "pipeline": _pipeline,
    "split_book": _split_book,
    "split": _split,
    "native": _native,
    "loop": _loop,
    "startup": _startup,
    "event_stream": _event_stream,
    "memory": _memory,
}


def table() -> str:
    """The figures that there are results for, as a markdown table, and their machines."""
    rows: list[Row] = []
    machines = set()
    for name, make in _PARTS.items():
        result = _result(name)
        if result is not None:
            rows += make(result)
            machines.add(f"{result['machine']['cpu']}, {result['machine']['cores']} cores")
    if not rows:
        return ""
    lines = ["| what | measured | budget | benchmark |", "|---|---|---|---|"]
    lines += [
        f"| {what} | {figure} | {budget} | [{name}](benchmarks/{name}.py) |"
        for what, figure, budget, name in rows
    ]
    return "\n".join([*lines, "", f"Measured on: {'; '.join(sorted(machines))}.", ""])


def main() -> int:
    """Rewrite the block; 0."""
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(START)
    _, after = rest.split(END)
    README.write_text(f"{before}{START}{table()}{END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
