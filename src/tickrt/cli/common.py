"""The options that commands of every kind share.

Entry points: `Json`, `Force`, `Model`, `Spec`; for the shell `complete_backend`,
`complete_model`, `complete_spec`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

__all__ = ["Force", "Json", "Model", "Spec", "complete_backend", "complete_model", "complete_spec"]


def complete_model(start: str) -> Iterator[str]:
    """For the shell: shipped models."""
    from tickrt.models import list_models

    return (name for name in list_models() if name.startswith(start))


def complete_spec(start: str) -> Iterator[str]:
    """For the shell: shipped specs."""
    from tickrt.feature.spec import shipped_specs

    return (name for name in shipped_specs() if name.startswith(start))


def complete_backend(start: str) -> Iterator[str]:
    """For the shell: known backends."""
    from tickrt import backends

    return (name for name in [backends.AUTO, *backends.names()] if name.startswith(start))


Json = Annotated[bool, typer.Option("--json", help="Print JSON, and no progress.")]
Force = Annotated[
    bool, typer.Option("--force", "-f", help="Replace what lies where --out points to.")
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="A shipped model (see: tickrt model list), an ONNX file, or a bundle.",
        show_default="seed_lstm",
        autocompletion=complete_model,
        rich_help_panel="What to run",
    ),
]
Spec = Annotated[
    str | None,
    typer.Option(
        "--spec",
        "-s",
        help="A shipped feature spec or a TOML file; default: the model's own.",
        autocompletion=complete_spec,
        rich_help_panel="What to run",
    ),
]
