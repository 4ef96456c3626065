"""``tickrt model list | show | program``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tickrt.cli.common import Json, complete_model
from tickrt.errors import ConfigError

if TYPE_CHECKING:
    from tickrt.program import StreamProgram

__all__ = ["list_", "program", "show"]


def _facts(name: str) -> dict[str, Any]:
    """What a model is, without running it."""
    from tickrt.engines.graph.check import read_model
    from tickrt.feature.spec import load_spec
    from tickrt.models import find_model

    files = find_model(name)
    model = read_model(files.onnx)
    spec = load_spec(files.spec) if files.spec else None
    return {
        "name": files.name,
        "window": spec.window if spec else None,
        "width": spec.width if spec else None,
        "spec": spec.name if spec else None,
        "feature_hash": spec.hash if spec else None,
        "sha256": model.sha256,
        "kib": round(files.onnx.stat().st_size / 1024),
        "path": str(files.onnx),
        "card": str(files.card) if files.card else None,
    }


def list_(as_json: Json = False) -> None:
    """List the models that ship with the package.

    [bold]Examples[/bold]

    \b
      tickrt model list
      tickrt model list --json
    """
    from tickrt.cli.output import emit, print_table
    from tickrt.models import list_models

    found = [_facts(known) for known in list_models()]
    rows = [
        (
            facts["name"],
            facts["spec"] or "–",
            f"{facts['window']} × {facts['width']}" if facts["spec"] else "–",
            f"{facts['kib']:,} KiB",
            facts["sha256"][:12],
        )
        for facts in found
    ]
    columns = ("model", "spec", "window × width", "size", "sha256")
    emit(found, as_json, show=lambda: print_table(columns, rows))


def show(
    name: Annotated[
        str,
        typer.Argument(
            help="A shipped model (see: tickrt model list) or an ONNX file.",
            autocompletion=complete_model,
        ),
    ],
    as_json: Json = False,
) -> None:
    """Show a model's card: what it was trained on and how good it is.

    [bold]Examples[/bold]

    \b
      tickrt model show seed_lstm
      tickrt model show my.onnx --json
    """
    from tickrt.cli.output import emit
    from tickrt.models import find_model

    facts = _facts(name)
    card = find_model(name).card

    def read() -> None:
        from rich.console import Console
        from rich.markdown import Markdown

        if card is None:
            raise ConfigError(f"{name}: it has no model card (a .md file beside the .onnx)")
        Console().print(Markdown(card.read_text(encoding="utf-8")))

    emit(facts, as_json, show=read)


def _cuda(made: StreamProgram, blocks: int | None) -> str:
    from tickrt.engines.resident.compile import default_blocks
    from tickrt.engines.resident.kernel import generate

    return generate(made, blocks or default_blocks(made)).source


def program(
    name: Annotated[
        str,
        typer.Argument(
            help="A shipped model (see: tickrt model list) or an ONNX file.",
            autocompletion=complete_model,
        ),
    ],
    whole: Annotated[
        bool, typer.Option("--whole", help="The model over its whole window, not its split.")
    ] = False,
    stateful: Annotated[
        bool,
        typer.Option("--stateful", help="The model was trained with carried state."),
    ] = False,
    cuda: Annotated[
        bool, typer.Option("--cuda", help="The CUDA C++ of its resident kernel instead.")
    ] = False,
    blocks: Annotated[
        int | None,
        typer.Option(min=1, max=16, help="With --cuda: multiprocessors; default: by its size."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a model as loops: what generated kernels compute, operation by operation.

    [bold]Examples[/bold]

    \b
      tickrt model program seed_lstm
      tickrt model program seed_lstm --cuda --blocks 16
      tickrt model program my.onnx --whole
    """
    from tickrt.cli.output import emit
    from tickrt.cli.progress import working
    from tickrt.engines.graph.check import read_model
    from tickrt.engines.split.plan import plan
    from tickrt.engines.translate import stream_program
    from tickrt.models import find_model
    from tickrt.program.text import describe

    if blocks is not None and not cuda:
        raise ConfigError("--blocks: of the kernel that --cuda shows: name both")
    model = read_model(find_model(name).onnx)
    with working("translating", as_json):
        split = None if whole else plan(model, stateful=stateful)
        made = stream_program(model, split if split is not None and split.usable else None)
    text = _cuda(made, blocks) if cuda else describe(made)
    facts = {
        **made.facts,
        "window": made.window,
        "width": made.width,
        "constants": made.constants,
        "operations": {section: len(listed) for section, listed in made.sections.items()},
        "why_whole": split.why_not if split is not None and not split.usable else None,
        "text": text,
    }
    emit(facts, as_json, show=lambda: typer.echo(text, nl=False))
