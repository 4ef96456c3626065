"""What is verified of a bundle before anything else: header, manifest, index, their signature.

Entry points: `verified_head` (bytes that are verified and not parsed), `parse_index` (the table of
payloads, with the digests that the signature covers): `format` opens bundles with them.
`verify_signed` does both without the payloads: an engine host verifies with it a second time what
it is given (`tickrt.host.parcel`).

Invariants: the standard library suffices, from Python 3.9 on: a host may have nothing else.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from tickrt.errors import BundleError, TamperedError

__all__ = [
    "ENCRYPTED",
    "HEADER",
    "INDEX_MAX",
    "MAGIC",
    "MANIFEST_MAX",
    "NAME",
    "NONCE_BYTES",
    "PAYLOADS_MAX",
    "SIGNATURE_DOMAIN",
    "TRAILER",
    "UNSIGNED",
    "VERSION",
    "Entry",
    "Head",
    "Reader",
    "Signer",
    "digest_of",
    "index_bytes",
    "parse_index",
    "verified_head",
    "verify_signed",
]

MAGIC: Final = b"\x89tickrt\n"
VERSION: Final = 1
HEADER: Final = struct.Struct("<8sIIIIQ")  # magic, version, manifest, index, flags, file size
TRAILER: Final = struct.Struct("<32s32s64s")  # digest, key id, signature
ENCRYPTED: Final = 1
MANIFEST_MAX: Final = 64 << 20
INDEX_MAX: Final = 1 << 20
PAYLOADS_MAX: Final = 64
NONCE_BYTES: Final = 12  # NIST SP 800-38D, 8.2.1
NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
UNSIGNED: Final = (bytes(32), bytes(64))
SIGNATURE_DOMAIN: Final = b"tickrt bundle v1 signature\0"
_DIGEST_DOMAIN: Final = b"tickrt bundle v1\0"
_SHA256: Final = re.compile(r"[0-9a-f]{64}")

Reader = Callable[[int, int], bytes]


class Signer(Protocol):
    """A public key (`crypto.PublicKey`, `tickrt.host.ed25519.TrustedKey`)."""

    @property
    def key_id(self) -> bytes:
        """SHA-256 of its 32 raw bytes."""
        ...

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` (64 bytes) is this key's on `message` (RFC 8032)."""
        ...


@dataclass(frozen=True)
class Entry:
    """Where a payload lies: `stored` bytes at `offset`, their `sha256`; `size` when decrypted.

    `plain` is the SHA-256 of an encrypted payload's decrypted bytes: so whoever gets only those can
    still verify that they were signed. None where it is not encrypted, or was built before.
    """

    name: str
    offset: int
    stored: int
    size: int
    sha256: str
    nonce: str | None
    plain: str | None = None

    @property
    def decrypted(self) -> str | None:
        """The SHA-256 of the payload's decrypted bytes, where it is known."""
        return self.sha256 if self.nonce is None else self.plain


def index_bytes(salt: bytes | None, entries: Sequence[Entry]) -> bytes:
    """The table of payloads as it is signed."""
    rows = [{k: v for k, v in vars(e).items() if (k, v) != ("plain", None)} for e in entries]
    table = {"salt": salt.hex() if salt else None, "payloads": rows}
    return json.dumps(table, sort_keys=True, separators=(",", ":")).encode()


def digest_of(head: bytes) -> bytes:
    """The bundle's digest, from its header, manifest and index."""
    return hashlib.sha256(_DIGEST_DOMAIN + head).digest()


@dataclass(frozen=True)
class Head:
    """What `verified_head` has verified; `signed` is the file without its payloads."""

    manifest: bytes
    index: bytes
    flags: int
    digest: bytes
    signed_by: str | None
    key_id: str | None
    signed: bytes


def verified_head(
    where: str, read: Reader, size: int, trust: Sequence[Signer], allow_unsigned: bool
) -> tuple[Head, int]:
    """Header, manifest and index bytes, verified but not parsed; and where the payloads begin.

    Args:
        where: what messages call it.
        read: gives `count` bytes from `offset` on.
        size: of the file.
        trust, allow_unsigned: as for `format.open_bundle`.

    Raises:
        BundleError, TamperedError: as `format.open_bundle`.
    """
    if size < HEADER.size + TRAILER.size:
        raise BundleError(f"{where}: too short for a bundle ({size} bytes)")
    header = read(0, HEADER.size)
    magic, version, manifest_size, index_size, flags, stated = HEADER.unpack(header)
    if magic != MAGIC:
        raise BundleError(f"{where}: not a tickrt bundle")
    if version != VERSION:
        raise BundleError(f"{where}: layout version {version}; this tickrt reads version {VERSION}")
    base = HEADER.size + manifest_size + index_size
    if stated != size or manifest_size > MANIFEST_MAX or index_size > INDEX_MAX:
        raise TamperedError(f"{where}: damaged: the header states {stated} bytes, it has {size}")
    if base + TRAILER.size > size or flags not in (0, ENCRYPTED):
        raise TamperedError(f"{where}: damaged header")
    manifest = read(HEADER.size, manifest_size)
    index = read(HEADER.size + manifest_size, index_size)
    trailer = read(size - TRAILER.size, TRAILER.size)
    digest, key_id, signature = TRAILER.unpack(trailer)
    if digest != digest_of(header + manifest + index):
        raise TamperedError(f"{where}: damaged: the digest of its manifest does not match")
    signed_by = _check_signature(where, digest, key_id, signature, trust, allow_unsigned)
    claimed = key_id.hex() if any(key_id) else None
    signed = header + manifest + index + trailer
    return Head(manifest, index, flags, digest, signed_by, claimed, signed), base


def _check_signature(
    where: str,
    digest: bytes,
    key_id: bytes,
    signature: bytes,
    trust: Sequence[Signer],
    allow_unsigned: bool,
) -> str | None:
    if (key_id, signature) == UNSIGNED:
        if trust or not allow_unsigned:
            raise TamperedError(
                f"{where}: not signed; build it with --sign, or load it with --allow-unsigned "
                "and no trusted key"
            )
        return None
    if not trust:
        if allow_unsigned:
            return None
        raise TamperedError(
            f"{where}: signed by {key_id.hex()[:16]}, and no key is trusted; "
            "name the public key with --trust"
        )
    for public in trust:
        if public.key_id == key_id:
            if public.verify(signature, SIGNATURE_DOMAIN + digest):
                return key_id.hex()
            raise TamperedError(f"{where}: the signature is not valid")
    known = ", ".join(public.key_id.hex()[:16] for public in trust)
    raise TamperedError(f"{where}: signed by {key_id.hex()[:16]}; trusted are {known}")


def parse_index(where: str, index: bytes, room: int) -> tuple[bytes | None, list[Entry]]:
    """The salt and the payload table, which must cover the `room` bytes without gap or overlap.

    Raises:
        BundleError: it is not valid.
    """
    try:
        table = json.loads(index)
        salt = bytes.fromhex(table["salt"]) if table["salt"] is not None else None
        entries = [Entry(**entry) for entry in table["payloads"]]
        position = 0
        for entry in entries:
            if not NAME.fullmatch(entry.name) or entry.offset != position or entry.stored < 0:
                raise ValueError
            if (entry.nonce is None) != (salt is None):
                raise ValueError
            if entry.nonce is not None and len(bytes.fromhex(entry.nonce)) != NONCE_BYTES:
                raise ValueError
            if entry.plain is not None and (salt is None or not _SHA256.fullmatch(entry.plain)):
                raise ValueError
            position += entry.stored
        if position != room or len({entry.name for entry in entries}) != len(entries):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError, AttributeError):
        raise BundleError(f"{where}: the payload table is not valid") from None
    return salt, entries


def verify_signed(
    where: str, signed: bytes, trust: Sequence[Signer], allow_unsigned: bool
) -> tuple[Head, list[Entry]]:
    """Verify a bundle by `Head.signed`: its payloads are elsewhere, their digests are in the table.

    Raises:
        BundleError, TamperedError: as `format.open_bundle`.
    """
    if len(signed) < HEADER.size + TRAILER.size:
        raise BundleError(f"{where}: too short for a bundle ({len(signed)} bytes)")
    size = HEADER.unpack(signed[: HEADER.size])[-1]
    trailer = len(signed) - TRAILER.size

    def read(offset: int, count: int) -> bytes:
        offset = offset if offset < trailer else offset - size + len(signed)
        return signed[offset : offset + count]

    if size < len(signed):
        raise TamperedError(f"{where}: damaged header")
    head, base = verified_head(where, read, size, trust, allow_unsigned)
    if base != trailer:
        raise TamperedError(f"{where}: damaged header")
    return head, parse_index(where, head.index, size - TRAILER.size - base)[1]
