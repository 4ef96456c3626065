"""A session as a TOML file that says what each setting is, complete and ready to be edited.

Entry point: `to_toml`. `load_config` reads what it writes as the same session.
"""

from __future__ import annotations

import json
import re
import textwrap
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from tickrt.config.session import SessionConfig, StrategySettings, pace_text, policy_kind

__all__ = ["described", "to_toml"]

_WIDTH = 100
# ``name: text``, the text up to the next name or the end of the indented block
_ATTRIBUTE = re.compile(r"^ {8}(\w+): (.*?)(?=^ {8}\w|^ {0,4}\S|\Z)", re.M | re.S)
_HEAD = """\
# A session of tickrt: `tickrt run` and `tickrt backtest` read it.
# Relative paths are relative to this file. A setting that is left out has its default.
"""


def described(kind: type) -> dict[str, str]:
    """What the docstrings of a class and its bases say of its attributes, by name."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        _, _, block = (base.__dict__.get("__doc__") or "").partition("Attributes:\n")
        for name, text in _ATTRIBUTE.findall(block):
            found[name] = " ".join(text.split()).replace("``", "`")
    return found


def to_toml(config: SessionConfig) -> str:
    """The complete effective configuration as TOML; settings without a value are commented out."""
    parts = [_HEAD]
    simple = [n for n in SessionConfig.model_fields if n not in ("gateway", "strategies")]
    texts = described(SessionConfig)
    values = {name: getattr(config, name) for name in simple}
    parts.append(_entries({**values, "pace": pace_text(config.pace)}, texts))
    parts.append(_table("[gateway]", _fields(config.gateway), type(config.gateway)))
    for strategy in config.strategies:
        parts.append(_strategy(strategy))
    return "\n".join(parts)


def _strategy(strategy: StrategySettings) -> str:
    own = ("name", "symbol", "model", "spec", "shadow")
    policy = {"kind": policy_kind(strategy.policy), **_fields(strategy.policy)}
    values = {name: getattr(strategy, name) for name in own}
    return "\n".join(
        (
            _table("[[strategies]]", values, StrategySettings),
            _table("[strategies.policy]", policy, type(strategy.policy)),
            _table("[strategies.fallback]", _fields(strategy.fallback), type(strategy.fallback)),
            _table("[strategies.risk]", _fields(strategy.risk), type(strategy.risk)),
        )
    )


def _fields(settings: Any) -> dict[str, Any]:
    """Name and value of each field, `kind` first."""
    assert is_dataclass(settings)
    names = sorted((f.name for f in fields(settings)), key=lambda name: name != "kind")
    return {name: getattr(settings, name) for name in names}


def _table(head: str, values: dict[str, Any], kind: type) -> str:
    return f"{head}\n{_entries(values, described(kind))}"


def _entries(values: dict[str, Any], texts: dict[str, str]) -> str:
    lines = []
    for name, value in values.items():
        text = texts.get(name)
        if text:
            lines += textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ")
        lines.append(f"# {name} =" if value is None else f"{name} = {_value(value)}")
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    """`value` as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)  # inf and nan are TOML's words too
    if isinstance(value, int):
        return f"{value:_}"
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(_value(item) for item in value)}]"
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)
