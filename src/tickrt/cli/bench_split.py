"""``tickrt bench split``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tickrt.cli.common import Json

__all__ = ["bench_split"]


def _read(path: Path) -> Any:
    """A user's model. Raises ModelError."""
    from tickrt.engines.graph.load import load_onnx

    return load_onnx(path)[0]


def _models(names: list[str], weights: Path | None) -> dict[str, Any]:
    """Name → maker of the model.

    Raises:
        ConfigError: an unknown name, or a trained network without `--weights`.
    """
    from functools import partial

    from tickrt.errors import ConfigError
    from tickrt.models import find_model
    from tickrt.models.architectures.zoo import TRAINED, ZOO, trained

    found: dict[str, Any] = {}
    for name in names or [*ZOO, *(TRAINED if weights else ())]:
        if name in ZOO:
            found[name] = ZOO[name]
        elif name in TRAINED:
            if weights is None:
                raise ConfigError(f"{name}: give the folder of its checkpoint by --weights")
            found[name] = partial(trained, name, weights)
        else:
            found[name] = partial(_read, find_model(name).onnx)
    return found


def bench_split(
    models: Annotated[
        list[str] | None,
        typer.Argument(help="Reference models, shipped models or ONNX files; default: all."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option("--weights", help="Folder of the DeepLOB and BiN-CTABL weights.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.05, help="How long to measure each model.")] = 2.0,
    as_json: Json = False,
) -> None:
    """Time models whole and split, in ONNX Runtime on one thread, in one run.

    [bold]Examples[/bold]

    \b
      tickrt bench split
      tickrt bench split lstm-seed transformer-2 --seconds 5
    """
    from tickrt.cli.output import emit
    from tickrt.cli.progress import working
    from tickrt.engines.split.compare import compare

    found: list[dict[str, Any]] = []
    for name, maker in _models(models or [], weights).items():
        with working(name, as_json):
            found.append({"model": name, **compare(maker(), seconds=seconds)})
    emit(found, as_json, show=lambda: _print_table(found))


def _print_table(found: list[dict[str, Any]]) -> None:
    from tickrt.cli.output import print_table

    heads = (
        "whole, µs p50 / p99",
        "on path, µs p50 / p99",
        "faster",
        "share",
        "off path",
        "parity",
    )
    rows: list[tuple[str, ...]] = []
    for entry in found:
        if not entry["split"]:
            rows.append((entry["model"], "runs whole:", entry["why_not"], "", "", "", ""))
            continue
        full, step = entry["times_us"]["full"], entry["times_us"]["step"]
        off = entry["off_path"]
        rows.append(
            (
                entry["model"],
                f"{full['p50']:,.1f} / {full['p99']:,.1f}",
                f"{step['p50']:,.1f} / {step['p99']:,.1f}",
                f"{entry['speedup']:.1f} ×",
                f"{entry['share_on_path']:.2%}",
                f"{off} {entry['times_us'][off]['p50']:,.0f} µs",
                f"{entry['parity']['max_rel']:.0e}",
            )
        )
    print_table(("model", *heads), rows, right=heads)
