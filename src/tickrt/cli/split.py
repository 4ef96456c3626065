"""``tickrt split``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tickrt.cli.common import Force, Json, Spec, complete_model

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from tickrt.engines.split import Parity, SplitResult, Timing

__all__ = ["split"]

_RANDOM_WINDOWS = 64
_FILES = ("pre.onnx", "step.onnx", "advance.onnx", "split.json", "split.svg")


def split(
    model: Annotated[
        str,
        typer.Argument(
            help="A shipped model (see: tickrt model list) or an ONNX file.",
            autocompletion=complete_model,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write pre.onnx, step.onnx, advance.onnx and SVG here."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", "-d", help="Event file: check parity on its rows too."),
    ] = None,
    spec: Spec = None,
    windows: Annotated[
        int, typer.Option(min=1, help="Consecutive windows of --data to compare.")
    ] = 1000,
    stateful: Annotated[
        bool,
        typer.Option("--stateful", help="The model was trained with carried state."),
    ] = False,
    window: Annotated[
        int | None, typer.Option(min=2, help="Rows, where the model leaves its window open.")
    ] = None,
    time_axis: Annotated[
        int | None, typer.Option(min=1, help="Axis of time in the input; default: last but one.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.0, help="How long to measure times; 0: do not.")
    ] = 1.0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Split a model into the rows already known and the newest row.

    Prints what is left on the path, what had to stay there and why, and whether the two halves
    give the same result as the whole. Exit code 1 when they do not.

    [bold]Examples[/bold]

    \b
      tickrt split seed_lstm
      tickrt split my.onnx -o out/split --data btcusd.npz --spec l2_100x100
    """
    from tickrt.cli.output import check_free, emit
    from tickrt.cli.progress import working
    from tickrt.engines.graph.load import load_onnx
    from tickrt.engines.split import measure, verify, write
    from tickrt.engines.split import split as split_model
    from tickrt.engines.split.check import random_rows
    from tickrt.engines.split.draw import draw
    from tickrt.models import find_model

    if out is not None:
        check_free(out, force, _FILES)
    files = find_model(model)
    whole, _, _ = load_onnx(files.onnx)
    with working("splitting", as_json):
        result = split_model(whole, stateful=stateful, window=window, time_axis=time_axis)
    facts: dict[str, Any] = {"model": str(files.onnx), **result.summary()}
    parities: dict[str, Parity] = {}
    timing: Timing | None = None
    if result.is_split:
        with working("comparing with the whole model", as_json):
            rows = random_rows(result, result.window + _RANDOM_WINDOWS - 1)
            parities["random"] = verify(result, whole, rows)
            if data is not None:
                real = _rows(data, spec or files.spec, files.name, result, windows)
                parities["real"] = verify(result, whole, real)
        if seconds:
            with working("measuring", as_json):
                timing = measure(result, whole, seconds=seconds)
        if out is not None:
            facts["files"] = [str(path) for path in write(result, out)]
            drawing = out / "split.svg"
            drawing.write_text(draw(result), encoding="utf-8")
            facts["files"].append(str(drawing))
    facts["parity"] = {name: _parity(p) for name, p in parities.items()}
    facts["times_us"] = _times(timing) if timing else None
    emit(facts, as_json, show=lambda: _show(facts, result))
    if not all(p.ok for p in parities.values()):
        raise typer.Exit(1)


def _rows(
    data: Path, spec: str | Path | None, model: str, result: SplitResult, windows: int
) -> npt.NDArray[np.float32]:
    """Consecutive rows of an event file, normalised as the loop does.

    Raises:
        ConfigError: no spec is known, or it makes rows of another width than the model's.
    """
    from tickrt.cli.rows import find_spec, load_rows
    from tickrt.errors import ConfigError

    found = find_spec(spec, None, model)
    if (found.width,) != result.row_shape[-1:]:
        raise ConfigError(
            f"--spec {found.name}: rows of {found.width} numbers, the model reads "
            f"{result.row_shape[-1]}"
        )
    return load_rows(data, found)[: result.window + windows - 1]


def _parity(parity: Parity) -> dict[str, Any]:
    return {
        "ok": parity.ok,
        "windows": parity.windows,
        "max_abs": parity.max_abs,
        "max_rel": parity.max_rel,
        "by_output": parity.by_output,
        "advance_rel": parity.advance_rel,
    }


def _times(timing: Timing) -> dict[str, Any]:
    parts = {"full": timing.full, "step": timing.step, "pre": timing.pre}
    if timing.advance:
        parts["advance"] = timing.advance
    return {
        **{name: {k: v for k, v in part.items() if k != "n"} for name, part in parts.items()},
        "off_path": timing.off_path,
        "rows_per_second": timing.ticks_per_second,
    }


def _show(facts: dict[str, Any], result: SplitResult) -> None:
    from tickrt.cli.output import print_facts

    if not result.is_split:
        print_facts("not split: runs whole", {"model": facts["model"], "why": result.why_not})
        return
    shown: dict[str, Any] = {"model": facts["model"], "window": f"{result.window} rows"}
    for cost in result.costs:
        shown[f"{cost.name}: multiply-adds"] = (
            f"{cost.on_path:,} on the path, {cost.off_path:,} off it, "
            f"{cost.full:,} in the whole model ({cost.share:.2%} on the path)"
        )
    shown["states"] = f"{len(result.states)}, {result.state_bytes:,} bytes"
    shown["advance"] = "yes" if result.advance is not None else f"no: {result.no_advance}"
    for name, parity in facts["parity"].items():
        verdict = "equal" if parity["ok"] else "DIFFERENT"
        shown[f"parity on {name} rows"] = (
            f"{verdict}: {parity['max_rel']:.1e} relative, {parity['max_abs']:.1e} absolute, "
            f"{parity['windows']} windows"
        )
    if facts["times_us"]:
        for name in ("full", "step", "pre", "advance"):
            if name in facts["times_us"]:
                part = facts["times_us"][name]
                shown[f"{name}, p50 / p99"] = f"{part['p50']:.1f} / {part['p99']:.1f} µs"
        shown["off the path"] = facts["times_us"]["off_path"]
    for reason in result.reasons:
        shown[f"not split: {reason.op} {reason.node}"] = reason.why
    for path in facts.get("files", ()):
        shown[f"wrote {Path(path).name}"] = path
    print_facts("split", shown)
