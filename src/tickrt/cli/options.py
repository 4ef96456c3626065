"""The options that several commands share, and the `SessionConfig` made from them.

Entry points: the annotated types (``Data``, ``Model``, …), `build_config`, `assignments`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tickrt.cli.errors import validated
from tickrt.errors import ConfigError

if TYPE_CHECKING:
    from tickrt.config import SessionConfig

__all__ = [
    "Backend",
    "BackendOption",
    "Data",
    "Json",
    "Limits",
    "Model",
    "Out",
    "Params",
    "Policy",
    "PolicyOption",
    "Spec",
    "Symbols",
    "Threads",
    "assignments",
    "build_config",
]


class Policy(StrEnum):
    """The policies that ship."""

    TAKER = "taker"
    MAKER = "maker"


class Backend(StrEnum):
    """What can run a model."""

    ONNXRUNTIME = "onnxruntime"
    NULL = "null"


_WHAT, _TRADE, _ENGINE = "What to run", "How to trade", "How to run it"

Data = Annotated[
    list[Path],
    typer.Option("--data", "-d", help="Event file (.npz); once per symbol.", rich_help_panel=_WHAT),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="A shipped model (see: tickrt models), an ONNX file, or a bundle.",
        rich_help_panel=_WHAT,
    ),
]
Spec = Annotated[
    str | None,
    typer.Option(
        "--spec",
        "-s",
        help="A shipped feature spec or a TOML file; default: the model's own.",
        rich_help_panel=_WHAT,
    ),
]
Symbols = Annotated[
    list[str] | None,
    typer.Option(
        "--symbol",
        help="Trade this symbol of the data; repeat for several; default: all of them. "
        "It also names the contract of a file that does not (hftbacktest's own).",
        rich_help_panel=_TRADE,
    ),
]
PolicyOption = Annotated[
    list[Policy],
    typer.Option(
        "--strategy",
        help="Policy; repeat to run several side by side on each symbol.",
        rich_help_panel=_TRADE,
    ),
]
Params = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        "-p",
        metavar="NAME=VALUE",
        help="A policy's parameter, e.g. enter_threshold=0.4; repeat.",
        rich_help_panel=_TRADE,
    ),
]
Limits = Annotated[
    list[str] | None,
    typer.Option(
        "--risk",
        "-r",
        metavar="NAME=VALUE",
        help="A risk limit, e.g. max_position_lots=5; repeat.",
        rich_help_panel=_TRADE,
    ),
]
BackendOption = Annotated[
    Backend,
    typer.Option("--backend", help="What runs the model.", rich_help_panel=_ENGINE),
]
Threads = Annotated[
    int,
    typer.Option(
        "--threads", min=1, max=256, help="Threads of the engine.", rich_help_panel=_ENGINE
    ),
]
Split = Annotated[
    bool,
    typer.Option(
        "--split/--no-split",
        help="Run only what depends on the newest row on the path (where that is exact), "
        "or the whole window.",
        rich_help_panel=_ENGINE,
    ),
]
Stateful = Annotated[
    bool,
    typer.Option(
        "--stateful",
        help="The model was trained with carried state: states come from the last step.",
        rich_help_panel=_ENGINE,
    ),
]
Out = Annotated[
    Path,
    typer.Option("--out", "-o", help="Folder for report.json and report.html."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and no progress.")]


def _value(text: str) -> float | int:
    try:
        return int(text)
    except ValueError:
        return float(text)


def assignments(texts: Sequence[str] | None, option: str, known: Sequence[str]) -> dict[str, Any]:
    """``["a=1", "b=0.5"]`` as a dict of numbers.

    Raises:
        ConfigError: no ``=``, not a number, or a name that is not in `known`.
    """
    found: dict[str, Any] = {}
    for text in texts or ():
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            raise ConfigError(f"{option} {text!r}: expected NAME=VALUE")
        if name not in known:
            raise ConfigError(f"{option} {name}: unknown; there are {', '.join(known)}")
        try:
            found[name] = _value(value)
        except ValueError:
            raise ConfigError(f"{option} {name}: expected a number, got {value!r}") from None
    return found


def _symbols(data: Sequence[Path], wanted: Sequence[str] | None) -> list[str | None]:
    """The symbols to trade: those named, else one per file."""
    if wanted:
        return list(wanted)
    if len(data) == 1:
        return [None]
    return [_symbol_of(path) for path in data]


def _symbol_of(path: Path) -> str | None:
    """The symbol that an event file's meta names, without reading its events where possible."""
    import json

    import numpy as np

    from tickrt.market.event_file import load_events

    try:
        with np.load(path, allow_pickle=False) as file:
            return str(json.loads(file["meta"].tobytes())["instrument"]["symbol"])
    except (OSError, ValueError, KeyError, TypeError):
        instrument = load_events(path).instrument  # says what is wrong with the file
        return instrument.symbol if instrument else None


def build_config(
    *,
    data: Sequence[Path],
    model: str,
    spec: str | None,
    symbols: Sequence[str] | None,
    policies: Sequence[Policy],
    params: Sequence[str] | None,
    limits: Sequence[str] | None,
    backend: Backend,
    threads: int,
    **more: Any,
) -> SessionConfig:
    """A session's configuration: one strategy per policy and symbol.

    Args:
        params, limits: ``NAME=VALUE`` of the policies' and the risk limits' fields; a parameter
            goes to every policy that has it.
        more: further fields of `SessionConfig`.

    Raises:
        ConfigError: something does not fit; the message names the option.
    """
    from tickrt.config import SessionConfig, StrategySettings
    from tickrt.risk.limits import RiskLimits
    from tickrt.strategy.params import MakerParams, TakerParams

    kinds: dict[Policy, type[TakerParams] | type[MakerParams]] = {
        Policy.TAKER: TakerParams,
        Policy.MAKER: MakerParams,
    }
    names = {policy: [f.name for f in fields(kinds[policy])] for policy in policies}
    known = sorted({name for own in names.values() for name in own})
    given = assignments(params, "--param", known)
    limit_names = [f.name for f in fields(RiskLimits) if f.name != "symbols"]
    risk = RiskLimits(**assignments(limits, "--risk", limit_names))
    wanted = _symbols(data, symbols)
    with validated():
        strategies = tuple(
            StrategySettings(
                name=policy.value if len(wanted) == 1 else f"{policy.value} {symbol}",
                symbol=symbol,
                model=model,
                spec=spec,
                policy=kinds[policy](**{n: v for n, v in given.items() if n in names[policy]}),
                risk=risk,
            )
            for symbol in wanted
            for policy in policies
        )
        return SessionConfig(
            data=tuple(data),
            strategies=strategies,
            backend=backend.value,
            threads=threads,
            **more,
        )
