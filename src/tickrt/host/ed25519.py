"""Ed25519 signatures, verified with or without the `cryptography` package (RFC 8032, section 5.1).

Entry points: `TrustedKey` (a public key), `verify` (in plain Python).

Only verification is here: it handles nothing secret, so it need not take constant time. Like
`cryptography`, it refuses an S that is not reduced, and checks the equation without the cofactor.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

__all__ = ["TrustedKey", "verify"]

_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493  # order of the base point
_D = -121665 * pow(121666, _P - 2, _P) % _P
_ROOT = pow(2, (_P - 1) // 4, _P)  # a square root of -1

# Extended coordinates X, Y, Z, T: x = X/Z, y = Y/Z, xy = T/Z.
Point = tuple[int, int, int, int]


def _add(a: Point, b: Point) -> Point:
    p, q = (a[1] - a[0]) * (b[1] - b[0]) % _P, (a[1] + a[0]) * (b[1] + b[0]) % _P
    r, s = 2 * a[3] * b[3] * _D % _P, 2 * a[2] * b[2] % _P
    e, f, g, h = q - p, s - r, s + r, q + p
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _times(scalar: int, point: Point) -> Point:
    total = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            total = _add(total, point)
        point = _add(point, point)
        scalar >>= 1
    return total


def _decode(data: bytes) -> Point | None:
    """The point that 32 bytes stand for (5.1.3); None where they stand for none."""
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    if y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, _P - 2, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _ROOT % _P
    if (x * x - square) % _P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = _P - x
    return x, y, 1, x * y % _P


def _encode(point: Point) -> bytes:
    inverse = pow(point[2], _P - 2, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


_BASE_Y = 4 * pow(5, _P - 2, _P) % _P
_BASE = _decode(_BASE_Y.to_bytes(32, "little"))


def verify(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether `signature` is that of `message` by the key `public` (32 raw bytes)."""
    point = _decode(public) if len(public) == 32 else None
    if point is None or _BASE is None or len(signature) != 64:
        return False
    s = int.from_bytes(signature[32:], "little")
    if s >= _L:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % _L
    minus = (_P - point[0], point[1], point[2], _P - point[3])
    return _encode(_add(_times(s, _BASE), _times(k, minus))) == signature[:32]


@dataclass(frozen=True)
class TrustedKey:
    """A public key: 32 raw bytes."""

    raw: bytes

    @property
    def key_id(self) -> bytes:
        """SHA-256 of the raw bytes."""
        return hashlib.sha256(self.raw).digest()

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` is this key's on `message`; by `cryptography` where it is there."""
        try:
            from cryptography.exceptions import InvalidSignature
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        except ImportError:
            return verify(self.raw, signature, message)
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True
