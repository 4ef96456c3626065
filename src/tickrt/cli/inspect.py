"""``tickrt inspect`` and ``tickrt verify-on-target``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tickrt.cli import keys, options

__all__ = ["inspect", "verify_on_target"]

_SHOWN_LAYERS = 12


def inspect(
    bundle: Annotated[Path, typer.Argument(help="The bundle.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Check all that can be checked here.")
    ] = False,
    layers: Annotated[bool, typer.Option("--layers", help="Show every layer.")] = False,
    trust: keys.Trust = None,
    key: keys.Key = None,
    allow_unsigned: keys.AllowUnsigned = False,
    as_json: options.Json = False,
) -> None:
    """Show a bundle's manifest: engines, layers, precision, parity. Needs no key.

    With --verify: digest, signature, every payload, compatibility with this machine, and whether
    the engines load (for which somebody must vouch: --trust or --allow-unsigned); exit code 1 when
    a check fails.

    [bold]Examples[/bold]

    \b
      tickrt inspect seed.bundle
      tickrt inspect seed.bundle --verify --trust file:desk.sign.pub --key env:DESK_KEY
    """
    from tickrt.cli.output import print_json
    from tickrt.engines.build.inspect import describe
    from tickrt.engines.build.inspect import verify as verify_bundle

    facts = describe(bundle)
    checks = []
    if verify:
        found = verify_bundle(
            bundle, keys.load_trust(trust), keys.load_encrypt(key), allow_unsigned=allow_unsigned
        )
        checks = [{"what": c.what, "result": c.result, "why": c.why} for c in found]
        facts["checks"] = checks
    if as_json:
        print_json(facts)
    else:
        _show(facts, layers)
        _show_checks(checks)
    if any(check["result"] == "failed" for check in checks):
        raise typer.Exit(1)


def _show(facts: dict[str, Any], layers: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from tickrt.cli.output import print_facts

    manifest = facts["manifest"]
    builder, parity = manifest["builder"], manifest["parity"]
    shown = {
        "digest": facts["digest"][:16],
        "bytes": facts["bytes"],
        "signed_by": (facts["signed_by"] or "nobody")[:16],
        "encrypted": facts["encrypted"],
        "model": {k: v for k, v in manifest["model"].items() if v is not None},
        "builder": {k: v for k, v in builder.items() if v not in (None, [], {})},
        "precision": manifest["precision"],
        "keep": manifest["keep"],
        "parity": {k: v for k, v in parity.items() if v not in (None, "")},
    }
    if manifest["calibration"]:
        calibration = dict(manifest["calibration"])
        calibration["scales"] = len(calibration["scales"])
        shown["calibration"] = calibration
    print_facts(manifest["name"], shown)
    for engine in manifest["engines"]:
        after = engine["layers_after"]
        fused = "" if after is None else f", {after} after fusion"
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 2), header_style="dim")
        title = f"{engine['role']}: {engine['format']}, {engine['layers_before']} layers{fused}"
        for column in (title, ""):
            table.add_column(column)
        for tensor in (*engine["inputs"], *engine["outputs"]):
            shape = " × ".join(str(size) for size in tensor["shape"])
            table.add_row(Text(tensor["name"]), Text(f"{tensor['dtype']} [{shape}]"))
        named = list(engine["precision"].items())
        for layer, kind in named if layers else named[:_SHOWN_LAYERS]:
            table.add_row(Text(f"  {layer}"), kind)
        if not layers and len(named) > _SHOWN_LAYERS:
            table.add_row(f"  … {len(named) - _SHOWN_LAYERS} more (--layers)", "")
        Console(highlight=False).print(table)


def _show_checks(checks: list[dict[str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not checks:
        return
    styles = {"ok": "green", "failed": "bold red"}
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 2), header_style="dim")
    for column in ("check", "result", ""):
        table.add_column(column)
    for check in checks:
        result = Text(check["result"], style=styles.get(check["result"], "yellow"))
        table.add_row(check["what"], result, Text(check["why"]))
    Console(highlight=False).print(table)


def verify_on_target(
    bundle: Annotated[Path, typer.Argument(help="The bundle.")],
    data: Annotated[Path, typer.Option("--data", "-d", help="Event file with rows to compare on.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the bundle with its parity here.")
    ] = None,
    spec: options.Spec = None,
    trust: keys.Trust = None,
    key: keys.Key = None,
    allow_unsigned: keys.AllowUnsigned = False,
    encrypt: keys.Encrypt = None,
    sign: keys.Sign = None,
    as_json: options.Json = False,
) -> None:
    """Run the parity check where the engine runs: built elsewhere, verified on the target.

    Exit code 1 when it fails. With -o the figures go into a new bundle (sign it again; an
    encrypted one stays encrypted, with --key unless --encrypt names another).

    [bold]Examples[/bold]

    \b
      tickrt verify-on-target seed.bundle --data btcusd.npz --allow-unsigned
    """
    from tickrt.cli.output import print_facts, print_json
    from tickrt.cli.rows import find_spec, load_rows
    from tickrt.engines.build.inspect import describe
    from tickrt.engines.build.inspect import verify_on_target as verify
    from tickrt.engines.bundle.format import read_manifest, write_bundle

    signer = keys.load_sign(sign)
    encrypted = describe(bundle)["encrypted"]
    sealed = keys.load_encrypt(encrypt or (key if encrypted else None))
    model = read_manifest(bundle).model
    rows = load_rows(data, find_spec(spec or model.spec, model.feature_hash, str(bundle)))
    parity, manifest, payloads = verify(
        bundle, rows, data.name, keys.load_trust(trust), keys.load_encrypt(key), allow_unsigned
    )
    facts = {k: v for k, v in parity.model_dump(mode="json").items() if v not in (None, "")}
    if out is not None:
        facts["digest"] = write_bundle(out, manifest, payloads, sealed, signer)
    if as_json:
        print_json(facts)
    else:
        print_facts(str(bundle), facts)
    if parity.status == "failed":
        raise typer.Exit(1)
