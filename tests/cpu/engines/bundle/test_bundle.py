"""Bundles: round trips, keys, and ten thousand ways in which a bundle can be wrong."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tickrt.engines.bundle.crypto import (
    AesKey,
    SigningKey,
    load_aes_key,
    load_private_key,
    new_keys,
)
from tickrt.engines.bundle.format import (
    HEADER,
    TRAILER,
    encode_bundle,
    open_bundle,
    read_manifest,
    write_bundle,
)
from tickrt.engines.bundle.manifest import (
    Builder,
    EngineInfo,
    Manifest,
    ModelFacts,
    Parity,
    TensorInfo,
)
from tickrt.errors import BundleError, TamperedError, TickrtError

PAYLOADS = {"step.onnx": bytes(range(256)) * 2, "pre.onnx": b"pre" * 100}


def make_manifest(name: str = "m", version: str = "1") -> Manifest:
    rows = TensorInfo(name="rows", dtype="float32", shape=("batch", 4, 2))
    out = TensorInfo(name="probabilities", dtype="float32", shape=("batch", 3))
    engines = tuple(
        EngineInfo(role=role, payload=f"{role}.onnx", format="onnx", inputs=(rows,), outputs=(out,))
        for role in ("pre", "step")
    )
    return Manifest(
        name=name,
        tickrt="0.1.0",
        model=ModelFacts(name=name, sha256="ab" * 32),
        builder=Builder(
            backend="onnxruntime",
            library="onnxruntime",
            version=version,
            platform="linux-x86_64",
            reproducible="yes",
        ),
        precision="fp32",
        engines=engines,
        parity=Parity(status="not run here"),
    )


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[AesKey, SigningKey]:
    paths = new_keys(tmp_path_factory.mktemp("keys"))
    return load_aes_key(str(paths["aes"])), load_private_key(str(paths["private"]))


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("signed", [False, True])
def test_round_trip(
    tmp_path: Path, keys: tuple[AesKey, SigningKey], encrypted: bool, signed: bool
) -> None:
    aes, sign = keys
    path = tmp_path / "x.bundle"
    digest = write_bundle(
        path, make_manifest(), PAYLOADS, aes if encrypted else None, sign if signed else None
    )
    trust = [sign.public] if signed else []
    with open_bundle(path, trust=trust, key=aes, allow_unsigned=not signed) as bundle:
        assert bundle.digest == digest
        assert bundle.encrypted is encrypted
        assert bundle.signed_by == (sign.public.key_id.hex() if signed else None)
        assert {name: bundle.payload(name) for name in PAYLOADS} == PAYLOADS
        bundle.verify()
    assert read_manifest(path) == make_manifest()
    assert [p.name for p in tmp_path.iterdir()] == ["x.bundle"]
    if encrypted:
        assert PAYLOADS["pre.onnx"] not in path.read_bytes()


def test_equal_builds_have_equal_digests(keys: tuple[AesKey, SigningKey]) -> None:
    first, digest = encode_bundle(make_manifest(), PAYLOADS, sign=keys[1])
    second, again = encode_bundle(make_manifest(), dict(reversed(PAYLOADS.items())), sign=keys[1])
    assert b"".join(first) == b"".join(second)
    assert digest == again == encode_bundle(make_manifest(), PAYLOADS)[1]


def test_refusals_name_the_way_out(tmp_path: Path, keys: tuple[AesKey, SigningKey]) -> None:
    aes, sign = keys
    other = new_keys(tmp_path / "other")
    signed = b"".join(encode_bundle(make_manifest(), PAYLOADS, aes, sign)[0])
    unsigned = b"".join(encode_bundle(make_manifest(), PAYLOADS)[0])
    with pytest.raises(TamperedError, match="--sign"):
        open_bundle(unsigned)
    with pytest.raises(TamperedError, match="not signed"):
        open_bundle(unsigned, trust=[sign.public], allow_unsigned=True)
    with pytest.raises(TamperedError, match="--trust"):
        open_bundle(signed)
    stranger = load_private_key(str(other["private"])).public
    with pytest.raises(TamperedError, match="trusted are"):
        open_bundle(signed, trust=[stranger])
    with pytest.raises(BundleError, match="--key"):
        open_bundle(signed, trust=[sign.public]).payload("step.onnx")
    wrong = open_bundle(signed, trust=[sign.public], key=load_aes_key(str(other["aes"])))
    with pytest.raises(TamperedError, match="wrong key"):
        wrong.payload("step.onnx")
    with pytest.raises(BundleError, match=r"it holds pre\.onnx, step\.onnx"):
        wrong.payload("full.onnx")
    with pytest.raises(BundleError, match="No such file"):
        open_bundle(tmp_path / "none")
    with pytest.raises(BundleError):
        open_bundle(tmp_path)
    with pytest.raises(BundleError, match=r"no payload 'step\.onnx'"):
        encode_bundle(make_manifest(), {"pre.onnx": b""})


def _mutants(good: bytes, old: bytes, other_key: bytes, seed: int, count: int) -> list[bytes]:
    """Bit flips, truncations, extensions, swaps, replays and forgeries of a signed bundle."""
    rng = random.Random(seed)
    _, _, manifest, index, _, _ = HEADER.unpack(good[: HEADER.size])
    body = HEADER.size + manifest + index
    middle = body + (len(good) - body - TRAILER.size) // 3
    mutants = [
        good[:body] + old[body : -TRAILER.size] + good[-TRAILER.size :],  # older payloads
        old[:body] + good[body:],  # replayed older manifest
        good[: -TRAILER.size] + old[-TRAILER.size :],  # replayed older signature
        other_key[: -TRAILER.size] + good[-TRAILER.size :],
        good[:body] + good[middle : -TRAILER.size] + good[body:middle] + good[-TRAILER.size :],
        good[: -TRAILER.size] + good[-TRAILER.size : -96] + bytes(96),  # signature stripped
        b"",
        good + good,
    ]
    while len(mutants) < count:
        kind, data = rng.randrange(6), bytearray(good)
        if kind <= 1:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif kind == 2:
            data = data[: rng.randrange(len(data))]
        elif kind == 3:
            data += rng.randbytes(rng.randrange(1, 64))
        elif kind == 4:
            at, size = rng.randrange(len(data)), rng.randrange(1, 64)
            data[at : at + size] = rng.randbytes(len(data[at : at + size]))
        else:
            a, b = sorted(rng.sample(range(len(data)), 2))
            size = min(32, b - a, len(data) - b)
            data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]
        if bytes(data) != good:
            mutants.append(bytes(data))
    return mutants


def _load(data: bytes, trust: SigningKey, key: AesKey) -> None:
    with open_bundle(data, trust=[trust.public], key=key) as bundle:
        for name in PAYLOADS:
            bundle.payload(name)


def test_ten_thousand_mutated_bundles_none_loads(
    tmp_path: Path, keys: tuple[AesKey, SigningKey]
) -> None:
    aes, sign = keys
    other = new_keys(tmp_path)
    stranger = load_private_key(str(other["private"]))
    good = b"".join(encode_bundle(make_manifest(), PAYLOADS, aes, sign)[0])
    older = {name: bytes(reversed(body)) for name, body in PAYLOADS.items()}
    old = b"".join(encode_bundle(make_manifest(version="0"), older, aes, sign)[0])
    forged = b"".join(encode_bundle(make_manifest(), PAYLOADS, aes, stranger)[0])
    _load(good, sign, aes)
    _load(old, sign, aes)
    mutants = [forged, *_mutants(good, old, forged, seed=4, count=10_000)]
    kinds = set()
    for number, data in enumerate(mutants):
        with pytest.raises(TickrtError) as caught:  # noqa: PT012
            _load(data, sign, aes)
            pytest.fail(f"mutant {number} loads")
        kinds.add(type(caught.value))
    assert kinds <= {BundleError, TamperedError}
    wrong_key = load_aes_key(str(other["aes"]))
    with pytest.raises(TamperedError):
        _load(good, sign, wrong_key)


def test_nothing_is_parsed_before_the_signature_is_verified(
    tmp_path: Path, keys: tuple[AesKey, SigningKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = load_private_key(str(new_keys(tmp_path)["private"]))
    forged = b"".join(encode_bundle(make_manifest(), PAYLOADS, sign=stranger)[0])

    def parse(*_: object, **__: object) -> None:
        pytest.fail("parsed before it was verified")

    monkeypatch.setattr("tickrt.engines.bundle.head.json.loads", parse)
    monkeypatch.setattr(Manifest, "from_bytes", parse)
    for data in (forged, forged[:-1] + b"\0", forged[:-96] + bytes(96)):
        with pytest.raises(TamperedError):
            open_bundle(data, trust=[keys[1].public])


def test_unsigned_mutants_are_damage_that_the_digest_finds() -> None:
    good = b"".join(encode_bundle(make_manifest(), PAYLOADS)[0])
    # Only the trailer's key id and signature are not covered by the digest.
    for position in range(len(good)):
        data = bytearray(good)
        data[position] ^= 0x10
        with pytest.raises(TickrtError):  # noqa: PT012
            with open_bundle(bytes(data), allow_unsigned=True) as bundle:
                bundle.verify()
            if position >= len(good) - 96:
                raise TamperedError("a foreign signature that nobody was asked to trust")


def test_a_bundle_that_changes_under_the_reader_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.bundle"
    write_bundle(path, make_manifest(), PAYLOADS)
    with open_bundle(path, allow_unsigned=True) as bundle:
        data = bytearray(path.read_bytes())
        data[-TRAILER.size - 1] ^= 1
        with path.open("r+b") as file:
            file.write(data)
        with pytest.raises(TamperedError, match="damaged or was replaced"):
            bundle.payload("step.onnx")
