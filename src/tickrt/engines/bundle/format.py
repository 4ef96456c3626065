"""One file that holds a built engine: manifest, payloads, digest, signature (docs/bundle.md).

Entry points: `write_bundle` makes one, atomically; `open_bundle` verifies one and gives a `Bundle`;
`Bundle.payload` gives one payload's bytes, in memory; `read_manifest` needs no key. What is
verified first, and how, is in `head`.

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
import os
import secrets
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tickrt.engines.bundle.crypto import (
    SALT_BYTES,
    AesKey,
    PublicKey,
    SigningKey,
    seal,
    unseal,
)
from tickrt.engines.bundle.head import (
    ENCRYPTED,
    HEADER,
    INDEX_MAX,
    MAGIC,
    MANIFEST_MAX,
    NAME,
    NONCE_BYTES,
    PAYLOADS_MAX,
    SIGNATURE_DOMAIN,
    TRAILER,
    UNSIGNED,
    VERSION,
    Entry,
    Reader,
    digest_of,
    index_bytes,
    parse_index,
    verified_head,
)
from tickrt.engines.bundle.manifest import Manifest
from tickrt.errors import BundleError, TamperedError
from tickrt.files import write_file

__all__ = [
    "HEADER",
    "MAGIC",
    "TRAILER",
    "Bundle",
    "Entry",
    "open_bundle",
    "read_manifest",
    "write_bundle",
]


def _associated(manifest_digest: bytes, name: str) -> bytes:
    return manifest_digest + name.encode()


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
    if len(payloads) > PAYLOADS_MAX or any(not NAME.fullmatch(name) for name in payloads):
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
        sealed = None if nonce is None else hashlib.sha256(plain).hexdigest()
        entry = Entry(
            name,
            position,
            len(body),
            len(plain),
            digest,
            None if nonce is None else nonce.hex(),
            sealed,
        )
        plan.append(entry)
        stored.append(body)
        position += len(body)
    # Offsets count from the end of the index, so that the index does not depend on its own length.
    index = index_bytes(salt, plan)
    size = HEADER.size + len(manifest_bytes) + len(index) + position + TRAILER.size
    if len(manifest_bytes) > MANIFEST_MAX or len(index) > INDEX_MAX:
        raise BundleError(f"{manifest.name}: the manifest is too large")
    flags = ENCRYPTED if encrypt else 0
    header = HEADER.pack(MAGIC, VERSION, len(manifest_bytes), len(index), flags, size)
    head = header + manifest_bytes + index
    digest_bytes = digest_of(head)
    key_id, signature = UNSIGNED
    if sign:
        key_id = sign.public.key_id
        signature = sign.sign(SIGNATURE_DOMAIN + digest_bytes)
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
        signed: the file without its payloads: what a second reader needs to verify the signature.
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
        head, base = verified_head(where, read, size, trust, allow_unsigned)
        self.signed = head.signed
        self.digest = head.digest.hex()
        self.signed_by = head.signed_by
        self.key_id = head.key_id
        self.encrypted = head.flags == ENCRYPTED
        self._manifest_digest = hashlib.sha256(head.manifest).digest()
        self._salt, entries = parse_index(where, head.index, size - TRAILER.size - base)
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
