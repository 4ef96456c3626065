"""The estimate of a resident kernel's cost, against what was measured on a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tickrt.engines.graph.check import loop_model
from tickrt.engines.resident.estimate import estimate
from tickrt.engines.split.plan import plan
from tickrt.engines.translate import TranslateError, stream_program
from tickrt.models.architectures.zoo import make
from tickrt.program import StreamProgram

RESULTS = Path(__file__).parents[4] / "benchmarks" / "results" / "resident.json"


def translated(name: str) -> StreamProgram:
    model = loop_model(make(name).SerializeToString(), name)
    split = plan(model)
    return stream_program(model, split if split.usable else None)


def measured() -> dict[str, float]:
    results = json.loads(RESULTS.read_text())["results"]
    return {
        r["model"]: r["gap_50_us"]["p50"]
        for r in results
        if r["memory"] == "vulkan" and not r["model"].startswith("echo") and "gap_50_us" in r
    }


@pytest.mark.parametrize("name", sorted(measured()))
def test_it_is_within_a_quarter_of_what_was_measured(name: str) -> None:
    assert estimate(translated(name)).on_path_us == pytest.approx(measured()[name], rel=0.25)


def test_parts_add_up() -> None:
    found = estimate(translated("lstm-s"), blocks=4)
    assert found.blocks == 4
    assert [part.where for part in found.parts] == ["4 blocks", "4 blocks", "one warp"]
    assert found.cycles == sum(part.cycles for part in found.parts)
    assert found.on_path_us > found.floor_us


def test_a_model_that_cannot_run_there_says_why() -> None:
    model = loop_model(make("mlp").SerializeToString(), "mlp")
    with pytest.raises(TranslateError, match="only split models"):
        estimate(stream_program(model, None))


def test_what_does_not_fit_has_no_price() -> None:
    with pytest.raises(TranslateError, match="shared memory"):
        estimate(translated("lstm-seed"), blocks=1)
