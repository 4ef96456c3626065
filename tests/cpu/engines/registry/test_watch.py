"""The nightly pipeline: good models arrive in the registry, broken ones in quarantine."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import onnx
import pytest

from helpers.engine_zoo import ZOO
from tickrt.engines.registry import watch as watch_module
from tickrt.engines.registry.registry import Registry
from tickrt.engines.registry.watch import Outcome, Pipeline


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "models"
    path.mkdir()
    return path


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry", allow_unsigned=True, create=True)


OPTIONS = ("--backend", "onnxruntime")


def test_good_and_broken_models(folder: Path, registry: Registry) -> None:
    onnx.save(ZOO["mlp"](), folder / "good.onnx")
    (folder / "broken.onnx").write_bytes(b"\x08\x09 not a model")
    (folder / "notes.txt").write_text("left alone")
    pipeline = Pipeline(folder, registry, OPTIONS)
    assert pipeline.run_once() == []  # first look: are they still being written?
    outcomes = {outcome.model.name: outcome for outcome in pipeline.run_once()}
    assert outcomes["good.onnx"].error == ""
    assert registry.channels() == {"canary": outcomes["good.onnx"].digest}
    assert "broken.onnx" in outcomes["broken.onnx"].error
    quarantined = sorted(path.name for path in (folder / "quarantine").iterdir())
    sha = outcomes["broken.onnx"].sha256[:12]
    assert quarantined == [f"broken-{sha}.error.txt", f"broken-{sha}.onnx"]
    assert "not a readable ONNX" in (folder / "quarantine" / quarantined[0]).read_text()
    assert (folder / "good.onnx").is_file()
    assert (folder / "notes.txt").is_file()
    assert registry.history("canary")[0].note == "rebuild of good.onnx"
    # Done is done: a new pipeline does not build it again.
    assert Pipeline(folder, registry, OPTIONS).run_once(wait=True) == []


def test_quarantined_model_that_is_put_back_is_tried_again(
    folder: Path, registry: Registry
) -> None:
    (folder / "bad.onnx").write_bytes(b"bad")
    pipeline = Pipeline(folder, registry, OPTIONS)
    assert pipeline.run_once(wait=True)[0].error
    assert pipeline.run_once(wait=True) == []
    (folder / "bad.onnx").write_bytes(b"bad")
    assert pipeline.run_once(wait=True)[0].error


def test_a_file_that_still_grows_is_left(folder: Path, registry: Registry) -> None:
    data = ZOO["mlp"]().SerializeToString()
    path = folder / "slow.onnx"
    path.write_bytes(data[:100])
    pipeline = Pipeline(folder, registry, OPTIONS)
    assert pipeline.run_once() == []
    path.write_bytes(data)
    assert pipeline.run_once() == []
    (outcome,) = pipeline.run_once()
    assert outcome.digest


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "died of signal 11"),
        ("import time; time.sleep(60)", "was killed"),
        ("import sys; sys.exit(3)", "exit status 3"),
        ("import sys; print('no such layer', file=sys.stderr); sys.exit(2)", "no such layer"),
        ("pass", "exit status 0"),
    ],
)
def test_however_a_build_ends_the_pipeline_goes_on(
    folder: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch, code: str, words: str
) -> None:
    monkeypatch.setattr(watch_module, "_CHILD", code)
    onnx.save(ZOO["mlp"](), folder / "m.onnx")
    pipeline = Pipeline(folder, registry, OPTIONS, timeout_s=1.0 if "sleep" in code else 60.0)
    (outcome,) = pipeline.run_once(wait=True)
    assert words in outcome.error
    assert registry.items() == []
    assert not (folder / "m.onnx").exists()
    monkeypatch.undo()
    pipeline.timeout_s = 60.0
    onnx.save(ZOO["logistic"](), folder / "next.onnx")
    (good,) = pipeline.run_once(wait=True)
    assert good.digest


def test_the_build_runs_at_low_priority(
    folder: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    show = watch_module._CHILD.split(";")[0:2]
    tail = " import os; print(os.nice(0), file=sys.stderr); sys.exit(1)"
    monkeypatch.setattr(watch_module, "_CHILD", ";".join([*show, tail]))
    onnx.save(ZOO["mlp"](), folder / "m.onnx")
    (outcome,) = Pipeline(folder, registry).run_once(wait=True)
    assert int(outcome.error) >= min(19, os.nice(0) + 15)


def test_watch_stops_when_told(folder: Path, registry: Registry) -> None:
    onnx.save(ZOO["logistic"](), folder / "m.onnx")
    stop = threading.Event()
    seen: list[Outcome] = []

    def report(outcome: Outcome) -> None:
        seen.append(outcome)
        stop.set()

    Pipeline(folder, registry, OPTIONS).watch(report, stop.is_set, every_s=0.01)
    assert [outcome.model.name for outcome in seen] == ["m.onnx"]
    state = json.loads((folder / ".tickrt" / "built.json").read_text())
    assert state == {seen[0].sha256: seen[0].digest}
