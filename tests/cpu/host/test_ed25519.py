"""Signatures verified in plain Python: the vectors of RFC 8032, and `cryptography` beside it."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tickrt.engines.bundle.crypto import PublicKey
from tickrt.host.ed25519 import TrustedKey, verify

# RFC 8032, section 7.1: public key, message, signature.
VECTORS = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9"
        "b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f1"
        "1d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984d"
        "c6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]
ORDER = 2**252 + 27742317777372353535851937790883648493


@pytest.mark.parametrize(("public", "message", "signature"), VECTORS)
def test_the_vectors_of_the_rfc(public: str, message: str, signature: str) -> None:
    key, text, good = map(bytes.fromhex, (public, message, signature))
    assert verify(key, good, text)
    assert not verify(key, good, text + b"\0")


def test_it_agrees_with_cryptography_on_good_and_on_corrupted_ones() -> None:
    rng = np.random.default_rng(4)
    for _ in range(12):
        private = Ed25519PrivateKey.from_private_bytes(rng.bytes(32))
        key = PublicKey(private.public_key())
        message = rng.bytes(int(rng.integers(0, 200)))
        good = private.sign(message)
        assert verify(key.raw, good, message)
        for _ in range(8):
            bad = bytearray(good)
            bad[int(rng.integers(0, 64))] ^= 1 << int(rng.integers(0, 8))
            assert not verify(key.raw, bytes(bad), message)
            assert not key.verify(bytes(bad), message)


def test_what_is_no_signature_at_all() -> None:
    key, _, good = map(bytes.fromhex, VECTORS[0])
    for signature in (b"", good[:63], good + b"\0", bytes(64), b"\xff" * 64):
        assert not verify(key, signature, b"")
    s = int.from_bytes(good[32:], "little") + ORDER  # the same modulo the order: not reduced
    assert not verify(key, good[:32] + s.to_bytes(32, "little"), b"")
    for public in (b"", key[:31], b"\xff" * 32, (2).to_bytes(32, "little")):
        assert not verify(public, good, b"")
    zero_x = bytearray((1).to_bytes(32, "little"))
    zero_x[31] |= 0x80  # x = 0 has no negative
    assert not verify(bytes(zero_x), good, b"")


def test_a_key_is_verified_by_either_and_named_by_its_digest() -> None:
    public, _, good = map(bytes.fromhex, VECTORS[0])
    key = TrustedKey(public)
    assert key.key_id == hashlib.sha256(public).digest()
    assert key.verify(good, b"")
    assert not key.verify(good, b"x")
    assert not TrustedKey(b"short").verify(good, b"")


def test_without_cryptography() -> None:
    public, _, good = VECTORS[0]
    probe = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from tickrt.host.ed25519 import TrustedKey\n"
        f"key, good = TrustedKey(bytes.fromhex({public!r})), bytes.fromhex({good!r})\n"
        "assert key.verify(good, b'') and not key.verify(good, b'x')\n"
        "assert 'cryptography.exceptions' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", probe], check=True)
