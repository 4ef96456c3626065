"""The pages that say what is in a report, made from its types.

Entry points: `json_schema()`; `page()`; ``python -m tickrt.report.schema [FOLDER]`` writes
`report.schema.json` and `report.md` into FOLDER (``docs``). A test holds that they are up to date.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from tickrt.runtime import report_types
from tickrt.runtime.report_types import Report

__all__ = ["json_schema", "main", "page", "schema_text"]

_HEAD = """# What is in a report

`tickrt run`, `tickrt backtest` and `tickrt demo` write a `report.json`; `Session.run()` and
`Backtest.run()` return the same as a `Report`. The types in `runtime/report_types.py` are the one
source: this page and [the JSON schema](report.schema.json) are made from them by
`python -m tickrt.report.schema`, and a test holds them together. `load_report` checks a file
against them and names the first value that is wrong.

`[]` stands for each item of a list, `*` for each key of a mapping. A path in *italics* is left out
where it does not apply; one whose type says null is always there. Money is counted in the
contract's coin where that is inverse, else in its quote currency: the `currency` beside it says
which.

| path | type | unit | meaning |
|---|---|---|---|
"""


def json_schema() -> dict[str, Any]:
    """The JSON schema (2020-12) of `report.json`; each number's `unit` stands beside its type."""
    schema = _schema_of(Report)
    del schema["properties"]["schema"]["default"]
    schema["required"].insert(0, "schema")  # what we write always has its number
    for name, definition in schema["$defs"].items():
        _describe(definition["properties"], getattr(report_types, name))
    about = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A tickrt report",
    }
    return {**about, **_tidy({k: v for k, v in schema.items() if k != "title"})}


def _schema_of(kind: type) -> dict[str, Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind).json_schema()


def _describe(properties: dict[str, Any], kind: type) -> None:
    """Add what the bases of `kind` say of the fields that it inherits."""
    for base in kind.__mro__[1:]:
        if is_dataclass(base):
            for name, field in _schema_of(base)["properties"].items():
                properties[name].setdefault("description", field["description"])


def _tidy(node: Any, names: bool = False) -> Any:
    """Without the titles that repeat the names, and with descriptions on one line.

    `names`: the keys of `node` are names of fields, not words of JSON schema.
    """
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    tidy = {}
    for key, value in node.items():
        if not names and key == "title":
            continue
        if not names and key == "description":
            tidy[key] = " ".join(value.split())
        else:
            tidy[key] = _tidy(value, names=not names and key in ("properties", "$defs"))
    return tidy


def schema_text() -> str:
    """`docs/report.schema.json`."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"


def page() -> str:
    """`docs/report.md`."""
    schema = json_schema()
    rows = _rows(schema, schema["$defs"], "", {})
    return _HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows)


Row = tuple[str, str, str, str]


def _rows(
    node: dict[str, Any], defs: dict[str, Any], path: str, seen: dict[int, str]
) -> Iterator[Row]:
    """A row for every field of an object, and below it those of what it holds; what was `seen`
    at another path is not told again."""
    for name, field in node["properties"].items():
        mark = "`" if name in node["required"] else "*`"
        here = f"{path}.{name}".lstrip(".")
        kind, unit, inner, suffix = _kind(field, defs)
        meaning = field["description"].replace("|", "\\|")
        known = seen.get(id(inner))
        if known is not None:
            meaning += f" As `{known}`."
        yield f"{mark}{here}{mark[::-1]}", kind, unit, meaning
        if inner is not None and known is None:
            seen[id(inner)] = here + suffix
            yield from _rows(inner, defs, here + suffix, seen)


def _kind(
    field: dict[str, Any], defs: dict[str, Any]
) -> tuple[str, str, dict[str, Any] | None, str]:
    """(type, unit, the object that it holds, how its path goes on) of a schema node."""
    if "$ref" in field:
        return "object", "", defs[field["$ref"].rsplit("/", 1)[1]], ""
    if "anyOf" in field:
        parts = [_kind(part, defs) for part in field["anyOf"]]
        optional = field.get("default", "") is None
        kinds = [part[0] for part in parts if not (optional and part[0] == "null")]
        inner = next((part for part in parts if part[2] is not None), parts[0])
        return " or ".join(kinds), field.get("unit") or inner[1], inner[2], inner[3]
    if "const" in field or "enum" in field:
        values = field["enum"] if "enum" in field else [field["const"]]
        return " or ".join(f"`{json.dumps(v)}`" for v in values), "", None, ""
    if field["type"] == "array" and "prefixItems" in field:
        items = [_kind(part, defs)[:2] for part in field["prefixItems"]]
        kind, unit = (", ".join(words) for words in zip(*items, strict=True))
        return f"[{kind}]", unit, None, ""
    for key, name, step in (
        ("items", "list of", "[]"),
        ("additionalProperties", "mapping to", ".*"),
    ):
        if isinstance(field.get(key), dict):
            kind, unit, held, suffix = _kind(field[key], defs)
            return f"{name} {kind}", unit, held, f"{step}{suffix}"
    return field["type"], field.get("unit", ""), None, ""


def main(folder: str = "docs") -> int:
    """Write both files into `folder`; 0."""
    Path(folder, "report.schema.json").write_text(schema_text(), encoding="utf-8")
    Path(folder, "report.md").write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
