"""Backends by name: the built-in ones, one that is registered, one that is installed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers import toy_backend
from helpers.sessions import config, market_file
from tickrt import backends
from tickrt.cli import main
from tickrt.config import load_config
from tickrt.errors import BuildError, ConfigError
from tickrt.runtime.session import Session

BUILT_IN = ["tensorrt", "tensorrt_rtx", "onnxruntime", "null"]


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
    assert (probe.runs == "") == (name in ("onnxruntime", "null"))
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


def test_an_installed_one_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = tmp_path / "up-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: up\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[tickrt.backends]\nup = helpers.toy_backend\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert backends.names() == [*BUILT_IN, "up"]
    assert backends.find("up") is toy_backend


def test_what_it_lacks_it_cannot_do() -> None:
    backends.register("up", toy_backend)
    assert backends.probe("up").builds == "it only runs models"
    with pytest.raises(BuildError, match="--backend up: it builds nothing"):
        backends.builder("up")
    with pytest.raises(BuildError, match="nothing that could be opened"):
        backends.opener("up")
    with pytest.raises(ConfigError, match=r"'tensorrt' cannot run a model here: .*ONNX"):
        backends.load("tensorrt", None, None, None)


def test_an_unknown_name_lists_those_that_are_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "did you mean onnxruntime.*there are null, onnxruntime, tensorrt.*'tickrt.backends'"
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
