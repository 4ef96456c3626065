"""The models that ship with the package, and where a model's files are.

`find_model("seed_lstm")` or `find_model("my.onnx")` gives the paths of an ONNX model, its feature
spec and its model card; `list_models()` the names of the shipped ones. `train.py` made them; run it
with ``python -m tickrt.training.train`` (extra ``[train]``).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from tickrt.errors import ModelError

__all__ = ["ModelFiles", "find_model", "list_models"]


@dataclass(frozen=True)
class ModelFiles:
    """The files of one model.

    Attributes:
        name: the file's name without ``.onnx``.
        onnx: the model.
        spec: its feature spec, or None where none lies beside it (then name one with ``--spec``).
        card: its model card (markdown), or None.
        figures: what the card says, as JSON, or None.
    """

    name: str
    onnx: Path
    spec: Path | None
    card: Path | None
    figures: Path | None


def _folder() -> Path:
    return Path(str(resources.files("tickrt.models")))


def list_models() -> list[str]:
    """Names of the shipped models."""
    return sorted(path.stem for path in _folder().glob("*.onnx"))


def find_model(name_or_path: str | Path) -> ModelFiles:
    """The files of a shipped model (by name) or of a user's (by path).

    Beside ``my.onnx`` these are looked for: ``my.json`` (its `spec` names the feature spec's file,
    without ``.toml``), else ``my.toml`` as the spec; ``my.md`` as the card.

    Raises:
        ModelError: there is no such file and no shipped model of that name.
    """
    path = Path(name_or_path)
    if not path.is_file():
        shipped = _folder() / f"{name_or_path}.onnx"
        if path.suffix == ".onnx" or len(path.parts) != 1 or not shipped.is_file():
            raise ModelError(
                f"{name_or_path}: no such ONNX file, and no shipped model of that name; "
                f"shipped: {', '.join(list_models())}"
            )
        path = shipped
    figures, card, spec = (path.with_suffix(s) for s in (".json", ".md", ".toml"))
    if figures.is_file():
        spec = path.parent / f"{_spec_name(figures)}.toml"
    return ModelFiles(
        name=path.stem,
        onnx=path,
        spec=spec if spec.is_file() else None,
        card=card if card.is_file() else None,
        figures=figures if figures.is_file() else None,
    )


def _spec_name(figures: Path) -> str:
    """The `spec` entry of a model's JSON; the model's own name where it has none."""
    try:
        document = json.loads(figures.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{figures}: not a JSON file: {error}") from error
    name = document.get("spec", figures.stem) if isinstance(document, dict) else figures.stem
    if not isinstance(name, str) or Path(name).name != name:
        raise ModelError(f"{figures}: $.spec: expected the name of a spec, got {name!r}")
    return name
