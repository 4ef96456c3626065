"""Backends by name: the built-in ones, one that is registered, one that is installed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from helpers import toy_backend
from helpers.engine_zoo import ZOO
from helpers.sessions import config, market_file, settings, tiny_model
from tickrt import backends
from tickrt.cli import main
from tickrt.config import SessionConfig, load_config
from tickrt.engines.build.inspect import describe, verify
from tickrt.engines.build.portable import OnnxBuilder
from tickrt.engines.bundle.format import open_bundle
from tickrt.engines.bundle.toolchain import EngineOrder, MadeEngine, Phase
from tickrt.engines.graph.interface import Run
from tickrt.errors import BuildError, ConfigError, IncompatibleError
from tickrt.feature.spec import load_spec
from tickrt.runtime.backends.handle import RowRing
from tickrt.runtime.backends.onnxruntime.whole import OrtEngine
from tickrt.runtime.model_source import Source
from tickrt.runtime.session import Session

LEVEL = ("--builder-optimization-level", "3")
BUILT_IN = [
    *("tensorrt", "tensorrt_rtx", "onnxruntime", "native", "null", "reference", "resident"),
    "onnxruntime-cuda",
]


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test makes known is forgotten after it."""
    monkeypatch.setattr(backends, "_known", dict(backends._known))
    backends._installed.cache_clear()
    yield
    backends._installed.cache_clear()


def test_the_built_in_ones_are_there_and_not_imported() -> None:
    assert backends.names() == BUILT_IN
    probe = (
        "import sys; from tickrt import backends; backends.names(); backends.check('null')\n"
        "assert not [m for m in sys.modules if m.startswith(('tickrt.runtime', 'tickrt.engines'))]"
    )
    subprocess.run([sys.executable, "-c", probe], check=True)


@pytest.mark.parametrize("name", BUILT_IN)
def test_each_says_what_it_can_do_here(name: str) -> None:
    probe = backends.probe(name)
    assert (probe.runs == "") == (name in ("native", "onnxruntime", "null", "reference"))
    assert name != "onnxruntime" or not probe.builds
    assert name != "null" or probe.builds == "it only runs models"
    assert probe.needs_model == (name != "null")


def test_targets_are_for_those_that_build_ahead_of_time() -> None:
    assert "this machine" in backends.probe("tensorrt", ("8.9",)).builds
    assert "CPU" in backends.probe("onnxruntime", ("8.9",)).builds
    with pytest.raises(ConfigError, match="--target"):
        backends.builder("onnxruntime", ("8.9",))


@pytest.mark.parametrize("where", ["helpers.toy_backend", toy_backend])
def test_a_session_runs_on_a_registered_one(where: object, tmp_path: Path) -> None:
    backends.register("up", where)
    data = market_file(tmp_path / "m.npz", 60)
    with Session(config(tmp_path, data, backend="up")) as session:
        report = session.run()
        signals = session.signals()
    assert report.engine.backend == "up"
    assert len(signals) > 0
    assert signals["p_up"].tolist() == pytest.approx([0.7] * len(signals))


def install(name: str, where: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution with a backend, as an installer leaves it."""
    facts = folder / f"{name}-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(f"[tickrt.backends]\n{name} = {where}\n")
    monkeypatch.syspath_prepend(str(folder))


def test_an_installed_one_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("up", "helpers.toy_backend", tmp_path, monkeypatch)
    assert backends.names() == [*BUILT_IN, "up"]
    assert backends.find("up") is toy_backend


def test_what_it_lacks_it_cannot_do() -> None:
    backends.register("up", toy_backend)
    assert backends.probe("up").builds == "it only runs models"
    with pytest.raises(BuildError, match="--backend up: it builds nothing"):
        backends.builder("up")
    with pytest.raises(BuildError, match="nothing that could be opened"):
        backends.opener("up")
    with pytest.raises(ConfigError, match=r"'tensorrt' cannot run a model here: .*driver"):
        backends.load("tensorrt", None, None, None)


def test_an_unknown_name_lists_those_that_are_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (
        "did you mean onnxruntime.*there are native, null, onnxruntime, onnxruntime-cuda, ref"
        ".*'tickrt.backends'"
    )
    with pytest.raises(ConfigError, match=words):
        backends.find("onxruntime")
    session = tmp_path / "session.toml"
    session.write_text('data = ["a.npz"]\nbackend = "tpu"\n')
    with pytest.raises(ConfigError, match=r"session.toml: \$\.backend: unknown backend 'tpu'"):
        load_config(session)
    for command in (["run", "--data", "a.npz"], ["build", "seed_lstm", "-o", str(tmp_path / "b")]):
        assert main([*command, "--backend", "tpu"]) != 0
        assert "unknown backend 'tpu'" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("where", ["no_such_module_here", "helpers.toy_backend:Nobody"])
def test_one_that_cannot_be_imported(where: str) -> None:
    backends.register("broken", where)
    with pytest.raises(ConfigError, match=f"backend 'broken': {where} cannot be imported"):
        backends.find("broken")


@pytest.mark.parametrize("name", ["", "auto"])
def test_names_that_are_taken(name: str) -> None:
    with pytest.raises(ConfigError, match="a name of its own"):
        backends.register(name, toy_backend)


def test_options_that_a_backend_does_not_heed_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments: list[Any] = ["build", "seed_lstm", "-o", tmp_path / "b", "--refit"]
    assert main([*map(str, arguments), "--backend", "onnxruntime"]) != 0
    assert "--refit: --backend onnxruntime has no use for it" in " ".join(
        capsys.readouterr().err.split()
    )


class ToyBuilder(OnnxBuilder):
    """Engines in a format of its own."""

    backend = library = format = "toy"  # type: ignore[assignment]
    suffix = "toy"
    version = "1"  # type: ignore[assignment]
    options = ("level",)  # type: ignore[assignment]

    def build(self, order: EngineOrder, progress: Phase | None) -> MadeEngine:
        made = super().build(order, progress)
        return replace(made, data=bytes([order.level or 0]) + made.data)

    def check(self, data: bytes) -> tuple[str, str]:
        return super().check(data[1:])

    def runner(self, data: bytes) -> Run:
        return super().runner(data[1:])


def load_toy(source: Source, ring: RowRing, settings: SessionConfig) -> OrtEngine:
    """What `ToyBuilder` built, in the loop."""
    assert source.model.format == "toy"
    return OrtEngine(replace(source.model, content=source.model.content[1:]), ring)


def test_a_bundle_of_a_format_of_its_own_runs_in_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("toy", "helpers.nowhere", tmp_path, monkeypatch)
    parts = {"builder": lambda targets: ToyBuilder(), "opener": ToyBuilder, "load": load_toy}
    backends.register("toy", SimpleNamespace(**parts))
    model, out = tmp_path / "tiny.onnx", tmp_path / "tiny.bundle"
    data = market_file(tmp_path / "m.npz", 60)
    one = settings(tmp_path, model=str(model))
    tiny_model(load_spec(str(one.spec)), model)
    assert main(["build", str(model), "-o", str(out), "--backend", "toy", "--no-split"]) == 0
    bundled = settings(tmp_path, model=str(out))
    signals = []
    for chosen, backend in ((one, "onnxruntime"), (bundled, "toy")):
        session = config(tmp_path, data, chosen, backend=backend, split=False, allow_unsigned=True)
        with Session(session) as running:
            running.run()
            signals.append(running.signals()["p_up"].tolist())
    assert signals[0] == signals[1]
    assert len(signals[0]) > 0
    with pytest.raises(IncompatibleError, match=r"built by the backend 'toy': run it with .*toy"):
        Session(config(tmp_path, data, bundled, allow_unsigned=True))


def test_a_registered_one_builds_and_its_bundle_is_opened_by_it(tmp_path: Path) -> None:
    backend = SimpleNamespace(builder=lambda targets: ToyBuilder(), opener=ToyBuilder)
    backends.register("toy", backend)
    model, out = tmp_path / "mlp.onnx", tmp_path / "mlp.bundle"
    onnx.save(ZOO["mlp"](), model)
    assert main(["build", str(model), "-o", str(out), "--backend", "toy", *LEVEL]) == 0
    facts = describe(out)
    assert facts["manifest"]["builder"]["library"] == "toy"
    assert facts["manifest"]["parity"]["status"] == "passed"
    assert {engine["format"] for engine in facts["manifest"]["engines"]} == {"toy"}
    results = {check.what: check.result for check in verify(out, allow_unsigned=True)}
    engines = [result for what, result in results.items() if what.startswith("engine ")]
    assert engines
    assert set(engines) == {"ok"}
    assert results["compatible with this machine"] == "no"  # no library of that name is installed
    with open_bundle(out, allow_unsigned=True) as bundle:
        assert bundle.payload(facts["payloads"][0]["name"])[0] == 3
    del backends._known["toy"]
    checks = {check.what: check for check in verify(out, allow_unsigned=True)}
    unknown = next(check for what, check in checks.items() if what.startswith("engine "))
    assert unknown.result == "not checked"
    assert "unknown backend 'toy'" in unknown.why
