"""``tickrt data rows`` and ``tickrt spec``: what a model sees, as files and as tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from helpers.commands import Result
from tickrt.feature.rows import features
from tickrt.feature.spec import load_spec

Tickrt = Callable[..., Result]


def test_rows_as_npz_and_parquet_are_the_loops(
    tickrt: Tickrt, session: Path, tmp_path: Path
) -> None:
    spec = load_spec(session / "tiny4.toml")
    expected = features(session / "btc.npz", spec, horizon_ns=100_000_000)
    given = ["data", "rows", session / "btc.npz", "--spec", session / "tiny4.toml"]
    facts = tickrt(*given, "-o", tmp_path / "r.npz", "--json").json()
    assert facts["rows"] == len(expected.rows) == 300
    assert facts["feature_hash"] == spec.hash
    assert sum(facts["labels"].values()) == facts["samples"]
    with np.load(tmp_path / "r.npz") as file:
        assert list(file["names"]) == list(spec.names)
        assert str(file["feature_hash"]) == spec.hash
        np.testing.assert_array_equal(file["label"], expected.labels)
        for name in ("rows", "times_ns", "mid", "complete"):
            np.testing.assert_array_equal(file[name], getattr(expected, name))
    assert tickrt(*given, "-o", tmp_path / "r.parquet", "--horizon-ms", 100).code == 0
    table = parquet.read_table(tmp_path / "r.parquet")
    assert table.equals(expected.to_arrow(), check_metadata=True)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--spec", "light", "-o", "rows.csv"], ".parquet or .npz"),
        (["-o", "rows.npz"], "--spec"),
        (["--spec", "nowhere.toml", "-o", "rows.npz"], "nowhere.toml"),
    ],
)
def test_rows_refuse(tickrt: Tickrt, session: Path, more: list[str], said: str) -> None:
    result = tickrt("data", "rows", session / "btc.npz", *more)
    assert result.code == 2
    assert said in result.err


def test_hash_is_the_specs(tickrt: Tickrt, session: Path) -> None:
    for name in ("light", session / "tiny4.toml"):
        assert tickrt("spec", "hash", name).out.strip() == load_spec(name).hash
        assert tickrt("spec", "hash", name, "--json").json()["hash"] == load_spec(name).hash


def test_show_names_every_number_of_a_row(tickrt: Tickrt) -> None:
    spec = load_spec("light")
    facts = tickrt("spec", "show", "light", "--json").json()
    assert [name for group in facts["columns"] for name in group["names"]] == list(spec.names)
    assert [g["first"] for g in facts["columns"]] == np.cumsum(
        [0, *(g["numbers"] for g in facts["columns"][:-1])]
    ).tolist()
    assert (facts["width"], facts["window"]) == (spec.width, spec.window)
    text = tickrt("spec", "show", "light").out
    assert spec.hash in text
    assert "microprice" in text
