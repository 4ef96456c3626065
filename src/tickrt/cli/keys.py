"""``tickrt keys``, and the options by which every command names keys.

Entry points: `new`, the annotated options, `Keys`. A key is named, never given: ``file:PATH``,
``env:NAME`` or ``command:PROGRAM ARGS``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tickrt.cli.common import Json

if TYPE_CHECKING:
    from tickrt.engines.bundle.crypto import AesKey, PublicKey, SigningKey

__all__ = [
    "AllowUnsigned",
    "AllowUnsignedOrNot",
    "Encrypt",
    "Key",
    "Sign",
    "Trust",
    "load_encrypt",
    "load_sign",
    "load_trust",
    "new",
]

_KEYS = "Keys (named, never given: file:PATH, env:NAME or command:PROGRAM ARGS)"

Trust = Annotated[
    list[str] | None,
    typer.Option(
        "--trust",
        envvar="TICKRT_TRUST",
        help="A public key whose signature is good; repeat for several.",
        rich_help_panel=_KEYS,
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        envvar="TICKRT_KEY",
        help="The AES key of encrypted bundles.",
        rich_help_panel=_KEYS,
    ),
]
Encrypt = Annotated[
    str | None,
    typer.Option(
        "--encrypt", help="Encrypt the payloads with this AES key.", rich_help_panel=_KEYS
    ),
]
Sign = Annotated[
    str | None,
    typer.Option(
        "--sign",
        envvar="TICKRT_SIGN",
        help="Sign the bundle with this private key.",
        rich_help_panel=_KEYS,
    ),
]
AllowUnsigned = Annotated[
    bool,
    typer.Option(
        "--allow-unsigned",
        help="Take bundles whose signature nobody verified (when no key is trusted).",
        rich_help_panel=_KEYS,
    ),
]
AllowUnsignedOrNot = Annotated[
    bool | None,
    typer.Option(
        "--allow-unsigned/--signed-only",
        help="Take bundles whose signature nobody verified (when no key is trusted).",
        show_default="signed-only",
        rich_help_panel=_KEYS,
    ),
]


def load_trust(sources: list[str] | None) -> list[PublicKey]:
    """The trusted public keys. Raises ConfigError."""
    from tickrt.engines.bundle.crypto import load_public_key

    return [load_public_key(source) for source in sources or ()]


def load_encrypt(source: str | None) -> AesKey | None:
    """The AES key, if one is named. Raises ConfigError."""
    from tickrt.engines.bundle.crypto import load_aes_key

    return load_aes_key(source) if source else None


def load_sign(source: str | None) -> SigningKey | None:
    """The private key, if one is named. Raises ConfigError."""
    from tickrt.engines.bundle.crypto import load_private_key

    return load_private_key(source) if source else None


def new(
    folder: Annotated[Path, typer.Argument(help="Where the key files go.")] = Path("keys"),
    name: Annotated[str, typer.Option(help="The files' first name.")] = "tickrt",
    as_json: Json = False,
) -> None:
    """Make keys: NAME.aes.key (encryption), NAME.sign.key (signing) and NAME.sign.pub (trust).

    The first two are secrets, readable by you only. Give the .pub to every machine that runs
    bundles. Nothing is ever overwritten.

    [bold]Examples[/bold]

    \b
      tickrt keys new ~/keys --name desk1
      tickrt build m.onnx -o m.bundle --sign file:~/keys/desk1.sign.key
    """
    from tickrt.cli.output import emit
    from tickrt.engines.bundle.crypto import load_public_key, new_keys

    paths = new_keys(folder, name)
    facts = {kind: str(path) for kind, path in paths.items()}
    facts["key_id"] = load_public_key(f"file:{paths['public']}").key_id.hex()
    emit(facts, as_json, title="keys")
