"""``tickrt config show``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tickrt.cli.common import Json
from tickrt.literals import GatewayKind, PolicyKind

if TYPE_CHECKING:
    from tickrt.config import SessionConfig

__all__ = ["show"]


def show(
    session: Annotated[
        Path | None,
        typer.Argument(metavar="SESSION.toml", help="A session file; default: the defaults."),
    ] = None,
    strategy: Annotated[
        PolicyKind | None,
        typer.Option(help="Show this policy's parameters.", show_default="the session's"),
    ] = None,
    gateway: Annotated[
        GatewayKind | None,
        typer.Option(help="Show this gateway's settings.", show_default="the session's"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the complete effective configuration as TOML, each setting with its meaning and unit.

    What it prints is a session file: redirect it, edit it, run it. A setting that you remove has
    its default again. Paths are printed as seen from where you are, and read as relative to the
    file that holds them.

    [bold]Examples[/bold]

    \b
      tickrt config show > session.toml
      tickrt config show --strategy maker --gateway hftbacktest > maker.toml
      tickrt config show session.toml
    """
    from tickrt.cli.output import emit
    from tickrt.config import SessionConfig, load_config, to_toml

    config = load_config(session) if session else SessionConfig(data=(Path("events.npz"),))
    config = _changed(config, strategy, gateway)
    emit(
        config.model_dump(mode="json"), as_json, show=lambda: typer.echo(to_toml(config), nl=False)
    )


def _changed(
    config: SessionConfig, strategy: PolicyKind | None, gateway: GatewayKind | None
) -> SessionConfig:
    """The session with every policy and the gateway of the kinds named; those that are, stay."""
    from tickrt.config import GATEWAYS, POLICIES

    update: dict[str, object] = {}
    if gateway is not None and not isinstance(config.gateway, GATEWAYS[gateway]):
        update["gateway"] = GATEWAYS[gateway]()
    if strategy is not None:
        kind = POLICIES[strategy]
        update["strategies"] = tuple(
            s if isinstance(s.policy, kind) else s.model_copy(update={"policy": kind()})
            for s in config.strategies
        )
    return config.model_copy(update=update)
