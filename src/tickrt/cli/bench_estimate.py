"""``tickrt bench estimate``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tickrt.cli.common import Json, complete_model, read_any_model

__all__ = ["bench_estimate"]


def bench_estimate(
    name: Annotated[
        str,
        typer.Argument(
            help="A shipped model, an ONNX file, or a reference model (see: tickrt bench split).",
            autocompletion=complete_model,
        ),
    ],
    blocks: Annotated[
        int | None,
        typer.Option(min=1, max=16, help="Multiprocessors; default: what suits its size."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what a model will cost as a resident kernel on a Hopper GPU, without one.

    Cycles of every part of the step, from its schedule. What runs off the path is not estimated.

    [bold]Examples[/bold]

    \b
      tickrt bench estimate seed_lstm
      tickrt bench estimate lstm-s --blocks 4 --json
    """
    from tickrt.cli.output import emit
    from tickrt.cli.progress import working
    from tickrt.engines.resident.estimate import MHZ, estimate
    from tickrt.engines.split.plan import plan
    from tickrt.engines.translate import TranslateError, stream_program
    from tickrt.errors import ModelError

    with working("translating", as_json):
        model = read_any_model(name).model
        split = plan(model)
        try:
            found = estimate(stream_program(model, split if split.usable else None), blocks)
        except TranslateError as error:
            raise ModelError(
                f"{name}: no resident kernel: {error}; --backend native runs it on the CPU"
            ) from None
    facts: dict[str, Any] = {
        "model": name,
        "blocks": found.blocks,
        "cycles": round(found.cycles),
        "mhz": MHZ,
        "floor_us": round(found.floor_us, 2),
        "on_path_us": round(found.on_path_us, 2),
        "parts": [
            {"operation": p.label, "where": p.where, "cycles": round(p.cycles)} for p in found.parts
        ],
    }
    emit(facts, as_json, show=lambda: _print(facts))


def _print(facts: dict[str, Any]) -> None:
    from tickrt.cli.output import print_table

    rows = [(p["operation"], p["where"], f"{p['cycles']:,}") for p in facts["parts"]]
    print_table(("operation", "where", "cycles"), rows, right=("cycles",))
    typer.echo(
        f"\n{facts['model']} on {facts['blocks']} multiprocessors: about {facts['on_path_us']} µs "
        f"from row to answer (p50; {facts['floor_us']} µs of it is the mailbox), fitted to an H100"
    )
