"""Nothing reaches a kernel that was not signed: what is changed on the way to a host is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.window_kernel import KERNELS, parcel, weight
from tickrt.engines.bundle.crypto import AesKey, SigningKey, load_aes_key, load_private_key
from tickrt.engines.bundle.crypto import new_keys as make_keys
from tickrt.engines.bundle.format import encode_bundle, open_bundle
from tickrt.engines.bundle.head import HEADER, digest_of
from tickrt.engines.bundle.manifest import Builder, EngineInfo, Manifest, Parity
from tickrt.engines.graph.interface import ModelFacts, TensorInfo
from tickrt.errors import BundleError, HostError, IncompatibleError, TamperedError, TickrtError
from tickrt.host import process
from tickrt.host.messages import read_sealed, sealed
from tickrt.host.parcel import Parcel, pack, unpack
from tickrt.host.process import HostProcess
from tickrt.runtime.backends.handle import RowRing
from tickrt.runtime.backends.mailbox.engine import LoopSide

T, F = 4, 3


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[AesKey, SigningKey]:
    paths = make_keys(tmp_path_factory.mktemp("k"))
    return load_aes_key(str(paths["aes"])), load_private_key(str(paths["private"]))


def manifest(format_: str = "window") -> Manifest:
    rows = TensorInfo(name="rows", dtype="float32", shape=("batch", T, F))
    out = TensorInfo(name="probabilities", dtype="float32", shape=("batch", 3))
    return Manifest(
        name="m",
        tickrt="0.1.0",
        model=ModelFacts(name="m", sha256="0" * 64),
        builder=Builder(
            backend="window", library="window", version="1", platform="any", reproducible="yes"
        ),
        precision="fp32",
        engines=(
            EngineInfo(
                role="full", payload="weight", format=format_, inputs=(rows,), outputs=(out,)
            ),
        ),
        parity=Parity(status="not run here"),
    )


def bundled(
    aes: AesKey | None = None, sign: SigningKey | None = None, format_: str = "window"
) -> Parcel:
    """A parcel of a bundle that this side has verified."""
    content = {"weight": weight(T, F).tobytes(), "more": b"more"}
    data = b"".join(encode_bundle(manifest(format_), content, aes, sign)[0])
    trust = [sign.public] if sign else []
    with open_bundle(data, trust, aes, allow_unsigned=sign is None) as bundle:
        return Parcel(
            "m.bundle",
            "window",
            {name: bundle.payload(name) for name in content},
            {"window": T, "width": F},
            bundle.signed,
            tuple(key.raw for key in trust),
            sign is None,
        )


def through(made: Parcel, change: Callable[[dict[str, Any], list[int]], None]) -> Parcel:
    """What comes out at the other side when `change` was at work in between."""
    message, fds = pack(made)
    held = list(fds)
    try:
        change(message, fds)
        return unpack(message, fds)
    finally:
        for fd in {*held, *fds}:
            os.close(fd)


def nothing(message: dict[str, Any], fds: list[int]) -> None:
    return None


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("signed", [False, True])
def test_a_bundle_arrives_as_it_is(
    encrypted: bool, signed: bool, keys: tuple[AesKey, SigningKey]
) -> None:
    made = bundled(keys[0] if encrypted else None, keys[1] if signed else None)
    got = through(made, nothing)
    assert {name: bytes(data) for name, data in got.payloads.items()} == dict(made.payloads)
    assert (got.where, got.format, got.facts) == (made.where, made.format, made.facts)


def test_a_parcel_without_a_bundle_arrives_as_it_is() -> None:
    made = replace(parcel(T, F), payloads={"weight": b"abc", "none": b""})
    got = through(made, nothing)
    assert {name: bytes(data) for name, data in got.payloads.items()} == dict(made.payloads)


def replaced(data: bytes, at: int = 0) -> Callable[[dict[str, Any], list[int]], None]:
    def change(message: dict[str, Any], fds: list[int]) -> None:
        fds[at] = sealed(data)

    return change


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_payload_that_was_replaced(encrypted: bool, keys: tuple[AesKey, SigningKey]) -> None:
    """Also when the message is changed to fit it: what counts is signed."""
    made = bundled(keys[0] if encrypted else None, keys[1])
    forged = weight(T, F, seed=2).tobytes()
    with pytest.raises(TamperedError, match=r"m\.bundle: payload 'weight' is damaged or was rep"):
        through(made, replaced(forged))

    def consistent(message: dict[str, Any], fds: list[int]) -> None:
        other, theirs = pack(replace(made, payloads={"weight": forged, "more": b"more"}))
        message["payloads"] = other["payloads"]
        fds[0] = theirs[0]
        for fd in theirs[1:]:
            os.close(fd)

    with pytest.raises(TamperedError, match="payload 'weight' is damaged or was replaced"):
        through(made, consistent)


def test_a_payload_without_a_bundle_that_was_replaced() -> None:
    with pytest.raises(TamperedError, match=r"window\.bin: payload 'weight' is damaged"):
        through(parcel(T, F), replaced(b"other"))


def test_payloads_that_changed_their_places(keys: tuple[AesKey, SigningKey]) -> None:
    def swap(message: dict[str, Any], fds: list[int]) -> None:
        fds[0], fds[1] = fds[1], fds[0]

    with pytest.raises(TamperedError, match="payload 'weight'"):
        through(bundled(sign=keys[1]), swap)


def test_every_flipped_byte_of_what_is_signed_is_found(keys: tuple[AesKey, SigningKey]) -> None:
    made = bundled(sign=keys[1])
    rng = np.random.default_rng(1)
    places = {0, 8, 12, 20, 24, len(made.signed) - 1, *rng.integers(0, len(made.signed), 60)}
    for place in sorted(int(p) for p in places):
        data = bytearray(made.signed)
        data[place] ^= 0x20
        with pytest.raises(TickrtError):
            through(made, replaced(bytes(data), at=2))


def test_what_is_signed_cut_or_padded(keys: tuple[AesKey, SigningKey]) -> None:
    made = bundled(sign=keys[1])
    for data in (b"", made.signed[:100], made.signed[:-1], made.signed + b"\0", b"\0" * 5000):
        with pytest.raises(BundleError):
            through(made, replaced(data, at=2))


def test_another_signer_or_none(keys: tuple[AesKey, SigningKey], tmp_path: Path) -> None:
    stranger = load_private_key(str(make_keys(tmp_path)["private"]))
    made = bundled(sign=stranger)
    with pytest.raises(TamperedError, match=r"signed by \w+; trusted are"):
        through(replace(made, trust=(keys[1].public.raw,)), nothing)
    with pytest.raises(TamperedError, match="no key is trusted"):
        through(replace(made, trust=()), nothing)
    unsigned = bundled()
    with pytest.raises(TamperedError, match="not signed"):
        through(replace(unsigned, allow_unsigned=False), nothing)
    with pytest.raises(TamperedError, match="not signed"):
        through(replace(unsigned, trust=(keys[1].public.raw,)), nothing)


def test_memory_that_could_still_change() -> None:
    def open_memory(message: dict[str, Any], fds: list[int]) -> None:
        fds[0] = os.memfd_create("m", os.MFD_ALLOW_SEALING)
        os.write(fds[0], weight(T, F).tobytes())

    with pytest.raises(TamperedError, match="payload 'weight': its memory is not sealed"):
        through(parcel(T, F), open_memory)


def test_sealed_memory_cannot_be_changed() -> None:
    fd = sealed(b"abc")
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"x", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 10)
    assert bytes(read_sealed(fd, "it")) == b"abc"
    os.close(fd)


def test_payloads_that_are_not_the_bundles(keys: tuple[AesKey, SigningKey]) -> None:
    made = bundled(sign=keys[1])
    with pytest.raises(BundleError, match="no payload 'extra'; it holds more, weight"):
        through(replace(made, payloads={**made.payloads, "extra": b"x"}), nothing)

    message, fds = pack(made)
    with pytest.raises(HostError, match="2 files for the payloads"):
        unpack(message, fds[:2])
    for fd in fds:
        os.close(fd)


def test_engines_of_another_format_than_it_says(keys: tuple[AesKey, SigningKey]) -> None:
    made = bundled(sign=keys[1], format_="other")
    with pytest.raises(IncompatibleError, match="have the format other, not window"):
        through(made, nothing)


def test_an_encrypted_bundle_of_before_says_how_to_build_it_again(
    keys: tuple[AesKey, SigningKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its index does not say what its payloads decrypt to; in our process it still opens."""
    from tickrt.engines.bundle import format as format_

    index = format_.index_bytes
    monkeypatch.setattr(
        format_,
        "index_bytes",
        lambda salt, plan: index(salt, [replace(e, plain=None) for e in plan]),
    )
    made = bundled(keys[0], keys[1])
    with pytest.raises(BundleError, match=r"encrypted .* tickrt build --rebuild m\.bundle"):
        through(made, nothing)


def test_the_digest_of_decrypted_bytes_is_only_in_encrypted_bundles(
    keys: tuple[AesKey, SigningKey],
) -> None:
    made = bundled(sign=keys[1])
    head = made.signed[:-128]
    assert b'"plain"' not in head
    assert b'"plain"' in bundled(keys[0], keys[1]).signed
    assert digest_of(head) == made.signed[-128:-96]
    assert HEADER.size == 32


@pytest.mark.parametrize("with_cryptography", [True, False])
def test_the_host_itself_refuses_it(
    with_cryptography: bool,
    keys: tuple[AesKey, SigningKey],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A real process, between which and us a payload was replaced; then the true one is loaded."""
    (tmp_path / "cryptography.py").write_text("raise ImportError('not here')")
    paths = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    environment = {} if with_cryptography else {"PYTHONPATH": paths}
    made = bundled(keys[0], keys[1])
    rows = np.zeros((2 * T, F), np.float32)
    side = LoopSide(RowRing(rows.ctypes.data, T, F), 3)
    memories = (side.rows, side.host)

    def tampering(sent: Parcel) -> tuple[dict[str, Any], list[int]]:
        message, fds = pack(sent)
        os.close(fds[0])
        fds[0] = sealed(weight(T, F, seed=2).tobytes())
        return message, fds

    with HostProcess(kernels=KERNELS, environment=environment) as host:
        with monkeypatch.context() as patched:
            patched.setattr(process, "pack", tampering)
            with pytest.raises(
                TamperedError, match=r"\(load\): m\.bundle: payload 'weight' is dam"
            ):
                host.load(made, side.layout, memories, side.box)
        host.load(made, side.layout, memories, side.box)
    side.close()
