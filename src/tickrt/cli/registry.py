"""``tickrt registry add | list | promote | rollback | history | gc`` (`watch` is beside it)."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tickrt.cli import keys
from tickrt.cli.common import Json

if TYPE_CHECKING:
    from tickrt.engines.registry.registry import Registry

__all__ = ["Root", "add", "gc", "history", "list_", "open_registry", "promote", "rollback"]

Root = Annotated[
    Path,
    typer.Option("--registry", envvar="TICKRT_REGISTRY", help="The registry's folder."),
]
Note = Annotated[str, typer.Option("--note", help="Why, for the audit log.")]
_DEFAULT = Path("registry")
_FIXED = ("", "bundle", "hash")  # columns that are never wrapped


def open_registry(
    root: Path, trust: list[str] | None, allow_unsigned: bool, create: bool = False
) -> Registry:
    """The registry at `root`. Raises RegistryError where there is none."""
    from tickrt.engines.registry.registry import Registry

    return Registry(root, keys.load_trust(trust), allow_unsigned, create)


def _time(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S")


def add(
    bundle: Annotated[Path, typer.Argument(help="The bundle.")],
    root: Root = _DEFAULT,
    note: Note = "",
    trust: keys.Trust = None,
    allow_unsigned: keys.AllowUnsigned = False,
    as_json: Json = False,
) -> None:
    """Verify a bundle and take it in under its digest; makes the registry if need be.

    [bold]Examples[/bold]

    \b
      tickrt registry add seed.bundle --trust file:desk.sign.pub
    """
    from tickrt.cli.output import emit

    digest = open_registry(root, trust, allow_unsigned, create=True).add(bundle, note)
    emit({"digest": digest}, as_json, title=str(root))


def list_(root: Root = _DEFAULT, as_json: Json = False) -> None:
    """List bundles, newest first, and the channels that point at them.

    [bold]Examples[/bold]

    \b
      tickrt registry list
      tickrt registry list --registry /srv/registry --json
    """
    from tickrt.cli.output import emit, print_table

    items = open_registry(root, None, True).items()
    rows = [
        {
            "digest": item.digest,
            "name": item.manifest.name,
            "channels": list(item.channels),
            "precision": item.manifest.precision,
            "backend": item.manifest.builder.library,
            "gpu_arch": list(item.manifest.builder.gpu_arch),
            "parity": item.manifest.parity.status,
            "added_ns": item.added_ns,
        }
        for item in items
    ]
    columns = ("bundle", "name", "channels", "precision", "built for", "parity", "added (UTC)")
    shown = [
        (
            str(row["digest"])[:12],
            str(row["name"]),
            ", ".join(item.channels) or "–",
            str(row["precision"]),
            " ".join((item.manifest.builder.library, *item.manifest.builder.gpu_arch)),
            str(row["parity"]),
            _time(item.added_ns),
        )
        for row, item in zip(rows, items, strict=True)
    ]
    emit(rows, as_json, show=lambda: print_table(columns, shown, fixed=_FIXED))


def promote(
    reference: Annotated[
        str, typer.Argument(help="A digest (8 digits or more), or a channel such as canary.")
    ],
    channel: Annotated[str, typer.Argument(help="prod, canary, or a name of yours.")],
    root: Root = _DEFAULT,
    note: Note = "",
    force: Annotated[
        bool, typer.Option("--force", help="Although its parity check failed.")
    ] = False,
    trust: keys.Trust = None,
    allow_unsigned: keys.AllowUnsigned = False,
    as_json: Json = False,
) -> None:
    """Point a channel at a bundle.

    [bold]Examples[/bold]

    \b
      tickrt registry promote canary prod --trust file:desk.sign.pub --note "a week without fault"
    """
    from tickrt.cli.output import emit

    registry = open_registry(root, trust, allow_unsigned)
    digest = registry.promote(reference, channel, note, force)
    emit({"channel": channel, "digest": digest}, as_json, title=str(root))


def rollback(
    channel: Annotated[str, typer.Argument(help="The channel.")],
    root: Root = _DEFAULT,
    note: Note = "",
    trust: keys.Trust = None,
    allow_unsigned: keys.AllowUnsigned = False,
    as_json: Json = False,
) -> None:
    """Point a channel at what it pointed at before; repeat to go further back.

    [bold]Examples[/bold]

    \b
      tickrt registry rollback prod --trust file:desk.sign.pub
    """
    from tickrt.cli.output import emit

    digest = open_registry(root, trust, allow_unsigned).rollback(channel, note)
    emit({"channel": channel, "digest": digest}, as_json, title=str(root))


def history(
    channel: Annotated[str | None, typer.Argument(help="Only of this channel.")] = None,
    root: Root = _DEFAULT,
    as_json: Json = False,
) -> None:
    """The audit log, its hash chain verified. Keep the last hash elsewhere.

    [bold]Examples[/bold]

    \b
      tickrt registry history
      tickrt registry history prod --json
    """
    from dataclasses import asdict

    from tickrt.cli.output import emit, print_table

    records = open_registry(root, None, True).history(channel)
    rows = [
        (
            str(record.sequence),
            _time(record.time_ns),
            record.actor,
            record.operation,
            record.channel or "–",
            " ".join(digest[:12] for digest in record.digests),
            record.note,
            record.hash[:12],
        )
        for record in records
    ]
    columns = ("", "time (UTC)", "who", "what", "channel", "bundle", "why", "hash")
    facts = [asdict(record) for record in records]
    emit(facts, as_json, show=lambda: print_table(columns, rows, fixed=_FIXED))


def gc(
    root: Root = _DEFAULT,
    keep: Annotated[int, typer.Option(min=0, help="Promotions that each channel can go back.")] = 3,
    grace_hours: Annotated[
        float, typer.Option(min=0.0, help="Younger bundles stay, promoted or not.")
    ] = 24.0,
    note: Note = "",
    as_json: Json = False,
) -> None:
    """Drop bundles that no channel needs, and what a crash left over.

    [bold]Examples[/bold]

    \b
      tickrt registry gc --keep 3 --grace-hours 24
    """
    from tickrt.cli.output import emit

    dropped = open_registry(root, None, True).gc(keep, grace_hours * 3600.0, note)
    emit({"dropped": dropped}, as_json, title=str(root))
