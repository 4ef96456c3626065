"""``tickrt bench engine``: what it prints, what it skips, what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.commands import Result
from tickrt import backends
from tickrt.cli.bench_engine import print_engines

Tickrt = Callable[..., Result]
BACKENDS = "onnxruntime,tensorrt,torch_cuda_graph"


def test_help_names_its_options(tickrt: Tickrt) -> None:
    out = tickrt("bench", "engine", "--help").out
    assert all(option in out for option in ("--backends", "--seconds", "--gap", "--json"))
    assert "engine" in tickrt("bench", "--help").out


def test_json_holds_every_engine_of_every_model(tickrt: Tickrt, session: Path) -> None:
    model = session / "tiny.onnx"
    facts = tickrt(
        "bench",
        "engine",
        model,
        "mlp",
        "--backends",
        BACKENDS,
        "--seconds",
        0,
        "--gap",
        5,
        "--json",
    ).json()
    assert facts["gap_us"] == 5
    assert facts["machine"]["cpu"]
    assert [result["model"] for result in facts["results"]] == [str(model), "mlp"]
    for result in facts["results"]:
        engines = {entry["engine"]: entry for entry in result["engines"]}
        floors = ["null", "echo", "empty launch", "empty graph"]
        assert list(engines)[:6] == [*floors, "onnxruntime whole", "onnxruntime split"]
        whole = engines["onnxruntime whole"]
        assert set(whole["on_path_us"]) == {"p50", "p99", "p999", "max"}
        assert whole["parity"]["max_error"] < 1e-6
        assert whole["where"] == facts["machine"]["cpu"]
        assert all(engines[name]["skipped"] for name in ("tensorrt", "torch_cuda_graph"))


def test_the_table_says_why_something_was_skipped(tickrt: Tickrt, session: Path) -> None:
    done = tickrt("bench", "engine", session / "tiny.onnx", "-b", BACKENDS, "--seconds", 0)
    assert done.code == 0
    assert "onnxruntime whole" in done.out
    assert "torch_cuda_graph: skipped:" in done.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], ["shipped: light_lstm, seed_lstm", "reference models: lstm-s"]),
        (["mlp", "nowhere.onnx"], ["nowhere.onnx: no such ONNX file"]),
        (["mlp", "--backends", "nativ"], ["did you mean native?", "onnxruntime_cuda"]),
        (["mlp", "--backends", "native,"], ["unknown backend ''"]),
    ],
)
def test_unknown_names_say_what_there_is(
    tickrt: Tickrt, arguments: list[str], words: list[str]
) -> None:
    done = tickrt("bench", "engine", *arguments)
    assert done.code == 2
    assert done.out == ""
    assert all(word in done.err for word in words)


def test_a_backend_of_ones_own_stands_beside_ours(
    tickrt: Tickrt, session: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer is always the same, so its error is plain to see."""
    monkeypatch.setitem(backends._known, "up", "helpers.toy_backend")
    asked = ("bench", "engine", session / "tiny.onnx", "-b", "up", "--seconds", 0)
    engines = tickrt(*asked, "--json").json()["results"][0]["engines"]
    (mine,) = (entry for entry in engines if entry["engine"] == "up")
    assert mine["parity"]["max_error"] > 0.01
    assert f"{mine['parity']['max_error']:.0e}" in tickrt(*asked).out


def test_broken_engines_are_named_in_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    entry = {"engine": "mine", "where": "a CPU", "answers": 9, "counted": 0}
    broken = {"failed": "row 7: ENGINE_FAILED", "parity": {"max_error": None, "not_finite": 9}}
    results = [{"model": "mlp", "engines": [entry | broken]}]
    print_engines({"gap_us": 1.0, "results": results})
    out = capsys.readouterr().out
    assert "9 not finite" in out
    assert "mine: failed: row 7: ENGINE_FAILED" in out
