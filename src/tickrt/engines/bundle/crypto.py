"""Keys and what is done with them: AES-256-GCM for payloads, Ed25519 for signatures.

Entry points: `KeySource.parse` names where a key lies (a file, an environment variable, or a
command of a KMS or vault); `load_aes_key`, `load_private_key`, `load_public_key` fetch it;
`seal`/`unseal` encrypt one payload; `new_keys` makes a set of key files.

Invariants: key material is never an argument of a command line, never in a message, a repr or a
log; a private key file must not be readable by others; decryption goes to memory only.

Known limits: Python cannot wipe memory for certain, so a key lives in the process until it is
collected. A key's text form is one line: `tickrt-<kind>:<base64>`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import shlex
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tickrt.environment import variable
from tickrt.errors import ConfigError, TamperedError

__all__ = [
    "AesKey",
    "KeySource",
    "PublicKey",
    "SigningKey",
    "load_aes_key",
    "load_private_key",
    "load_public_key",
    "new_keys",
    "seal",
    "unseal",
]

KeyKind = Literal["aes256", "ed25519-private", "ed25519-public"]

SALT_BYTES: Final = 16
_COMMAND_TIMEOUT_S: Final = 30.0
_FORMS: Final = "file:PATH, env:NAME or command:PROGRAM ARGS"


@dataclass(frozen=True)
class KeySource:
    """Where a key lies; never the key itself.

    Attributes:
        kind: ``file``, ``env`` or ``command``.
        where: the path, the variable's name, or the command with its arguments.
    """

    kind: Literal["file", "env", "command"]
    where: str

    @classmethod
    def parse(cls, text: str) -> KeySource:
        """Read ``file:PATH``, ``env:NAME`` or ``command:PROGRAM ARGS``; a bare path is a file.

        Raises:
            ConfigError: anything else. The text is not repeated: it may be a key given by mistake.
        """
        kind, colon, where = text.partition(":")
        if colon and kind in ("file", "env", "command") and where.strip():
            source = cls(kind, where)  # type: ignore[arg-type]
            source._program()
            return source
        if not colon and Path(text).exists():
            return cls("file", text)
        raise ConfigError(
            f"a key is named by {_FORMS}; what was given is none of these "
            "(a key itself never belongs on the command line)"
        )

    def read(self) -> str:
        """Fetch the key's text.

        Raises:
            ConfigError: it is not there, others may read the file, or the command failed.
        """
        if self.kind == "env":
            value = variable(self.where)
            if not value:
                raise ConfigError(f"key env:{self.where}: the variable is not set")
            return value.strip()
        if self.kind == "command":
            return self._run()
        return self._read_file(Path(self.where).expanduser())

    @staticmethod
    def _read_file(path: Path) -> str:
        try:
            mode = path.stat().st_mode
            text = path.read_text("ascii").strip()
        except OSError as error:
            raise ConfigError(f"key file:{path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"key file:{path}: not a key file (binary)") from None
        public = text.startswith("tickrt-ed25519-public:")
        if not public and os.name == "posix" and stat.S_IMODE(mode) & stat.S_IROTH:
            raise ConfigError(f"key file:{path}: everybody can read it; run: chmod 600 {path}")
        return text

    def _program(self) -> list[str]:
        """The command in words. Raises ConfigError for an open quote."""
        try:
            return shlex.split(self.where) if self.kind == "command" else []
        except ValueError:
            raise ConfigError("key command: a quote is not closed") from None

    def _run(self) -> str:
        program = self._program()
        try:
            done = subprocess.run(
                program, capture_output=True, timeout=_COMMAND_TIMEOUT_S, check=False
            )
        except FileNotFoundError:
            raise ConfigError(f"key command {program[0]!r}: no such program") from None
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ConfigError(f"key command {program[0]!r}: {type(error).__name__}") from None
        if done.returncode != 0:
            # Its output may hold secrets: only the exit status is shown.
            raise ConfigError(f"key command {program[0]!r}: exit status {done.returncode}")
        try:
            return done.stdout.decode("ascii").strip()
        except UnicodeDecodeError:
            raise ConfigError(f"key command {program[0]!r}: printed no key") from None

    def __str__(self) -> str:
        # A command's arguments may hold a token: only the program is shown.
        shown = self._program()[0] if self.kind == "command" else self.where
        return f"{self.kind}:{shown}"


@dataclass(frozen=True, repr=False, eq=False)
class AesKey:
    """An AES-256 key that does not show itself."""

    raw: bytes

    def __repr__(self) -> str:
        return "AesKey(…)"


@dataclass(frozen=True, repr=False, eq=False)
class PublicKey:
    """An Ed25519 public key; `key_id` is the SHA-256 of its 32 raw bytes."""

    key: Ed25519PublicKey

    @property
    def raw(self) -> bytes:
        return self.key.public_bytes_raw()

    @property
    def key_id(self) -> bytes:
        return hashlib.sha256(self.raw).digest()

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` (64 bytes) is this key's on `message` (RFC 8032)."""
        try:
            self.key.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def __repr__(self) -> str:
        return f"PublicKey({self.key_id.hex()[:16]})"


@dataclass(frozen=True, repr=False, eq=False)
class SigningKey:
    """An Ed25519 private key that does not show itself."""

    key: Ed25519PrivateKey

    @property
    def public(self) -> PublicKey:
        return PublicKey(self.key.public_key())

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature of `message`; deterministic (RFC 8032)."""
        return self.key.sign(message)

    def __repr__(self) -> str:
        return f"SigningKey({self.public.key_id.hex()[:16]})"


def _decode(source: KeySource, kind: KeyKind) -> bytes:
    text = source.read()
    prefix, _, body = text.partition(":")
    if not prefix.startswith("tickrt-"):
        raise ConfigError(f"key {source}: not a tickrt key; make one with `tickrt keys new`")
    if prefix != f"tickrt-{kind}":
        raise ConfigError(f"key {source}: is a {prefix[7:]} key, needed is {kind}")
    try:
        raw = base64.b64decode(body, validate=True)
    except binascii.Error:
        raise ConfigError(f"key {source}: damaged (not base64)") from None
    if len(raw) != 32:
        raise ConfigError(f"key {source}: damaged ({len(raw)} bytes instead of 32)")
    return raw


def _source(source: KeySource | str) -> KeySource:
    return KeySource.parse(source) if isinstance(source, str) else source


def load_aes_key(source: KeySource | str) -> AesKey:
    """Fetch an AES-256 key. Raises ConfigError when it cannot be had or is of another kind."""
    return AesKey(_decode(_source(source), "aes256"))


def load_private_key(source: KeySource | str) -> SigningKey:
    """Fetch an Ed25519 private key. Raises ConfigError like `load_aes_key`."""
    return SigningKey(
        Ed25519PrivateKey.from_private_bytes(_decode(_source(source), "ed25519-private"))
    )


def load_public_key(source: KeySource | str) -> PublicKey:
    """Fetch an Ed25519 public key. Raises ConfigError like `load_aes_key`."""
    return PublicKey(Ed25519PublicKey.from_public_bytes(_decode(_source(source), "ed25519-public")))


def _write_key(path: Path, kind: KeyKind, raw: bytes, mode: int) -> Path:
    line = f"tickrt-{kind}:{base64.b64encode(raw).decode('ascii')}\n"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise ConfigError(f"{path}: exists already; a key is never overwritten") from None
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    return path


def new_keys(folder: Path, name: str = "tickrt") -> dict[str, Path]:
    """Make a set of keys: ``NAME.aes.key``, ``NAME.sign.key`` (both 0600) and ``NAME.sign.pub``.

    Returns:
        the paths under ``aes``, ``private``, ``public``.

    Raises:
        ConfigError: one of the files exists; nothing is overwritten.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {
        "aes": folder / f"{name}.aes.key",
        "private": folder / f"{name}.sign.key",
        "public": folder / f"{name}.sign.pub",
    }
    for path in paths.values():
        if path.exists():
            raise ConfigError(f"{path}: exists already; a key is never overwritten")
    private = Ed25519PrivateKey.generate()
    _write_key(paths["aes"], "aes256", AESGCM.generate_key(bit_length=256), 0o600)
    _write_key(paths["private"], "ed25519-private", private.private_bytes_raw(), 0o600)
    _write_key(paths["public"], "ed25519-public", private.public_key().public_bytes_raw(), 0o644)
    return paths


def _bundle_cipher(key: AesKey, salt: bytes) -> AESGCM:
    """Each bundle has its own key (HKDF-SHA256, RFC 5869): nonces cannot meet across bundles."""
    derived = HKDF(SHA256(), length=32, salt=salt, info=b"tickrt bundle v1").derive(key.raw)
    return AESGCM(derived)


def seal(key: AesKey, salt: bytes, nonce: bytes, plain: bytes, associated: bytes) -> bytes:
    """Encrypt one payload with AES-256-GCM (NIST SP 800-38D); returns ciphertext + 16-byte tag.

    Args:
        key: the user's key; the cipher's key is derived from it and `salt`.
        salt: 16 random bytes of the bundle.
        nonce: 12 random bytes of the payload.
        plain: what to encrypt.
        associated: bytes that are authenticated with it (manifest digest and payload name).
    """
    return _bundle_cipher(key, salt).encrypt(nonce, plain, associated)


def unseal(
    key: AesKey, salt: bytes, nonce: bytes, stored: bytes, associated: bytes, where: str
) -> bytes:
    """Decrypt what `seal` made, in memory.

    Raises:
        TamperedError: wrong key, or `stored`, `associated`, salt or nonce are not the sealed ones.
    """
    try:
        return _bundle_cipher(key, salt).decrypt(nonce, stored, associated)
    except (InvalidTag, ValueError):
        raise TamperedError(f"{where}: does not decrypt: wrong key, or tampered with") from None
