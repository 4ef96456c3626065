"""The registry: channels, rollback, audit, two writers, and death at every write step."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tickrt.engines.bundle.crypto import load_private_key, new_keys
from tickrt.engines.bundle.format import write_bundle
from tickrt.engines.bundle.manifest import (
    Builder,
    EngineInfo,
    Manifest,
    ModelFacts,
    Parity,
    TensorInfo,
)
from tickrt.engines.registry.registry import Registry
from tickrt.errors import BundleError, RegistryError, TamperedError

KILLER = Path(__file__).parents[3] / "helpers" / "registry_killer.py"


def bundle_file(folder: Path, name: str, status: str = "passed") -> Path:
    tensor = TensorInfo(name="rows", dtype="float32", shape=("batch", 4, 2))
    manifest = Manifest(
        name=name,
        tickrt="0.1.0",
        model=ModelFacts(name=name, sha256="ab" * 32),
        builder=Builder(
            backend="onnxruntime", library="o", version="1", platform="p", reproducible="yes"
        ),
        precision="fp32",
        engines=(
            EngineInfo(
                role="full", payload="full.onnx", format="onnx", inputs=(tensor,), outputs=()
            ),
        ),
        parity=Parity.model_validate({"status": status}),
    )
    path = folder / f"{name}.bundle"
    write_bundle(path, manifest, {"full.onnx": name.encode() * 100})
    return path


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "reg", allow_unsigned=True, create=True)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    return lambda name, status="passed": bundle_file(tmp_path, name, status)


def test_promote_rollback_and_history(registry: Registry, make: Callable[..., Path]) -> None:
    a, b, c = (registry.add(make(name)) for name in "abc")
    assert registry.add(make("a")) == a  # again: nothing happens
    registry.promote(a[:12], "canary")
    registry.promote("canary", "prod", note="first")
    registry.promote(b, "prod")
    registry.promote(b, "prod")
    registry.promote(c, "prod")
    assert registry.channels() == {"canary": a, "prod": c}
    assert registry.rollback("prod") == b
    assert registry.rollback("prod") == a
    with pytest.raises(RegistryError, match="nothing to go back to"):
        registry.rollback("prod")
    operations = [record.operation for record in registry.history("prod")]
    assert operations == ["promote"] * 3 + ["rollback"] * 2
    assert [item.channels for item in registry.items()] == [(), (), ("canary", "prod")]
    assert registry.items()[0].manifest.name == "c"
    with registry.open("prod") as bundle:
        assert bundle.payload("full.onnx") == b"a" * 100
    assert registry.verify() == 3


def test_what_is_refused(registry: Registry, make: Callable[..., Path], tmp_path: Path) -> None:
    a = registry.add(make("a"))
    bad = registry.add(make("bad", "failed"))
    with pytest.raises(RegistryError, match="parity check failed"):
        registry.promote(bad, "prod")
    assert registry.promote(bad, "prod", force=True) == bad
    with pytest.raises(RegistryError, match="channels: prod"):
        registry.resolve("nightly")
    with pytest.raises(RegistryError, match="expected a-z"):
        registry.promote(a, "../prod")
    with pytest.raises(RegistryError, match="no registry here"):
        Registry(tmp_path / "none")
    path = registry.root / "objects" / f"{a}.bundle"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(BundleError):
        registry.promote(a, "prod")
    other = make("other").rename(path)
    assert other == path
    with pytest.raises(RegistryError, match="another bundle than its name"):
        registry.verify()


def test_only_trusted_bundles_come_in(make: Callable[..., Path], tmp_path: Path) -> None:
    public = load_private_key(str(new_keys(tmp_path / "k")["private"])).public
    registry = Registry(tmp_path / "strict", trust=[public], create=True)
    with pytest.raises(TamperedError):
        registry.add(make("a"))
    assert registry.items() == []


def test_gc_keeps_what_channels_need(registry: Registry, make: Callable[..., Path]) -> None:
    digests = [registry.add(make(name)) for name in "abcd"]
    for digest in digests[:3]:
        registry.promote(digest, "prod")
    assert registry.gc(keep=0) == []  # too young
    assert set(registry.gc(keep=1, grace_s=0.0)) == {digests[0], digests[3]}
    assert len(list((registry.root / "objects").iterdir())) == 2
    assert registry.rollback("prod") == digests[1]
    with pytest.raises(RegistryError, match="nothing to go back to"):
        registry.rollback("prod")
    assert registry.add(make("a")) == digests[0]


def test_the_audit_chain_shows_every_change(registry: Registry, make: Callable[..., Path]) -> None:
    digest = registry.add(make("a"))
    registry.promote(digest, "prod")
    registry.promote(registry.add(make("b")), "prod")
    log = registry.root / "audit.jsonl"
    good = log.read_bytes()
    lines = good.splitlines(keepends=True)
    changed = json.loads(lines[1])
    changed["actor"] = "someone else"
    for forged in (
        [lines[0], json.dumps(changed).encode() + b"\n", *lines[2:]],
        [lines[0], *lines[2:]],
        [lines[1], lines[0], *lines[2:]],
        [b"{}\n", *lines],
        [b"\xff\n", *lines],
    ):
        log.write_bytes(b"".join(forged))
        with pytest.raises(RegistryError, match=r"line [12]"):
            registry.history()
    log.write_bytes(good + b'{"torn": ')  # a crash while a record was written
    assert len(registry.history()) == 4
    registry.promote(digest, "canary")
    assert len(registry.history()) == 5


def test_two_writers(registry: Registry, make: Callable[..., Path]) -> None:
    files = [make(f"m{number}") for number in range(8)]
    errors: list[Exception] = []

    def write(mine: list[Path]) -> None:
        own = Registry(registry.root, allow_unsigned=True)
        try:
            for path in mine:
                own.promote(own.add(path), "prod")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(files[i::2],)) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(registry.history()) == 16
    assert registry.verify() == 8


def test_watcher(registry: Registry, make: Callable[..., Path]) -> None:
    a, b = registry.add(make("a")), registry.add(make("b"))
    watcher = registry.watch("prod")
    assert watcher.current is None
    assert watcher.poll() is None
    registry.promote(a, "canary")
    assert watcher.poll() is None
    registry.promote(a, "prod")
    registry.promote(b, "prod")
    change = watcher.wait(5.0)
    assert change is not None
    assert (change.digest, change.previous, change.channel) == (b, a, "prod")
    assert change.path.is_file()
    assert watcher.wait(0.0) is None
    registry.rollback("prod")
    back = watcher.poll()
    assert back is not None
    assert back.digest == a


@pytest.mark.parametrize("operation", ["add", "promote", "rollback", "gc"])
def test_killed_at_every_write_step(
    registry: Registry, make: Callable[..., Path], operation: str
) -> None:
    a, b, loose = (registry.add(make(name)) for name in "abx")
    registry.promote(a, "canary")
    registry.promote(b, "canary")
    registry.promote(a, "prod")
    fresh = make("new")
    before = (set(item.digest for item in registry.items()), registry.channels())
    done = subprocess.run(
        [sys.executable, str(KILLER), str(registry.root), str(fresh), operation],
        capture_output=True,
        text=True,
        check=True,
    )
    steps = int(done.stdout)
    assert steps > 5
    states = []
    for step in range(1, steps + 1):
        root = registry.root.with_name(f"{registry.root.name}.{step}")
        crashed = Registry(root, allow_unsigned=True)
        crashed.verify()
        states.append((set(item.digest for item in crashed.items()), crashed.channels()))
        # The registry still works: the operation can be done again, and a torn tail goes.
        if operation == "add":
            assert crashed.add(fresh) in {item.digest for item in crashed.items()}
        elif operation == "promote":
            assert crashed.promote(b, "prod") == b
        elif operation == "gc":
            crashed.gc(keep=0, grace_s=0.0)
            left = {path.name for path in (root / "objects").iterdir()}
            assert left == {f"{a}.bundle", f"{b}.bundle"}
        crashed.promote(b, "after")
        crashed.verify()
    after = states[-1]
    assert before != after
    switch = states.index(after)
    assert states == [before] * switch + [after] * (steps - switch)
    assert loose in before[0]
