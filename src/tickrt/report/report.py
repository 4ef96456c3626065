"""A report as files: `report.json`, and a page to look at.

Entry points: `write_report(report, folder)` writes `report.json` and `report.html`;
`load_report(path)` reads and checks one; `to_json(report)` and `plain(value)` make JSON's types;
`table.print_report` prints it. What is in it: `runtime.report_types`, `docs/report.md`.

Invariants: `report.json` is strict JSON (NaN and infinity become null), written atomically, and
matches `docs/report.schema.json`; a file that does not match is refused with the path of what is
wrong in it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from tickrt.errors import DataError
from tickrt.files import write_file
from tickrt.report.html import render_html
from tickrt.runtime.report_types import SCHEMA, Report

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = ["SCHEMA", "load_report", "plain", "to_json", "write_report"]

_WORDS = {
    "a valid integer": "an integer",
    "a valid array": "a list",
    "a valid ": "a ",
}  # pydantic's


def plain(value: Any) -> Any:
    """`value` with only JSON's types: numpy becomes Python, NaN and infinity become None.

    A dataclass becomes a dict; fields that are at their default of None are left out.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = [(field, getattr(value, field.name)) for field in dataclasses.fields(value)]
        return {f.name: plain(v) for f, v in items if not (v is None and f.default is None)}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, bool) or value is None or isinstance(value, (int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)


def to_json(report: Report) -> dict[str, Any]:
    """The report as `report.json` has it."""
    return cast(dict[str, Any], plain(report))


def write_report(report: Report, folder: str | Path) -> tuple[Path, Path]:
    """Write `report.json` and `report.html` into `folder` (made if missing).

    Returns:
        The two paths.

    Raises:
        OSError: one cannot be written, which names it; `report.json` is first, and stays.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(to_json(report), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    json_path, html_path = folder / "report.json", folder / "report.html"
    write_file(json_path, [text.encode()])
    write_file(html_path, [render_html(report).encode()])
    return json_path, html_path


def load_report(path: str | Path) -> Report:
    """Read a `report.json`, or the one in a folder.

    Raises:
        DataError: there is none, or it is not one of ours; names the first value that is wrong,
            as ``report.json: $.latency_us.book.p99: expected a number``.
    """
    from pydantic import TypeAdapter, ValidationError

    path = Path(path)
    if path.is_dir():
        path = path / "report.json"
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot read a report: {error}") from error
    schema = found.get("schema") if isinstance(found, dict) else None
    if type(schema) is not int or schema != SCHEMA:
        raise DataError(f"{path}: not a report of schema {SCHEMA}: made by another version?")
    try:
        return TypeAdapter(Report).validate_json(text)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
        raise DataError(f"{path}: {_problem(problems[0])}") from None


def _problem(error: ErrorDetails) -> str:
    """``$.engines[0].threads: expected an integer``."""
    where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error["loc"])
    if error["type"] == "missing":
        return f"${where}: missing: made by another version?"
    if error["type"] == "unexpected_keyword_argument":
        return f"${where}: unknown key: made by another version?"
    text = error["msg"].replace("Input should be", "expected")
    for theirs, ours in _WORDS.items():
        text = text.replace(theirs, ours)
    return f"${where}: {text}"
