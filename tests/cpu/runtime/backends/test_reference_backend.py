"""The `reference` backend: a model as a program in a host process, from command to order."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from helpers.engine_bench import Bench, await_poll, do_advance, do_submit, outputs
from helpers.engine_zoo import ZOO, F, T
from helpers.sessions import (
    config,
    from_memory,
    market_file,
    settings,
    tiny_model,
    tiny_spec,
)
from tickrt import backends
from tickrt.cli import main
from tickrt.config import SessionConfig
from tickrt.engines.build.build import BuildRequest, build, write_built
from tickrt.engines.build.runnable import runnable
from tickrt.engines.bundle.crypto import load_aes_key, load_private_key, new_keys
from tickrt.engines.bundle.format import open_bundle, write_bundle
from tickrt.engines.graph.check import read_model
from tickrt.engines.translate import stream_program
from tickrt.errors import Code, ConfigError, IncompatibleError, TamperedError
from tickrt.program import to_bytes
from tickrt.runtime.backends import reference
from tickrt.runtime.backends.handle import RowRing
from tickrt.runtime.backends.mailbox.engine import MailboxEngine
from tickrt.runtime.backends.mailbox.parcel import bundle_parcel
from tickrt.runtime.model_source import Source
from tickrt.runtime.session import Session


@pytest.fixture(autouse=True)
def window(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bench's ring holds as many rows as the models' windows."""
    monkeypatch.setattr("helpers.engine_bench.T", T)


def as_the_model(bench: Bench, path: Path) -> None:
    """Every row of a stream, with a reset in it, answered as ONNX Runtime answers its window."""
    whole = onnxruntime.InferenceSession(str(path))
    rows = np.random.default_rng(5).normal(size=(30, F)).astype(np.float32)
    for seq in range(1, 31):
        bench.write(seq, rows[seq - 1])
        if seq >= T:
            assert do_submit(bench.table, seq) == Code.OK
            assert await_poll(bench.table, seq) == Code.OK
            (want,) = whole.run(None, {"rows": rows[None, seq - T : seq]})
            np.testing.assert_allclose(outputs(bench.table), want[0], atol=1e-5)
        assert do_advance(bench.table, seq) == Code.OK


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("name", ["lstm", "mlp"])
def test_it_answers_as_the_model_does(name: str, split: bool, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(ZOO[name](), path)
    source = Source(read_model(path), path, "")
    made = SessionConfig(data=(path,), backend="reference", split=split)
    bench = Bench(lambda ring: backends.load("reference", source, ring, made), F)
    as_the_model(bench, path)
    facts = bench.engine.describe()
    assert (facts["backend"], facts["row_memory"]) == ("reference", "memfd")
    assert bench.engine.error() == ""
    bench.engine.close()


def program_bundle(folder: Path, sealed: bool, name: str = "mlp") -> tuple[Source, SessionConfig]:
    """A bundle whose one engine is a program, signed, perhaps encrypted."""
    path, out = folder / "m.onnx", folder / "m.bundle"
    onnx.save(ZOO[name](), path)
    keys = new_keys(folder / "k")
    aes, sign = load_aes_key(str(keys["aes"])), load_private_key(str(keys["private"]))
    write_built(build(BuildRequest(path, backend="onnxruntime", split=False, embed=False)), out)
    with open_bundle(out, allow_unsigned=True) as bundle:
        (engine,) = bundle.manifest.engines
        full = engine.model_copy(update={"format": "program"})
        manifest = bundle.manifest.model_copy(update={"engines": (full,)})
    program = to_bytes(stream_program(read_model(path), None))
    write_bundle(out, manifest, {full.payload: program}, aes if sealed else None, sign)
    made = SessionConfig(
        data=(path,),
        backend="reference",
        trust=(str(keys["public"]),),
        bundle_key=str(keys["aes"]) if sealed else None,
    )
    with open_bundle(out, [sign.public], aes) as bundle:
        model, plan = runnable(bundle)
        return Source(model, out, bundle.digest, built=True, plan=plan), made


@pytest.mark.parametrize("sealed", [False, True])
def test_a_signed_bundle_is_verified_on_both_sides(sealed: bool, tmp_path: Path) -> None:
    source, made = program_bundle(tmp_path, sealed)
    bench = Bench(lambda ring: backends.load("reference", source, ring, made), F)
    as_the_model(bench, tmp_path / "m.onnx")
    bench.engine.close()


def test_a_bundle_that_was_replaced_meanwhile_is_refused(tmp_path: Path) -> None:
    source, made = program_bundle(tmp_path, False)
    (tmp_path / "other").mkdir()
    other, _ = program_bundle(tmp_path / "other", False, "lstm")
    shutil.copy(other.path, source.path)
    with pytest.raises(TamperedError):
        bundle_parcel(source, made)
    unsigned = made.model_copy(update={"trust": (), "allow_unsigned": True})
    with pytest.raises(TamperedError, match="was replaced while it was being loaded"):
        bundle_parcel(source, unsigned)


def test_engines_of_another_backend_are_refused(tmp_path: Path) -> None:
    source, made = program_bundle(tmp_path, False)
    with pytest.raises(IncompatibleError, match=r"'program'.*--backend onnxruntime"):
        backends.load("onnxruntime", source, None, made)


def run_both(folder: Path, **changes: Any) -> list[bytes]:
    """The intents of one session under ONNX Runtime and under the reference."""
    data = market_file(folder / "m.npz", 120)
    intents = []
    for backend in ("onnxruntime", "reference"):
        made = config(folder, data, backend=backend, deadline_us=1e7, **changes)
        with Session(made) as session:
            report = session.run()
            table = session.intents()
            table["signal"] = 0.0
            intents.append(table.tobytes())
            assert report.orders > 0
            assert report.engine.backend == backend
    return intents


@pytest.mark.parametrize("split", [True, False])
def test_a_session_decides_the_same(split: bool, tmp_path: Path) -> None:
    first, second = run_both(tmp_path, split=split)
    assert first == second


def test_the_command_runs_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = settings(tmp_path)
    data = market_file(tmp_path / "m.npz", 60)
    command = ["run", "--data", str(data), "--model", one.model, "--spec", str(one.spec)]
    command += ["--backend", "reference", "--deadline-us", "1e7", "--json"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["engine"]["backend"] == "reference"
    assert report["faults"] == 0
    assert main([*command, "--out", str(tmp_path / "o2"), "--engine-python", "/no/python"]) != 0
    assert "engine_python: /no/python: No such file" in " ".join(capsys.readouterr().err.split())


def test_a_host_that_dies_sends_its_strategy_to_the_fallback(tmp_path: Path) -> None:
    data = market_file(tmp_path / "m.npz", 60)
    made = config(tmp_path, data, backend="reference", deadline_us=1e7)
    with from_memory(made) as session:
        (engine,) = session.assembly.engines
        assert isinstance(engine, MailboxEngine)
        os.kill(engine.host.pid, signal.SIGKILL)
        report = session.run()
        codes = set(session.signals()["code"].tolist())
    assert Code.ENGINE_FAILED in codes
    assert report.faults > 0
    assert any("ENGINE_FAILED: its host was ended by signal 9" in note for note in report.notes)


def test_a_session_that_cannot_be_made_leaves_no_host_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of two engines is there when the second cannot be had."""
    made: list[MailboxEngine] = []

    def load(source: Source, ring: RowRing, given: SessionConfig) -> MailboxEngine:
        if made:
            raise ConfigError("no second one")
        made.append(reference.load(source, ring, given))  # type: ignore[arg-type]
        return made[0]

    monkeypatch.setattr(backends, "_known", dict(backends._known))
    backends.register("one", SimpleNamespace(load=load))
    first = settings(tmp_path, name="a")
    tiny_model(tiny_spec(tmp_path, 4), tmp_path / "other.onnx", seed=2)
    second = settings(tmp_path, name="b", model=str(tmp_path / "other.onnx"))
    data = market_file(tmp_path / "m.npz", 30)
    with pytest.raises(ConfigError, match="no second one"):
        Session(config(tmp_path, data, first, second, backend="one"))
    assert made[0].host.why == "was closed"


def test_an_interpreter_that_is_none_is_refused_by_its_setting(tmp_path: Path) -> None:
    data = market_file(tmp_path / "m.npz", 30)
    made = config(tmp_path, data, backend="reference", engine_python="/no/such/python")
    with pytest.raises(ConfigError, match="engine_python: /no/such/python"):
        Session(made)


def test_an_interpreter_that_nothing_needs_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = market_file(tmp_path / "m.npz", 30)
    given = {"engine_python": sys.executable}
    Session(config(tmp_path, data, backend="reference", **given)).close()
    assert "engine_python" not in caplog.text
    Session(config(tmp_path, data, backend="onnxruntime", **given)).close()
    words = "is not used: the onnxruntime backend runs models in this process"
    assert f"engine_python = {sys.executable} {words}" in caplog.text
