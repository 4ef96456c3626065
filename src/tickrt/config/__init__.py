"""What a session is made of: one system for the command line, Python and a ``session.toml``.

Entry points: `SessionConfig` (made in Python, or by `load_config` from a file), `to_toml`.

    config = load_config("session.toml")
    config = SessionConfig(data=("btc.npz",), backend="null")

Everything is plain data: names and paths, no open files, nothing compiled. What the file says is
checked as strictly as what Python says; errors name the file and the path in it.
"""

from __future__ import annotations

from tickrt.config.checks import problems
from tickrt.config.load import load_config
from tickrt.config.session import (
    GATEWAYS,
    POLICIES,
    HftbacktestSettings,
    NullSettings,
    PaperSettings,
    SessionConfig,
    StrategySettings,
    pace_text,
    parse_pace,
)
from tickrt.config.show import to_toml

__all__ = [
    "GATEWAYS",
    "POLICIES",
    "HftbacktestSettings",
    "NullSettings",
    "PaperSettings",
    "SessionConfig",
    "StrategySettings",
    "load_config",
    "pace_text",
    "parse_pace",
    "problems",
    "to_toml",
]
