"""The options that commands of every kind share.

Entry points: `Json`, `Force`, `Model`, `Spec`; for the shell `complete_backend`,
`complete_model`, `complete_spec`; `read_any_model` for the benchmarks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tickrt.runtime.model_source import Source

__all__ = [
    "Force",
    "Json",
    "Model",
    "Spec",
    "complete_backend",
    "complete_model",
    "complete_spec",
    "read_any_model",
]


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


def read_any_model(name: str) -> Source:
    """A shipped model, an ONNX file, or a reference model of the benchmarks.

    Raises:
        ModelError: it is none of these; lists the names that there are. Or it is not readable.
    """
    from tickrt.engines.graph.check import loop_model, read_model
    from tickrt.errors import ModelError
    from tickrt.models import find_model, list_models
    from tickrt.models.architectures.zoo import ZOO, make
    from tickrt.runtime.model_source import Source

    if name in ZOO:
        model, path = loop_model(make(name).SerializeToString(), name), Path(name)
    elif Path(name).is_file() or name in list_models():
        path = find_model(name).onnx
        model = read_model(path)
    else:
        raise ModelError(
            f"{name}: no such ONNX file and no model of that name; shipped: "
            f"{', '.join(list_models())}; reference models: {', '.join(ZOO)}"
        )
    return Source(model, path, model.sha256)


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
