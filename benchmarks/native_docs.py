"""The table of docs/native.md, made from ``results/native.json``.

python -m benchmarks.native_docs
"""

from __future__ import annotations

import json
import sys
from typing import Any

from benchmarks._machine import RESULTS
from benchmarks._readme import README

PAGE = README.parent / "docs" / "native.md"
START, END = "<!-- table: python -m benchmarks.native_docs -->", "<!-- end of table -->"


def _times(entry: dict[str, float]) -> str:
    return f"{entry['p50']:,.1f} / {entry['p99']:,.1f}"


def table(document: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    rows = [
        "| model | on path, ONNX Runtime | on path, native | ratio | every column new | "
        "after the order, ONNX Runtime | native | first start, s | error |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, entry in document["models"].items():
        usual, new = entry["after_1_mb"], entry["every_column_new"]
        theirs, ours = usual["onnxruntime"], usual["native"]
        cells = (
            name,
            _times(theirs["step"]),
            _times(ours["step"]),
            f"{usual['step_ratio']:.2f}",
            f"{_times(new['native']['step'])} ({new['step_ratio']:.2f})",
            f"{theirs['advance']['p50']:,.0f}",
            f"{ours['advance']['p50']:,.0f}",
            f"{entry['start_s']:.1f}",
            f"{entry['error']['against_onnxruntime']:.0e}",
        )
        rows.append("| " + " | ".join(cells) + " |")
        for backend, times in usual.items():
            if backend.startswith("native "):
                step = _times(times["step"])
                rows.append(f"| {name}, {backend.split()[1]} | | {step} | | | | | | |")
    machine = document["machine"]
    rows += ["", f"{machine['cpu']}, {machine['cores']} cores, one thread; ONNX Runtime "]
    rows[-1] += f"{machine['libraries']['onnxruntime']}; {machine['date'][:10]}."
    rows += [f"Target missed: {reason}." for reason in document["missed"]]
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> int:
    """Rewrite the table."""
    del arguments
    document = json.loads((RESULTS / "native.json").read_text(encoding="utf-8"))
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{START}\n{table(document)}\n{END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
