"""The spec file: what it accepts, every error and its path, and the canonical hash."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tickrt.errors import SpecError
from tickrt.feature.spec import load_spec, parse_spec, shipped_specs

GOOD: dict[str, Any] = {
    "format": 1,
    "name": "x",
    "window": 10,
    "row_on": "depth",
    "clip": 5.0,
    "columns": [
        {"kind": "levels", "depth": 2, "unit": 10.0},
        {"kind": "order_flow", "depth": 2, "scale": "log"},
        {"kind": "returns", "lags": [1, 5]},
        {"kind": "spread"},
    ],
    "normalisation": {"mean": [0.0] * 13, "std": [1.0] * 13},
}


def test_a_good_spec() -> None:
    spec = parse_spec(GOOD)
    assert spec.width == len(spec.names) == 13
    assert spec.names[:3] == ("bid_distance_1", "bid_distance_2", "bid_log_quantity_1")
    assert spec.names[-3:] == ("return_1", "return_5", "spread")
    assert (spec.depth, spec.window, spec.row_on, spec.clip) == (2, 10, "depth", 5.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.window = 3  # type: ignore[misc]


def test_the_shipped_specs() -> None:
    assert {"l2_100x100", "light"} <= set(shipped_specs())
    reference, light = load_spec("l2_100x100"), load_spec("light")
    assert (reference.width, reference.window, reference.row_on) == (402, 100, "batch")
    assert (reference.depth, light.depth) == (100, 10)
    assert reference.hash != light.hash
    assert load_spec(reference.path).hash == reference.hash


def test_the_hash_is_pinned() -> None:
    expected = "df1eb70e6f5bbe14a49c730b7bf2ec9036f5442c1faf5d82bd0a7c2061384f51"
    assert parse_spec(GOOD).hash == expected


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("window",), 11),
        (("row_on",), "batch"),
        (("clip",), 6.0),
        (("columns", 0, "depth"), None),
        (("columns", 0, "unit"), 1.0),
        (("columns", 1, "scale"), "raw"),
        (("columns", 2, "lags"), [1, 6]),
        (("normalisation", "mean", 3), 0.5),
        (("normalisation", "std", 3), 0.5),
    ],
)
def test_whatever_changes_a_row_changes_the_hash(path: tuple, value: Any) -> None:
    other = changed(path, value)
    if value is None:  # another depth needs another normalisation
        other = {**copy.deepcopy(GOOD)}
        other["columns"][0]["depth"] = 3
        other["normalisation"] = {"mean": [0.0] * 17, "std": [1.0] * 17}
    assert parse_spec(other).hash != parse_spec(GOOD).hash


def test_the_name_and_defaults_do_not_change_the_hash() -> None:
    plain = changed(("name",), "y")
    del plain["normalisation"]
    plain["columns"][2]["lags"] = [1, 5]
    plain["columns"][0]["unit"] = 10
    assert parse_spec(plain).hash == parse_spec(GOOD).hash


def changed(path: tuple, value: Any) -> dict[str, Any]:
    document = copy.deepcopy(GOOD)
    place: Any = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("format",), 2, "$.format: expected 1, got 2"),
        (("name",), "", "$.name: expected a name, got ''"),
        (("window",), 0, "$.window: expected 1…10000, got 0"),
        (("window",), True, "$.window: expected 1…10000, got True"),
        (("window",), "ten", "$.window: expected 1…10000, got 'ten'"),
        (("row_on",), "tick", '$.row_on: expected "batch" or "depth", got \'tick\''),
        (("clip",), 0.0, "$.clip: expected a number above 0, got 0.0"),
        (("clip",), float("nan"), "$.clip: expected a number above 0, got nan"),
        (("columns",), [], "$.columns: expected one or more [[columns]] tables, got []"),
        (("columns", 0), 5, "$.columns[0]: expected a table, got 5"),
        (("columns", 0, "kind"), "lvl", "$.columns[0].kind: expected one of levels, volume"),
        (("columns", 0, "depth"), 250, "$.columns[0].depth: expected 1…100, got 250"),
        (("columns", 0, "depth"), None, "$.columns[0].depth: expected 1…100, got None"),
        (("columns", 0, "unit"), -1, "$.columns[0].unit: expected a number above 0, got -1"),
        (("columns", 1, "depth"), 11, "$.columns[1].depth: expected 1…10, got 11"),
        (("columns", 1, "scale"), "ln", '$.columns[1].scale: expected "raw" or "log"'),
        (("columns", 2, "lags"), [], "$.columns[2].lags: expected 1…32 lags in rows, got []"),
        (("columns", 2, "lags"), [1, 9999], "$.columns[2].lags[1]: expected 1…4096, got 9999"),
        (("columns", 2, "lags"), [5, 5], "$.columns: two columns are called 'return_5'"),
        (("columns", 3, "depth"), 1, "$.columns[3].depth: unknown; known: kind"),
        (("column",), [], "$.column: unknown; known: "),
        (("normalisation",), 3, "$.normalisation: expected a table, got 3"),
        (("normalisation", "median"), [], "$.normalisation.median: unknown; known: mean, std"),
        (("normalisation", "mean"), [0.0] * 12, "mean: expected 13 numbers, got 12"),
        (("normalisation", "std"), None, "$.normalisation.std: expected 13 numbers, got None"),
        (("normalisation", "std", 4), 0.0, "$.normalisation.std[4]: expected a number above 0"),
        (("normalisation", "mean", 4), "x", "$.normalisation.mean[4]: expected a finite number"),
    ],
)
def test_errors_say_where(path: tuple, value: Any, message: str) -> None:
    with pytest.raises(SpecError) as error:
        parse_spec(changed(path, value))
    assert message in str(error.value)


def test_too_wide() -> None:
    document = {k: v for k, v in GOOD.items() if k != "normalisation"}
    document["columns"] = [{"kind": "levels", "depth": 100}] * 11
    with pytest.raises(SpecError, match=r"\$\.columns: expected at most 4096 numbers, got 4400"):
        parse_spec(document)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"format = = 1", "not a TOML file"),
        (b"\xff\xfe\x00", "not a TOML file"),
        (b"format = 1\nname = 'x'\nwindow = 3\n", r"\$\.columns"),
        (b"", r"\$\.format"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "spec.toml"
    path.write_bytes(text)
    with pytest.raises(SpecError, match=rf"spec\.toml: .*{message}"):
        load_spec(path)


@pytest.mark.parametrize("name", ["nothing", "nothing.toml", "a/b"])
def test_unknown_names_list_the_shipped_specs(name: str) -> None:
    with pytest.raises(SpecError, match=r"no such spec file.*shipped: l2_100x100, light"):
        load_spec(name)
