"""A session from a TOML file.

Entry point: `load_config(path)`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tickrt.config.checks import problems
from tickrt.config.session import SessionConfig
from tickrt.errors import ConfigError
from tickrt.files import read_toml

__all__ = ["load_config"]


def load_config(path: str | Path) -> SessionConfig:
    """Read a session. Relative paths in the file are relative to the file.

        config = tr.load_config("session.toml")

    A file with ``data = ["btc.npz"]`` alone is a whole session: every other setting has a default.
    ``tickrt config show`` prints them all.

    Raises:
        ConfigError: it cannot be read, is not TOML, or a setting is wrong; the message names the
            file and the path in it: ``session.toml: $.threads: expected at least 1, got 0``.
    """
    path = Path(path)
    document = read_toml(path, ConfigError)
    _anchor(document, path.parent)
    try:
        return SessionConfig.model_validate(document)
    except ValidationError as error:
        raise ConfigError("; ".join(f"{path}: $.{text}" for text in problems(error))) from None


def _anchor(document: dict[str, Any], folder: Path) -> None:
    """Make relative paths relative to `folder`. What is of the wrong type is left to the checks."""
    data = document.get("data")
    if isinstance(data, list):
        document["data"] = [_path(item, folder) for item in data]
    for table, keys in (
        (document, ("data", "out")),
        (document.get("gateway"), ("latency_file", "inference_latency_report")),
    ):
        for key in keys:
            if isinstance(table, dict) and key in table and not isinstance(table[key], list):
                table[key] = _path(table[key], folder)
    trust = document.get("trust")
    if isinstance(trust, list):
        document["trust"] = [_key(item, folder) for item in trust]
    if "bundle_key" in document:
        document["bundle_key"] = _key(document["bundle_key"], folder)
    strategies = document.get("strategies")
    for strategy in strategies if isinstance(strategies, list) else ():
        for key in ("model", "spec"):
            if isinstance(strategy, dict) and _is_file(strategy.get(key), folder):
                strategy[key] = _path(strategy[key], folder)


def _path(value: Any, folder: Path) -> Any:
    return str(folder / Path(value).expanduser()) if isinstance(value, str) else value


def _key(value: Any, folder: Path) -> Any:
    """A key's name: only ``file:`` has a path."""
    if isinstance(value, str) and value.startswith("file:"):
        return f"file:{_path(value.removeprefix('file:'), folder)}"
    return value


def _is_file(value: Any, folder: Path) -> bool:
    """Whether a model or spec is a path and not the name of a shipped one."""
    if not isinstance(value, str):
        return False
    path = Path(value)
    return len(path.parts) > 1 or path.suffix != "" or (folder / path).is_file()
