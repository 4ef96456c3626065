"""``tickrt bundle inspect | verify | diff``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tickrt.cli import keys
from tickrt.cli.common import Force, Json, Spec
from tickrt.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["diff", "inspect", "verify"]

_SHOWN_LAYERS = 12
_PARITY = "Parity"


def inspect(
    bundle: Annotated[Path, typer.Argument(help="The bundle.")],
    layers: Annotated[bool, typer.Option("--layers", help="Show every layer.")] = False,
    as_json: Json = False,
) -> None:
    """Show a bundle's manifest: engines, layers, precision, parity. Needs no key.

    Nothing of it is verified; for that see: tickrt bundle verify

    [bold]Examples[/bold]

    \b
      tickrt bundle inspect seed.bundle
      tickrt bundle inspect seed.bundle --layers
    """
    from tickrt.cli.output import emit
    from tickrt.engines.build.inspect import describe

    facts = describe(bundle)
    emit(facts, as_json, show=lambda: _show(facts, layers))


def _show(facts: dict[str, Any], layers: bool) -> None:
    from tickrt.cli.output import print_facts, print_table

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
        title = f"{engine['role']}: {engine['format']}, {engine['layers_before']} layers{fused}"
        rows = []
        for tensor in (*engine["inputs"], *engine["outputs"]):
            shape = " × ".join(str(size) for size in tensor["shape"])
            rows.append((tensor["name"], f"{tensor['dtype']} [{shape}]"))
        named = list(engine["precision"].items())
        rows += [(f"  {layer}", kind) for layer, kind in named[: None if layers else _SHOWN_LAYERS]]
        if not layers and len(named) > _SHOWN_LAYERS:
            rows.append((f"  … {len(named) - _SHOWN_LAYERS} more (--layers)", ""))
        print_table((title, ""), rows, indent=2)


def verify(
    bundle: Annotated[Path, typer.Argument(help="The bundle.")],
    parity: Annotated[
        bool,
        typer.Option(
            "--parity",
            help="Run the parity check too, on rows of --data: built elsewhere, verified where it "
            "runs.",
            rich_help_panel=_PARITY,
        ),
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            "-d",
            help="Event file with rows to compare on.",
            rich_help_panel=_PARITY,
        ),
    ] = None,
    spec: Spec = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Write the bundle with its parity here.",
            rich_help_panel=_PARITY,
        ),
    ] = None,
    force: Force = False,
    trust: keys.Trust = None,
    key: keys.Key = None,
    allow_unsigned: keys.AllowUnsigned = False,
    engine_python: Annotated[
        str | None,
        typer.Option(
            metavar="PYTHON",
            help="The interpreter that has the engines' library; default: this one.",
            show_default=False,
        ),
    ] = None,
    encrypt: keys.Encrypt = None,
    sign: keys.Sign = None,
    as_json: Json = False,
) -> None:
    """Check all that can be checked here: digest, signature, payloads, compatibility, loading.

    Somebody must vouch for the engines to be loaded: --trust or --allow-unsigned. With --parity
    the engine is compared with the original model on this machine; with -o the figures go into a
    new bundle (sign it again; an encrypted one stays encrypted, with --key unless --encrypt names
    another). Exit code 1 when a check fails.

    [bold]Examples[/bold]

    \b
      tickrt bundle verify seed.bundle --trust file:desk.sign.pub --key env:DESK_KEY
      tickrt bundle verify seed.bundle --parity --data btc.npz --trust file:desk.sign.pub
      tickrt bundle verify seed.bundle --parity --data btc.npz --allow-unsigned -o here.bundle
    """
    from tickrt.cli.output import check_free, emit

    if parity != (data is not None):
        raise ConfigError("--parity needs --data, and --data is for --parity: give both or none")
    if not parity and (out is not None or spec is not None or encrypt is not None):
        raise ConfigError("--out, --spec and --encrypt are for --parity: add it, or drop them")
    if out is not None:
        check_free(out, force)
    named = _Keys(trust, key, allow_unsigned, encrypt, sign)
    python = engine_python or ""
    checks = _checks(bundle, named, python)
    facts: dict[str, Any] = {"path": str(bundle), "checks": checks}
    failed = any(check["result"] == "failed" for check in checks)
    if data is not None and not failed:
        rows = _rows(bundle, data, spec)
        facts["parity"] = _parity(bundle, rows, data.name, out, named, python)
        failed = facts["parity"]["status"] == "failed"
    emit(facts, as_json, show=lambda: _show_checks(facts))
    if failed:
        raise typer.Exit(1)


@dataclass(frozen=True)
class _Keys:
    """Where the keys are, as the options name them."""

    trust: list[str] | None
    key: str | None
    allow_unsigned: bool
    encrypt: str | None
    sign: str | None


def _checks(bundle: Path, named: _Keys, python: str) -> list[dict[str, str]]:
    from tickrt.engines.build.inspect import verify as verify_bundle

    found = verify_bundle(
        bundle,
        keys.load_trust(named.trust),
        keys.load_encrypt(named.key),
        allow_unsigned=named.allow_unsigned,
        python=python,
    )
    return [{"what": c.what, "result": c.result, "why": c.why} for c in found]


def _rows(bundle: Path, data: Path, spec: str | None) -> npt.NDArray[np.float32]:
    from tickrt.cli.rows import find_spec, load_rows
    from tickrt.engines.bundle.format import read_manifest

    model = read_manifest(bundle).model
    return load_rows(data, find_spec(spec or model.spec, model.feature_hash, str(bundle)))


def _parity(
    bundle: Path,
    rows: npt.NDArray[np.float32],
    said: str,
    out: Path | None,
    named: _Keys,
    python: str,
) -> dict[str, Any]:
    """Compare with the original on `rows`; write the bundle with the figures to `out`."""
    from tickrt.engines.build.inspect import describe, verify_on_target
    from tickrt.engines.bundle.format import write_bundle

    signer = keys.load_sign(named.sign)
    encrypted = describe(bundle)["encrypted"]
    sealed = keys.load_encrypt(named.encrypt or (named.key if encrypted else None))
    trusted, key = keys.load_trust(named.trust), keys.load_encrypt(named.key)
    parity, manifest, payloads = verify_on_target(
        bundle, rows, said, trusted, key, named.allow_unsigned, python
    )
    facts = {k: v for k, v in parity.model_dump(mode="json").items() if v not in (None, "")}
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        facts["digest"] = write_bundle(out, manifest, payloads, sealed, signer)
        facts["written"] = str(out)
    return facts


def _show_checks(facts: dict[str, Any]) -> None:
    from rich.text import Text

    from tickrt.cli.output import print_facts, print_table

    styles = {"ok": "green", "failed": "bold red"}
    rows = [
        (check["what"], Text(check["result"], styles.get(check["result"], "yellow")), check["why"])
        for check in facts["checks"]
    ]
    print_table(("check", "result", ""), rows)
    if "parity" in facts:
        print_facts("\nparity", facts["parity"])


def diff(
    a: Annotated[Path, typer.Argument(help="A bundle.")],
    b: Annotated[Path, typer.Argument(help="Another one.")],
    as_json: Json = False,
) -> None:
    """What differs between two bundles, field by field. Exit code 1 when anything does.

    [bold]Examples[/bold]

    \b
      tickrt bundle diff yesterday.bundle today.bundle
    """
    from tickrt.cli.output import emit, print_table
    from tickrt.engines.build.inspect import diff as differences

    found = differences(a, b)
    fields = [{"field": field, "a": left, "b": right} for field, left, right in found]

    def show() -> None:
        if not found:
            typer.echo("no difference")
            return
        rows = [(f, *("–" if v is None else str(v) for v in values)) for f, *values in found]
        print_table(("field", a.name, b.name), rows)

    emit(fields, as_json, show=show)
    if found:
        raise typer.Exit(1)
