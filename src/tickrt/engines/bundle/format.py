"""One file that holds a built engine: manifest, payloads, digest, signature (docs/bundle.md).

Entry points: `write_bundle` makes one, atomically; `open_bundle` verifies one and gives a `Bundle`;
`Bundle.payload` gives one payload's bytes, in memory; `read_manifest` needs no key.

Invariants: nothing of the file is parsed before its digest (and, where one is asked for, its
signature) has been verified; a payload's bytes leave `Bundle.payload` only after their own digest,
which the signature covers, and their decryption have been verified. What is returned is what was
verified: the file is not read a second time.

Known limits: without a trusted key the digest finds damage, not forgery; that is why an unsigned
bundle is refused unless the caller allows it. A replay of a whole older bundle is valid by itself;
the registry's channels and its audit log say which one is current.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import struct
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from tickrt.engines.bundle.crypto import (
    NONCE_BYTES,
    SALT_BYTES,
    AesKey,
    PublicKey,
    SigningKey,
    seal,
    unseal,
)
from tickrt.engines.bundle.manifest import Manifest
from tickrt.errors import BundleError, TamperedError
from tickrt.files import write_file

__all__ = ["Bundle", "Entry", "open_bundle", "read_manifest", "write_bundle"]

MAGIC: Final = b"\x89tickrt\n"
VERSION: Final = 1
HEADER: Final = struct.Struct("<8sIIIIQ")  # magic, version, manifest, index, flags, file size
TRAILER: Final = struct.Struct("<32s32s64s")  # digest, key id, signature
ENCRYPTED: Final = 1
MANIFEST_MAX: Final = 64 << 20
INDEX_MAX: Final = 1 << 20
PAYLOADS_MAX: Final = 64
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_UNSIGNED: Final = (bytes(32), bytes(64))
_DIGEST_DOMAIN: Final = b"tickrt bundle v1\0"
_SIGNATURE_DOMAIN: Final = b"tickrt bundle v1 signature\0"

Reader = Callable[[int, int], bytes]


@dataclass(frozen=True)
class Entry:
    """Where a payload lies: `stored` bytes at `offset`, their `sha256`; `size` when decrypted."""

    name: str
    offset: int
    stored: int
    size: int
    sha256: str
    nonce: str | None


def _index_bytes(salt: bytes | None, entries: Sequence[Entry]) -> bytes:
    table = {"salt": salt.hex() if salt else None, "payloads": [vars(entry) for entry in entries]}
    return json.dumps(table, sort_keys=True, separators=(",", ":")).encode()


def _associated(manifest_digest: bytes, name: str) -> bytes:
    return manifest_digest + name.encode()


def _digest(head: bytes) -> bytes:
    return hashlib.sha256(_DIGEST_DOMAIN + head).digest()


def encode_bundle(
    manifest: Manifest,
    payloads: Mapping[str, bytes],
    encrypt: AesKey | None = None,
    sign: SigningKey | None = None,
) -> tuple[list[bytes], str]:
    """The bundle's bytes as chunks, and its digest in hex.

    Raises:
        BundleError: the payloads are not the ones that the manifest names, or too large.
    """
    named = {engine.payload for engine in manifest.engines}
    if missing := named - set(payloads):
        raise BundleError(f"{manifest.name}: no payload {sorted(missing)[0]!r}")
    if len(payloads) > PAYLOADS_MAX or any(not _NAME.fullmatch(name) for name in payloads):
        raise BundleError(f"{manifest.name}: a payload's name is not allowed: {sorted(payloads)}")
    manifest_bytes = manifest.to_bytes()
    manifest_digest = hashlib.sha256(manifest_bytes).digest()
    salt = secrets.token_bytes(SALT_BYTES) if encrypt else None
    stored, plan, position = [], [], 0
    for name in sorted(payloads):
        plain, nonce = payloads[name], None
        body = plain
        if encrypt and salt:
            nonce = secrets.token_bytes(NONCE_BYTES)
            body = seal(encrypt, salt, nonce, plain, _associated(manifest_digest, name))
        digest = hashlib.sha256(body).hexdigest()
        plan.append((name, position, body, len(plain), digest, nonce.hex() if nonce else None))
        stored.append(body)
        position += len(body)
    # Offsets count from the end of the index, so that the index does not depend on its own length.
    entries = [Entry(n, at, len(body), size, sha, no) for n, at, body, size, sha, no in plan]
    index = _index_bytes(salt, entries)
    size = HEADER.size + len(manifest_bytes) + len(index) + position + TRAILER.size
    if len(manifest_bytes) > MANIFEST_MAX or len(index) > INDEX_MAX:
        raise BundleError(f"{manifest.name}: the manifest is too large")
    flags = ENCRYPTED if encrypt else 0
    header = HEADER.pack(MAGIC, VERSION, len(manifest_bytes), len(index), flags, size)
    head = header + manifest_bytes + index
    digest_bytes = _digest(head)
    key_id, signature = _UNSIGNED
    if sign:
        key_id = sign.public.key_id
        signature = sign.sign(_SIGNATURE_DOMAIN + digest_bytes)
    return [head, *stored, TRAILER.pack(digest_bytes, key_id, signature)], digest_bytes.hex()


def write_bundle(
    path: Path,
    manifest: Manifest,
    payloads: Mapping[str, bytes],
    encrypt: AesKey | None = None,
    sign: SigningKey | None = None,
) -> str:
    """Write a bundle atomically.

    Args:
        path: the file; an existing one is replaced.
        manifest: its `engines` name their payloads.
        payloads: bytes by name (lower case letters, digits, ``._-``).
        encrypt: encrypts every payload; the manifest stays readable.
        sign: signs the whole.

    Returns:
        the bundle's digest (hex): over the manifest and every payload's digest.

    Raises:
        BundleError: payloads and manifest do not belong together, or the file cannot be written.
    """
    chunks, digest = encode_bundle(manifest, payloads, encrypt, sign)
    try:
        write_file(path, chunks)
    except OSError as error:
        raise BundleError(f"{path}: cannot be written: {error.strerror}") from None
    return digest


class Bundle:
    """A verified bundle. A context manager; closing it ends reading of payloads.

    Attributes:
        path: what messages call it.
        manifest: the verified manifest.
        digest: the bundle's digest in hex, its content address.
        signed_by: the key id (hex) of the trusted key that verified it, or None.
        key_id: the key id (hex) that the file claims, verified or not; None when unsigned.
        encrypted: whether payloads need a key.
    """

    _closer: Callable[[], object] | None = None

    def __init__(
        self,
        where: str,
        read: Reader,
        size: int,
        trust: Sequence[PublicKey],
        key: AesKey | None,
        allow_unsigned: bool,
    ) -> None:
        self.path = where
        self._read = read
        self._key = key
        head, base = _verified_head(where, read, size, trust, allow_unsigned)
        self.digest = head.digest.hex()
        self.signed_by = head.signed_by
        self.key_id = head.key_id
        self.encrypted = head.flags == ENCRYPTED
        self._manifest_digest = hashlib.sha256(head.manifest).digest()
        self._salt, entries = _parse_index(where, head.index, size - TRAILER.size - base)
        self._entries = {entry.name: entry for entry in entries}
        self._base = base
        if self.encrypted != (self._salt is not None):
            raise BundleError(f"{where}: header and index disagree on encryption")
        self.manifest = Manifest.from_bytes(head.manifest, where)
        for engine in self.manifest.engines:
            if engine.payload not in self._entries:
                raise BundleError(f"{where}: the manifest's payload {engine.payload!r} is missing")

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The table of payloads, in file order."""
        return tuple(self._entries.values())

    def stored_payload(self, name: str) -> bytes:
        """The payload as it lies in the file (encrypted or not), its digest verified.

        Raises:
            BundleError: no such payload.
            TamperedError: its bytes are not the ones that were signed.
        """
        entry = self._entries.get(name)
        if entry is None:
            held = ", ".join(self._entries)
            raise BundleError(f"{self.path}: no payload {name!r}; it holds {held}")
        body = self._read(self._base + entry.offset, entry.stored)
        if hashlib.sha256(body).hexdigest() != entry.sha256:
            raise TamperedError(f"{self.path}: payload {name!r} is damaged or was replaced")
        return body

    def payload(self, name: str) -> bytes:
        """The payload, decrypted in memory.

        Raises:
            BundleError: no such payload, or it is encrypted and no key was given.
            TamperedError: it is not the one that was signed, or the key is another.
        """
        body = self.stored_payload(name)
        entry = self._entries[name]
        if entry.nonce is None or self._salt is None:
            return body
        if self._key is None:
            raise BundleError(f"{self.path}: payload {name!r} is encrypted; name a key with --key")
        associated = _associated(self._manifest_digest, name)
        where = f"{self.path}: payload {name!r}"
        return unseal(self._key, self._salt, bytes.fromhex(entry.nonce), body, associated, where)

    def verify(self) -> None:
        """Verify every payload; decrypt them too where a key was given. Raises like `payload`."""
        for name in self._entries:
            if self._key is None:
                self.stored_payload(name)
            else:
                self.payload(name)

    def __enter__(self) -> Bundle:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Payloads that were read stay valid."""
        if self._closer is not None:
            self._closer()


@dataclass(frozen=True)
class _Head:
    manifest: bytes
    index: bytes
    flags: int
    digest: bytes
    signed_by: str | None
    key_id: str | None


def _verified_head(
    where: str, read: Reader, size: int, trust: Sequence[PublicKey], allow_unsigned: bool
) -> tuple[_Head, int]:
    """Header, manifest and index bytes, verified but not parsed; and where the payloads begin."""
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
    digest, key_id, signature = TRAILER.unpack(read(size - TRAILER.size, TRAILER.size))
    if digest != _digest(header + manifest + index):
        raise TamperedError(f"{where}: damaged: the digest of its manifest does not match")
    signed_by = _check_signature(where, digest, key_id, signature, trust, allow_unsigned)
    claimed = key_id.hex() if any(key_id) else None
    return _Head(manifest, index, flags, digest, signed_by, claimed), base


def _check_signature(
    where: str,
    digest: bytes,
    key_id: bytes,
    signature: bytes,
    trust: Sequence[PublicKey],
    allow_unsigned: bool,
) -> str | None:
    if (key_id, signature) == _UNSIGNED:
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
            if public.verify(signature, _SIGNATURE_DOMAIN + digest):
                return key_id.hex()
            raise TamperedError(f"{where}: the signature is not valid")
    known = ", ".join(public.key_id.hex()[:16] for public in trust)
    raise TamperedError(f"{where}: signed by {key_id.hex()[:16]}; trusted are {known}")


def _parse_index(where: str, index: bytes, room: int) -> tuple[bytes | None, list[Entry]]:
    """The payload table; it must cover the payload area without gap or overlap."""
    try:
        table = json.loads(index)
        salt = bytes.fromhex(table["salt"]) if table["salt"] is not None else None
        entries = [Entry(**entry) for entry in table["payloads"]]
        position = 0
        for entry in entries:
            if not _NAME.fullmatch(entry.name) or entry.offset != position or entry.stored < 0:
                raise ValueError
            if (entry.nonce is None) != (salt is None):
                raise ValueError
            if entry.nonce is not None and len(bytes.fromhex(entry.nonce)) != NONCE_BYTES:
                raise ValueError
            position += entry.stored
        if position != room or len({entry.name for entry in entries}) != len(entries):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError, AttributeError):
        raise BundleError(f"{where}: the payload table is not valid") from None
    return salt, entries


def open_bundle(
    source: Path | bytes,
    trust: Sequence[PublicKey] = (),
    key: AesKey | None = None,
    allow_unsigned: bool = False,
) -> Bundle:
    """Open a bundle: digest and signature are verified here, before anything is parsed.

    Args:
        source: the file, or a bundle's bytes.
        trust: public keys; the bundle must be signed by one of them.
        key: decrypts the payloads; not needed for the manifest.
        allow_unsigned: accept a bundle without a verified signature when `trust` is empty.

    Raises:
        BundleError: not a bundle, of another version, or not readable.
        TamperedError: damaged, forged, not signed, or signed by a key that is not trusted.
    """
    if isinstance(source, bytes):
        data = source

        def read_bytes(offset: int, count: int) -> bytes:
            return data[offset : offset + count]

        return Bundle("<bytes>", read_bytes, len(data), trust, key, allow_unsigned)
    try:
        handle = os.open(source, os.O_RDONLY)
    except OSError as error:
        raise BundleError(f"{source}: {error.strerror}") from None

    def read(offset: int, count: int) -> bytes:
        parts = []
        while count > 0:
            try:
                part = os.pread(handle, count, offset)
            except OSError as error:
                raise BundleError(f"{source}: {error.strerror}") from None
            if not part:
                break  # a short file is found by the digests
            parts.append(part)
            offset, count = offset + len(part), count - len(part)
        return b"".join(parts)

    try:
        size = os.fstat(handle).st_size
        bundle = Bundle(str(source), read, size, trust, key, allow_unsigned)
    except BaseException:
        os.close(handle)
        raise
    bundle._closer = weakref.finalize(bundle, os.close, handle)
    return bundle


def read_manifest(source: Path | bytes) -> Manifest:
    """The manifest, read without keys; its digest is verified, its signature is not.

    Raises:
        BundleError: like `open_bundle`.
    """
    with open_bundle(source, allow_unsigned=True) as bundle:
        return bundle.manifest
