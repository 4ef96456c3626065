"""What an engine is made of, on its way from our process into a host: verified on both sides.

Entry points: `Parcel`; `pack` (our side) makes a message and sealed memory of one; `unpack` (the
host) verifies it before any payload reaches a kernel, let alone a deserialiser.

A bundle's payloads come with `signed`, its header, manifest, index and signature, and with the
public keys that are trusted: the host verifies the signature by itself, then every payload's
SHA-256 against the signed index (for an encrypted bundle against the digest of the decrypted
bytes, since the host has no key). What is in no bundle (a model file, a program made of one) comes
with the digest that we took of it.

Invariants: payloads lie in sealed memory, never in a file; nobody can change them between the
digest and their use.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tickrt.engines.bundle.head import verify_signed
from tickrt.errors import BundleError, HostError, IncompatibleError, TamperedError
from tickrt.host.ed25519 import TrustedKey
from tickrt.host.messages import read_sealed, sealed

__all__ = ["Parcel", "pack", "unpack"]


@dataclass(frozen=True)
class Parcel:
    """An engine for a host.

    Attributes:
        where: what messages call it: its file.
        format: of its engines; names the kernel that runs it (`kernels.registry`) …
        kernel: … unless this one does.
        payloads: bytes by name.
        facts: what the kernel has to know besides; plain data.
        signed: a bundle's `Bundle.signed`; empty where there is no bundle.
        trust: raw public keys; the bundle must be signed by one of them.
        allow_unsigned: as for `engines.bundle.format.open_bundle`.
    """

    where: str
    format: str
    payloads: Mapping[str, bytes | memoryview]
    facts: Mapping[str, Any] = field(default_factory=dict)
    signed: bytes = b""
    trust: tuple[bytes, ...] = ()
    allow_unsigned: bool = False
    kernel: str = ""


def pack(parcel: Parcel) -> tuple[dict[str, Any], list[int]]:
    """The parcel as part of a message, and the memory that goes with it. The caller closes it."""
    message = {
        "where": parcel.where,
        "format": parcel.format,
        "kernel": parcel.kernel,
        "payloads": [
            [name, hashlib.sha256(data).hexdigest()] for name, data in parcel.payloads.items()
        ],
        "facts": dict(parcel.facts),
        "trust": [key.hex() for key in parcel.trust],
        "allow_unsigned": parcel.allow_unsigned,
        "bundle": bool(parcel.signed),
    }
    parts = [bytes(data) for data in parcel.payloads.values()]
    if parcel.signed:
        parts.append(parcel.signed)
    return message, [sealed(part) for part in parts]


def unpack(message: dict[str, Any], fds: list[int]) -> Parcel:
    """The parcel that `pack` made, with everything verified.

    Raises:
        TamperedError, BundleError: it is not what was signed.
        IncompatibleError: the bundle's engines have another format.
        HostError: the message does not fit the files.
    """
    where, format_ = str(message["where"]), str(message["format"])
    names = [str(name) for name, _ in message["payloads"]]
    digests = [str(digest) for _, digest in message["payloads"]]
    in_bundle = bool(message["bundle"])
    if len(fds) != len(names) + in_bundle or len(set(names)) != len(names):
        raise HostError(f"{where}: {len(fds)} files for the payloads {names}")
    payloads = {name: read_sealed(fd, f"{where}: payload {name!r}") for name, fd in zip(names, fds)}
    signed, trust = b"", tuple(bytes.fromhex(key) for key in message["trust"])
    if in_bundle:
        signed = bytes(read_sealed(fds[-1], f"{where}: its signature"))
        expected = _signed_digests(where, format_, signed, trust, bool(message["allow_unsigned"]))
    else:
        expected = dict(zip(names, digests))
    for name, data in payloads.items():
        digest = hashlib.sha256(data).hexdigest()
        if name not in expected:
            raise BundleError(f"{where}: no payload {name!r}; it holds {', '.join(expected)}")
        if digest != expected[name]:
            raise TamperedError(f"{where}: payload {name!r} is damaged or was replaced")
    return Parcel(
        where,
        format_,
        payloads,
        dict(message["facts"]),
        signed,
        trust,
        kernel=str(message["kernel"]),
    )


def _signed_digests(
    where: str, format_: str, signed: bytes, trust: tuple[bytes, ...], allow_unsigned: bool
) -> dict[str, str]:
    """SHA-256 of every payload of a bundle, whose signature is verified here."""
    keys = [TrustedKey(raw) for raw in trust]
    head, entries = verify_signed(where, signed, keys, allow_unsigned)
    formats = sorted({str(engine["format"]) for engine in json.loads(head.manifest)["engines"]})
    if formats != [format_]:
        raise IncompatibleError(
            f"{where}: its engines have the format {', '.join(formats)}, not {format_}"
        )
    digests = {entry.name: entry.decrypted for entry in entries}
    for name, digest in digests.items():
        if digest is None:
            raise BundleError(
                f"{where}: payload {name!r} is encrypted and its bundle does not say what it "
                f"decrypts to: build it again with: tickrt build --rebuild {where}"
            )
    return {name: str(digest) for name, digest in digests.items()}
