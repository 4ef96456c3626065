"""What is documented is what is written: the pages are up to date, and real reports match them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from helpers.reports import make_report
from helpers.sessions import config, market_file
from tickrt.backtest.latency import InferenceLatency
from tickrt.backtest.run import run_backtest
from tickrt.report.report import load_report, to_json, write_report
from tickrt.report.schema import main
from tickrt.runtime.report_types import Report
from tickrt.runtime.session import Session

DOCS = Path(__file__).resolve().parents[3] / "docs"


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = json.loads((DOCS / "report.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def check_written(report: Report, folder: Path, validator: Any) -> dict[str, Any]:
    """The file that `report` becomes, which the schema and `load_report` accept."""
    path, _ = write_report(report, folder)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    validator.validate(found)
    assert to_json(load_report(path)) == found
    return found


@pytest.mark.parametrize("name", ["report.md", "report.schema.json"])
def test_the_pages_are_up_to_date(tmp_path: Path, name: str) -> None:
    main(str(tmp_path))
    made, kept = ((folder / name).read_text(encoding="utf-8") for folder in (tmp_path, DOCS))
    assert made == kept, "write them anew with: python -m tickrt.report.schema"


def test_every_field_is_described_and_every_number_has_a_unit() -> None:
    lines = (DOCS / "report.md").read_text(encoding="utf-8").splitlines()
    rows = [line.split(" | ") for line in lines if line.startswith(("| `", "| *`"))]
    assert len(rows) > 100
    for path, kind, unit, meaning in rows:
        assert meaning.strip(" |"), path
        assert unit or ("number" not in kind and "integer" not in kind), path


def test_a_runs_report_is_as_documented(tmp_path: Path, validator: Any) -> None:
    with Session(config(tmp_path, market_file(tmp_path / "m.npz", 200))) as session:
        report = session.run()
    found = check_written(report, tmp_path / "out", validator)
    assert found["orders"] > 0
    assert (found["lost_records"], found["lost_records_by_kind"]) == (0, {})
    assert found["interrupted"] is None
    assert set(found["floor"]) == {"clock_read", "spin"}
    assert "backtest" not in found


def test_a_backtests_report_is_as_documented(tmp_path: Path, validator: Any) -> None:
    session = config(tmp_path, market_file(tmp_path / "m.npz", 200))
    report = run_backtest(session, latency=InferenceLatency.constant(30_000))
    found = check_written(report, tmp_path / "out", validator)
    assert found["backtest"]["inference_latency_us"] == {"p50": 30.0, "p99": 30.0}
    assert "floor" not in found
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for assumed in ("Charged 30 µs for each inference.", "An order takes 2 ms to the venue"):
        assert assumed in page


def test_lost_records_are_counted_in_the_report(
    tmp_path: Path, validator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tickrt.runtime.assembly.RECORDS", 16)
    live = config(tmp_path, market_file(tmp_path / "m.npz", 400), pace=100_000.0)  # never waits
    with Session(live) as session:
        report = session.run()
    found = check_written(report, tmp_path / "out", validator)
    assert found["lost_records"] == sum(found["lost_records_by_kind"].values()) > 0


@pytest.mark.parametrize(
    "change",
    [{"mood": 1}, {"orders": "7"}, {"kind": "walk"}, {"schema": 1}, {"modes": {"taker": "asleep"}}],
)
def test_the_schema_refuses_what_is_not_documented(validator: Any, change: dict[str, Any]) -> None:
    report = to_json(make_report())
    validator.validate(report)
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(report | change)
