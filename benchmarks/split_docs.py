"""From ``results/split.json`` to the table and the plot of ``docs/tick-split.md``.

    python -m benchmarks.split_docs

The table replaces what stands between the two markers in the page; the plot is an SVG beside it.
"""

from __future__ import annotations

import json
import math
import sys
from html import escape
from pathlib import Path
from typing import Any

from benchmarks._machine import RESULTS

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE, PLOT = DOCS / "tick-split.md", DOCS / "img" / "tick-split.svg"
START, END = "<!-- table: python -m benchmarks.split_docs -->", "<!-- end of table -->"


def table(document: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    rows = [
        "| model | on path, share of multiply-adds | whole window p50 / p99, µs | "
        "on path p50 / p99, µs | faster | off path p50, µs | rows/s | state, bytes | parity |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, entry in document["models"].items():
        if not entry["split"]:
            rows.append(f"| {name} | 100 % (not split) | | | 1 × | | | | |")
            continue
        times, off = entry["times_us"], entry["off_path"]
        full, step = times["full"], times["step"]
        cells = (
            name,
            f"{entry['share_on_path']:.2%}",
            f"{full['p50']:,.0f} / {full['p99']:,.0f}",
            f"{step['p50']:,.1f} / {step['p99']:,.1f}",
            f"{entry['speedup']:.1f} ×",
            f"{times[off]['p50']:,.0f} ({off})",
            f"{entry['rows_per_second'][off]:,.0f}",
            f"{entry['state_bytes']:,}",
            f"{entry['parity']['max_rel']:.0e}",
        )
        rows.append("| " + " | ".join(cells) + " |")
    machine = document["machine"]
    rows += ["", f"{machine['cpu']}, {machine['cores']} cores, one thread; ONNX Runtime "]
    rows[-1] += f"{machine['libraries']['onnxruntime']}; {machine['date'][:10]}."
    if document["realtime"]:
        rows[-1] += " Measured under SCHED_FIFO on a machine with other work on it."
    for reason in document["missed"]:
        rows.append(f"Target missed: {reason}.")
    return "\n".join(rows)


def plot(document: dict[str, Any]) -> str:
    """Bars on a logarithmic axis: whole window and on path, p50 with a mark at p99."""
    models = {n: e for n, e in document["models"].items() if e["split"]}
    high = max(e["times_us"]["full"]["p99"] for e in models.values())
    low, left, wide, row = 5.0, 130, 620, 34
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)

    def x(value: float) -> float:
        span = math.log10(high * 1.3 / low)
        return left + wide * math.log10(max(value, low) / low) / span

    height = 50 + row * len(models)
    parts = [f'<rect width="{left + wide + 40}" height="{height}" fill="#ffffff"/>']
    for decade in decades:
        value = 10.0**decade
        if low <= value <= high * 1.3:
            parts.append(
                f'<path d="M{x(value):.0f} 28V{height - 8}" stroke="#dddddd"/>'
                f'<text x="{x(value):.0f}" y="20" text-anchor="middle">{value:,.0f} µs</text>'
            )
    for index, (name, entry) in enumerate(models.items()):
        y = 34 + row * index
        parts.append(f'<text x="{left - 8}" y="{y + 16}" text-anchor="end">{escape(name)}</text>')
        for offset, key, colour in ((0, "full", "#c9d3da"), (12, "step", "#d1495b")):
            part = entry["times_us"][key]
            end, tail = x(part["p50"]), x(part["p99"])
            parts.append(
                f'<rect x="{left}" y="{y + offset}" width="{end - left:.1f}" height="11" '
                f'fill="{colour}"/><path d="M{end:.1f} {y + offset + 5.5}H{tail:.1f}" '
                f'stroke="{colour}" stroke-width="2"/>'
            )
        parts.append(f'<text x="{x(high) + 24:.0f}" y="{y + 16}">{entry["speedup"]:.0f} ×</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + wide + 40} {height}" '
        f'width="{left + wide + 40}" height="{height}" font-family="system-ui, sans-serif" '
        f'font-size="12" fill="#222222">{"".join(parts)}</svg>\n'
    )


def main(arguments: list[str] | None = None) -> int:
    """Rewrite the table and the plot."""
    del arguments
    document = json.loads((RESULTS / "split.json").read_text())
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{START}\n{table(document)}\n{END}{after}", encoding="utf-8")
    PLOT.parent.mkdir(exist_ok=True)
    PLOT.write_text(plot(document), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
