"""The options that several commands share, and the `SessionConfig` made from them.

Entry points: `SessionOptions` (a group, see `groups`), `session_config`, `assignments`.

An option of the group that is not given is None: then the session file's value counts, else the
default of `SessionConfig`, which has all of them. The defaults that ``--help`` shows are tested
against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tickrt.cli import keys
from tickrt.cli.common import Force, Model, Spec, complete_backend
from tickrt.cli.errors import validated
from tickrt.errors import ConfigError
from tickrt.literals import Weights

if TYPE_CHECKING:
    from tickrt.config import SessionConfig, StrategySettings
    from tickrt.strategy.params import MakerParams, TakerParams

__all__ = ["SessionOptions", "assignments", "session_config"]

_WHAT, _TRADE, _ENGINE = "What to run", "How to trade", "How to run it"
_ENGINE_SETTINGS = (
    *("backend", "engine_python", "allow_time_slicing", "max_batch", "weights"),
    *("threads", "split", "stateful"),
)


@dataclass(frozen=True)
class SessionOptions:
    """What `run` and `backtest` have in common; None (or an empty list): not given."""

    session: Annotated[
        Path | None,
        typer.Argument(
            metavar="SESSION.toml",
            help="A session file (see: tickrt config show); options given beside it win.",
            show_default=False,
        ),
    ] = None
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--data", "-d", help="Event file (.npz); once per symbol.", rich_help_panel=_WHAT
        ),
    ] = None
    model: Model = None
    spec: Spec = None
    symbol: Annotated[
        list[str] | None,
        typer.Option(
            "--symbol",
            help="Trade this symbol of the data; repeat for several; default: all of them. "
            "It also names the contract of a file that does not (hftbacktest's own).",
            rich_help_panel=_TRADE,
        ),
    ] = None
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy",
            metavar="taker|maker",
            help="Policy; repeat to run several side by side on each symbol.",
            show_default="taker",
            rich_help_panel=_TRADE,
        ),
    ] = None
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            "-p",
            metavar="NAME=VALUE",
            help="A policy's parameter, e.g. enter_threshold=0.4; repeat.",
            rich_help_panel=_TRADE,
        ),
    ] = None
    risk: Annotated[
        list[str] | None,
        typer.Option(
            "--risk",
            "-r",
            metavar="NAME=VALUE",
            help="A risk limit, e.g. max_position_lots=5; repeat.",
            rich_help_panel=_TRADE,
        ),
    ] = None
    backend: Annotated[
        str | None,
        typer.Option(
            help="What runs the model: native, onnxruntime, resident, tensorrt, onnxruntime-cuda, "
            "null, reference, or one that was added.",
            show_default="native",
            autocompletion=complete_backend,
            rich_help_panel=_ENGINE,
        ),
    ] = None
    engine_python: Annotated[
        str | None,
        typer.Option(
            metavar="PYTHON",
            help="The interpreter that has what the engine needs, for backends that run it in a "
            "process of its own; default: this one.",
            show_default=False,
            rich_help_panel=_ENGINE,
        ),
    ] = None
    allow_time_slicing: Annotated[
        bool | None,
        typer.Option(
            "--allow-time-slicing/--no-time-slicing",
            help="Several engines on one GPU may take turns where there is no MPS: a tick may then "
            "wait 2.4 ms for its own.",
            show_default="--no-time-slicing",
            rich_help_panel=_ENGINE,
        ),
    ] = None
    max_batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=128,
            help="One model on many symbols: an engine host takes what is ready of them at once, "
            "up to so many rows. reference does so unasked (1: a host for each symbol), "
            "onnxruntime where more than 1 is given; the others do not.",
            show_default=False,
            rich_help_panel=_ENGINE,
        ),
    ] = None
    weights: Annotated[
        Weights | None,
        typer.Option(
            help="How native keeps large weight matrices: exact, or smaller and sooner.",
            show_default="fp32",
            rich_help_panel=_ENGINE,
        ),
    ] = None
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=256,
            help="Threads of the engine.",
            show_default="1",
            rich_help_panel=_ENGINE,
        ),
    ] = None
    split: Annotated[
        bool | None,
        typer.Option(
            "--split/--no-split",
            help="Run only what depends on the newest row on the path (where that is exact), "
            "or the whole window.",
            show_default="split",
            rich_help_panel=_ENGINE,
        ),
    ] = None
    stateful: Annotated[
        bool | None,
        typer.Option(
            "--stateful/--stateless",
            help="The model was trained with carried state: states come from the last step.",
            show_default="stateless",
            rich_help_panel=_ENGINE,
        ),
    ] = None
    trust: keys.Trust = None
    key: keys.Key = None
    allow_unsigned: keys.AllowUnsignedOrNot = None
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder for report.json and report.html; default: a new one, out/COMMAND-TIME, "
            "with the link out/latest.",
            show_default=False,
        ),
    ] = None
    force: Force = False

    def changes(self) -> dict[str, Any]:
        """The fields of `SessionConfig` that were given, but for the strategies'."""
        given = {
            "data": tuple(self.data or ()),
            "trust": tuple(self.trust or ()),
            **{name: getattr(self, name) for name in _ENGINE_SETTINGS},
            "bundle_key": self.key,
            "allow_unsigned": self.allow_unsigned,
            "out": self.out,
        }
        return {name: value for name, value in given.items() if value not in (None, ())}


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


def _symbols(data: Sequence[Path]) -> list[str | None]:
    """The symbols to trade where none is named: one per file."""
    return [None] if len(data) == 1 else [_symbol_of(path) for path in data]


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


def _strategies(
    options: SessionOptions, written: Sequence[StrategySettings] | None, data: Sequence[Path]
) -> list[StrategySettings]:
    """The strategies of the session file, or one per policy and symbol as the options name them.

    A strategy that the options make has everything else from the file's first one of its symbol.
    """
    from tickrt.config import POLICIES, StrategySettings

    if written and not (options.symbol or options.strategy):
        return list(written)
    symbols: list[str | None] = list(options.symbol or ())
    if not symbols:
        symbols = list(dict.fromkeys(s.symbol for s in written)) if written else _symbols(data)
    made = []
    for symbol in symbols:
        same = [s for s in written or () if s.symbol == symbol]
        base = (same or [*(written or ()), StrategySettings()])[0]
        for kind in options.strategy or ["taker"]:
            if kind not in POLICIES:
                raise ConfigError(f"--strategy: expected {' or '.join(POLICIES)}, got {kind!r}")
            fits = isinstance(base.policy, POLICIES[kind])
            made.append(
                base.model_copy(
                    update={
                        "name": kind if len(symbols) == 1 else f"{kind} {symbol}",
                        "symbol": symbol,
                        "policy": base.policy if fits else POLICIES[kind](),
                    }
                )
            )
    return made


def _adjusted(
    options: SessionOptions, strategies: Sequence[StrategySettings]
) -> tuple[StrategySettings, ...]:
    """The strategies with --model, --spec, --param and --risk; a parameter goes to every policy
    that has it.

    Raises:
        ConfigError: no policy has such a parameter, or its value is refused.
    """
    from tickrt.risk.limits import RiskLimits

    def names(policy: TakerParams | MakerParams) -> list[str]:
        return [field.name for field in fields(policy)]

    known = sorted({name for strategy in strategies for name in names(strategy.policy)})
    params = assignments(options.param, "--param", known)
    limits = assignments(
        options.risk, "--risk", [f.name for f in fields(RiskLimits) if f.name != "symbols"]
    )
    named = {"model": options.model, "spec": options.spec}
    named = {name: value for name, value in named.items() if value is not None}
    return tuple(
        strategy.model_copy(
            update={
                **named,
                "policy": replace(
                    strategy.policy,
                    **{n: v for n, v in params.items() if n in names(strategy.policy)},
                ),
                "risk": replace(strategy.risk, **limits),
            }
        )
        for strategy in strategies
    )


def session_config(options: SessionOptions, **more: Any) -> SessionConfig:
    """The session file, if one is named, with the options that were given.

    Args:
        more: further fields of `SessionConfig`, from the command's own options; None: not given.

    Raises:
        ConfigError: something does not fit; the message names the option, or the file and the path
            in it.
    """
    from tickrt.config import SessionConfig, load_config

    base = load_config(options.session) if options.session else None
    changes = {**options.changes(), **{k: v for k, v in more.items() if v is not None}}
    data = changes.get("data") or (base.data if base else ())
    if not data:
        raise ConfigError("name a session file or, by --data, the event files to play")
    written = base.strategies if base else None
    strategies = _adjusted(options, _strategies(options, written, data))
    kept = {name: getattr(base, name) for name in base.model_fields_set} if base else {}
    with validated():
        return SessionConfig(**{**kept, **changes, "strategies": strategies})
