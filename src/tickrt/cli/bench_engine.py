"""``tickrt bench engine``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tickrt.cli.common import Json, complete_model, read_any_model

__all__ = ["bench_engine", "print_engines"]


def bench_engine(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL…",
            help="Shipped models, ONNX files, or reference models (see: tickrt bench split).",
            autocompletion=complete_model,
        ),
    ],
    names: Annotated[
        str | None,
        typer.Option(
            "--backends",
            "-b",
            metavar="NAME,…",
            help="Backends, and peers such as onnxruntime_cuda; default: all that may run here.",
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.0, help="How long to measure each model in each engine.")
    ] = 2.0,
    gap: Annotated[
        float, typer.Option(min=0.0, max=1e6, help="Time between two rows, in µs.")
    ] = 100.0,
    as_json: Json = False,
) -> None:
    """Time models in one engine beside the other, as the loop calls them, in one run.

    From before the row is handed over to the answer read. The floors come first: `null` is the
    engine handle alone, `echo` the way to a GPU and back, `empty launch` and `empty graph` what
    an engine pays that is launched for each row. The engines take turns on the same rows, and
    every answer is compared with ONNX Runtime on the whole window. What this machine does not
    have is skipped, with the reason.

    [bold]Examples[/bold]

    \b
      tickrt bench engine seed_lstm
      tickrt bench engine lstm-s mlp --backends onnxruntime,native --seconds 5 --json
    """
    from tickrt.cli.output import emit
    from tickrt.cli.progress import bar
    from tickrt.observe.machine import machine_info
    from tickrt.runtime.engine_lineup import DEFAULT_NAMES, check_names, compare

    wanted = check_names(DEFAULT_NAMES if names is None else names.split(","))
    sources = {name: read_any_model(name) for name in models}  # all errors before the first minute
    results: list[dict[str, Any]] = []
    for name, source in sources.items():
        with bar(name, as_json) as report:
            engines = compare(source, wanted, seconds=seconds, gap_us=gap, report=report)
        results.append({"model": name, "model_sha256": source.identity, "engines": engines})
    facts = {"machine": machine_info(), "seconds": seconds, "gap_us": gap, "results": results}
    emit(facts, as_json, show=lambda: print_engines(facts))


def print_engines(facts: dict[str, Any]) -> None:
    """What `bench_engine` found, as a table per model; what failed or was skipped below it."""
    from tickrt.cli.output import print_table

    typer.echo(
        f"From before the row is handed over to the answer read, a row every "
        f"{facts['gap_us']:g} µs; advance: its p50;\nrows/s: without a gap; error: the largest, "
        "against ONNX Runtime on the whole window.\n–: fewer than ten values lie beyond it"
    )
    numbers = ("p50", "p99", "p99.9", "max", "advance", "rows/s", "error")
    for result in facts["results"]:
        typer.echo(f"\n{result['model']}")
        measured = [entry for entry in result["engines"] if "skipped" not in entry]
        rows = [(entry["engine"], *_cells(entry)) for entry in measured]
        print_table(("engine", *numbers), rows, right=numbers, fixed=numbers[:-1])
        for place in dict.fromkeys(entry["where"] for entry in measured):
            there = [entry["engine"] for entry in measured if entry["where"] == place]
            typer.echo(f"on {place}: {', '.join(there)}")
        for entry in result["engines"]:
            for what in ("failed", "skipped"):
                if what in entry:
                    typer.echo(f"{entry['engine']}: {what}: {entry[what]}")


def _cells(entry: dict[str, Any]) -> tuple[str, ...]:
    from tickrt.report.format import NONE, PERCENTILES, carries, rate
    from tickrt.report.svg import duration

    if not entry["counted"]:
        return ("",) * 6 + (_error(entry),)
    times = entry["on_path_us"]
    return (
        *(
            duration(times[name]) if carries(entry["counted"], name) else NONE
            for name in PERCENTILES
            if name in times
        ),
        duration(times["max"]),
        duration(entry["advance_us"]["p50"]),
        rate(entry["rows_per_second"]) if "rows_per_second" in entry else "",
        _error(entry),
    )


def _error(entry: dict[str, Any]) -> str:
    """The largest error; how many answers are no numbers, where there are such."""
    if "parity" not in entry:
        return ""
    parity = entry["parity"]
    largest = "" if parity["max_error"] is None else f"{parity['max_error']:.0e}"
    broken = f"{parity['not_finite']:,} not finite" if parity["not_finite"] else ""
    return ", ".join(filter(None, (largest, broken)))
