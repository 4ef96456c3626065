"""``tickrt registry watch``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tickrt.cli import keys
from tickrt.cli.common import Json
from tickrt.cli.registry import Root, open_registry

if TYPE_CHECKING:
    from tickrt.engines.registry.watch import Outcome

__all__ = ["watch"]


def watch(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="The folder where models appear.")],
    root: Root = Path("registry"),
    channel: Annotated[str, typer.Option(help="What a good bundle is promoted to.")] = "canary",
    once: Annotated[
        bool, typer.Option("--once", help="Build what is there now, and stop.")
    ] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between looks.")] = 2.0,
    timeout: Annotated[
        float, typer.Option(min=1.0, help="Seconds that a build may take.")
    ] = 3600.0,
    sign: keys.Sign = None,
    trust: keys.Trust = None,
    key: keys.Key = None,
    allow_unsigned: keys.AllowUnsigned = False,
    as_json: Json = False,
) -> None:
    """Build every new ONNX in a folder, at low priority, and promote it to canary.

    A model that cannot be built goes to the folder's quarantine with its error; nothing else
    stops. What follows -- goes to `tickrt build` as it is. Exit code 1 with --once when a model
    was quarantined.

    [bold]Examples[/bold]

    \b
      tickrt registry watch models/ --sign file:k.sign.key --trust file:k.sign.pub
      tickrt registry watch models/ --once --allow-unsigned -- --precision fp16
    """
    from tickrt.engines.registry.watch import Pipeline
    from tickrt.errors import ConfigError

    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder")
    if not (trust or allow_unsigned):
        raise ConfigError(
            "name the key that the registry trusts with --trust, or take unsigned bundles with "
            "--allow-unsigned: otherwise every good model would be quarantined"
        )
    if trust and not sign and not any(a.startswith("--sign") for a in context.args):
        raise ConfigError("--trust without --sign: the bundles built here would not be signed")
    more = list(context.args)
    if sign:
        more += ["--sign", sign]
    pipeline = Pipeline(
        folder,
        open_registry(root, trust, allow_unsigned, create=True),
        more,
        channel,
        keys.load_encrypt(key),
        timeout,
    )
    if once:
        outcomes = pipeline.run_once(wait=True)
        for outcome in outcomes:
            _say(outcome, as_json)
        if any(outcome.error for outcome in outcomes):
            raise typer.Exit(1)
        return
    pipeline.watch(lambda outcome: _say(outcome, as_json), every_s=every)


def _say(outcome: Outcome, as_json: bool) -> None:
    """One line per model; JSON lines with --json."""
    import json

    facts = {
        "model": str(outcome.model),
        "sha256": outcome.sha256,
        "digest": outcome.digest,
        "error": outcome.error,
        "seconds": round(outcome.seconds, 3),
    }
    if as_json:
        typer.echo(json.dumps(facts, ensure_ascii=False))
    elif outcome.error:
        typer.echo(f"{outcome.model.name}: quarantined: {outcome.error.splitlines()[0]}", err=True)
    else:
        typer.echo(f"{outcome.model.name}: {str(outcome.digest)[:12]} ({outcome.seconds:.1f} s)")
