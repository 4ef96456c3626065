"""What a model sees: a declarative TOML file, checked, frozen and hashed.

    format = 1
    name = "light"
    window = 50                 # T: rows in a window
    row_on = "batch"            # or "depth": only a batch that touches the book completes a row
    clip = 8.0                  # of the normalised numbers; leave it out for no clip

    [[columns]]
    kind = "levels"             # one table per column group, in row order; see COLUMN_KINDS
    depth = 10

    [normalisation]             # optional: (x − mean) / std, one number per number of a row
    mean = [ … ]
    std = [ … ]

`load_spec(name_or_path)` reads one; the shipped ones are found by name. `FeatureSpec.hash` is the
SHA-256 of the canonical JSON of everything that changes a row: it goes into the model's metadata,
and a model whose hash differs from the running spec's is refused. The name and comments are not
part of it; a user column's source is.

Column kinds and their numbers (all prices in ticks, all quantities in the feed's unit / `unit`):

- ``levels`` (depth 1…100, unit): depth × bid distance (mid − price), depth × log(1 + bid quantity),
  depth × ask distance (price − mid), depth × log(1 + ask quantity). Where the book is thinner than
  `depth`, a missing level lies one tick behind the one before it and has quantity 0.
- ``volume`` (unit, scale): signed (aggressor bought − sold) and unsigned traded quantity since the
  last row.
- ``order_flow`` (depth 1…10, unit, scale): order-flow imbalance since the last row, per level
  (Cont, Kukanov, Stoikov 2014; deeper levels: Xu, Gould, Howison 2018). 0 in the first row after a
  reset.
- ``imbalance`` (depth 1…100): (bid − ask) / (bid + ask) quantity summed over `depth` levels.
- ``microprice``: quantity-weighted mid − mid, in ticks.
- ``spread``: in ticks.
- ``returns`` (lags, rows): mid / mid so many rows ago − 1, in basis points; 0 before that.
- ``elapsed``: log(1 + milliseconds since the last row); 0 in the first row after a reset.
- ``user`` (file, function, params): see `user_columns`. `file` is relative to the spec file.

`scale` is ``raw`` (default) or ``log``: sign(x)·log(1 + |x|).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from tickrt.errors import SpecError
from tickrt.files import read_toml

__all__ = ["COLUMN_KINDS", "Column", "FeatureSpec", "load_spec", "parse_spec", "shipped_specs"]

FORMAT = 1
MAX_DEPTH, MAX_FLOW_DEPTH, MAX_LAG, MAX_LAGS = 100, 10, 4096, 32
MAX_WINDOW, MAX_WIDTH, MAX_USER_PARAMS = 10_000, 4096, 16


@dataclass(frozen=True)
class Column:
    """One column group.

    Attributes:
        kind: one of `COLUMN_KINDS`.
        depth: book levels a side that it reads (0: none).
        unit: quantity that counts as 1.
        log: take sign(x)·log(1 + |x|).
        lags: of ``returns``, in rows.
        file, function, params, digest: of ``user``; `digest` is the SHA-256 of the file.
    """

    kind: str
    depth: int = 0
    unit: float = 1.0
    log: bool = False
    lags: tuple[int, ...] = ()
    file: Path | None = None
    function: str = ""
    params: tuple[float, ...] = ()
    digest: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each number that it adds to a row."""
        return COLUMN_KINDS[self.kind].names(self)

    def canonical(self) -> dict[str, Any]:
        """What the hash sees of it: no path, the source's digest instead."""
        return {
            "kind": self.kind,
            "depth": self.depth,
            "unit": float(self.unit),
            "log": self.log,
            "lags": list(self.lags),
            "function": self.function,
            "params": [float(p) for p in self.params],
            "digest": self.digest,
        }


@dataclass(frozen=True)
class Kind:
    """What a column kind accepts and how its numbers are called."""

    keys: frozenset[str]
    names: Callable[[Column], tuple[str, ...]]
    max_depth: int = 0
    reads_levels: int = 1  # levels a side that it reads when it has no `depth`


def _level_names(column: Column) -> tuple[str, ...]:
    groups = ("bid_distance", "bid_log_quantity", "ask_distance", "ask_log_quantity")
    return tuple(f"{group}_{i + 1}" for group in groups for i in range(column.depth))


COLUMN_KINDS: Mapping[str, Kind] = {
    "levels": Kind(frozenset({"depth", "unit"}), _level_names, MAX_DEPTH),
    "volume": Kind(frozenset({"unit", "scale"}), lambda c: ("volume_signed", "volume_unsigned")),
    "order_flow": Kind(
        frozenset({"depth", "unit", "scale"}),
        lambda c: tuple(f"order_flow_{i + 1}" for i in range(c.depth)),
        MAX_FLOW_DEPTH,
    ),
    "imbalance": Kind(frozenset({"depth"}), lambda c: (f"imbalance_{c.depth}",), MAX_DEPTH),
    "microprice": Kind(frozenset(), lambda c: ("microprice",)),
    "spread": Kind(frozenset(), lambda c: ("spread",)),
    "returns": Kind(frozenset({"lags"}), lambda c: tuple(f"return_{lag}" for lag in c.lags)),
    "elapsed": Kind(frozenset(), lambda c: ("elapsed",)),
    "user": Kind(
        frozenset({"file", "function", "params", "depth"}), lambda c: (c.function,), MAX_DEPTH
    ),
}


@dataclass(frozen=True)
class FeatureSpec:
    """A checked spec, as `load_spec` reads it.

        spec = tr.load_spec("light")
        spec.window, spec.width, spec.names[:3], spec.hash

    `mean` and `std` have `width` numbers each; clip is inf when absent.
    """

    name: str
    columns: tuple[Column, ...]
    window: int
    row_on: str = "batch"
    clip: float = math.inf
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    path: Path | None = None

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The name of each number of a row, in order."""
        return tuple(name for column in self.columns for name in column.names)

    @property
    def width(self) -> int:
        """F: numbers in a row."""
        return len(self.names)

    @property
    def depth(self) -> int:
        """Book levels a side that a row reads."""
        return max(1, *(c.depth for c in self.columns), 0)

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) over the canonical JSON: sorted keys, no white space, shortest floats."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    def canonical(self) -> str:
        """The JSON that is hashed."""
        document = {
            "format": FORMAT,
            "window": self.window,
            "row_on": self.row_on,
            "clip": None if math.isinf(self.clip) else float(self.clip),
            "columns": [column.canonical() for column in self.columns],
            "mean": [float(x) for x in self.mean],
            "std": [float(x) for x in self.std],
        }
        return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)


def shipped_specs() -> list[str]:
    """Names of the specs that come with the package."""
    folder = resources.files("tickrt.models")
    return sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".toml"))


def load_spec(name_or_path: str | Path) -> FeatureSpec:
    """Read a spec: a path to a TOML file, or the name of a shipped one.

        spec = tr.load_spec("light")

    Raises:
        SpecError: there is none, it is not TOML, or a field is wrong (the message has its path).
    """
    path = Path(name_or_path)
    if not path.is_file():
        shipped = resources.files("tickrt.models") / f"{name_or_path}.toml"
        if path.suffix or len(path.parts) != 1 or not shipped.is_file():
            raise SpecError(
                f"{name_or_path}: no such spec file, and no shipped spec of that name; "
                f"shipped: {', '.join(shipped_specs())}"
            )
        path = Path(str(shipped))
    document = read_toml(path, SpecError)
    try:
        return parse_spec(document, path)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from error


def parse_spec(document: Mapping[str, Any], path: Path | None = None) -> FeatureSpec:
    """Check a spec that was read from TOML.

    Args:
        document: the parsed file.
        path: where it lies; user columns' files are relative to its folder.

    Raises:
        SpecError: with the path of the wrong field, e.g. ``$.columns[3].depth``.
    """
    known = {"format", "name", "description", "window", "row_on", "clip", "columns"}
    _no_other(document, known | {"normalisation"}, "$")
    if document.get("format") != FORMAT:
        raise SpecError(f"$.format: expected {FORMAT}, got {document.get('format')!r}")
    name = document.get("name")
    if not isinstance(name, str) or not name:
        raise SpecError(f"$.name: expected a name, got {name!r}")
    row_on = document.get("row_on", "batch")
    if row_on not in ("batch", "depth"):
        raise SpecError(f'$.row_on: expected "batch" or "depth", got {row_on!r}')
    clip = math.inf
    if "clip" in document:
        clip = _number(document["clip"], "$.clip", above=0.0)
    tables = document.get("columns")
    if not isinstance(tables, list) or not tables:
        raise SpecError(f"$.columns: expected one or more [[columns]] tables, got {tables!r}")
    folder = path.parent if path else Path()
    columns = tuple(_column(t, f"$.columns[{i}]", folder) for i, t in enumerate(tables))
    spec = FeatureSpec(
        name=name,
        columns=columns,
        window=_integer(document.get("window"), "$.window", 1, MAX_WINDOW),
        row_on=row_on,
        clip=clip,
        path=path,
    )
    if spec.width > MAX_WIDTH:
        raise SpecError(f"$.columns: expected at most {MAX_WIDTH} numbers, got {spec.width}")
    double = [n for i, n in enumerate(spec.names) if n in spec.names[:i]]
    if double:
        raise SpecError(f"$.columns: two columns are called {double[0]!r}")
    mean, std = _normalisation(document.get("normalisation"), spec)
    return FeatureSpec(spec.name, columns, spec.window, row_on, clip, mean, std, path)


def _column(table: Any, where: str, folder: Path) -> Column:
    if not isinstance(table, Mapping):
        raise SpecError(f"{where}: expected a table, got {table!r}")
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in COLUMN_KINDS:
        raise SpecError(f"{where}.kind: expected one of {', '.join(COLUMN_KINDS)}, got {kind!r}")
    rule = COLUMN_KINDS[kind]
    _no_other(table, {"kind", *rule.keys}, where)
    values: dict[str, Any] = {"depth": rule.reads_levels}
    if rule.max_depth:
        default = rule.max_depth if kind == "user" else 1 if kind == "order_flow" else None
        values["depth"] = _integer(table.get("depth", default), f"{where}.depth", 1, rule.max_depth)
    if "unit" in table:
        values["unit"] = _number(table["unit"], f"{where}.unit", above=0.0)
    if "scale" in table:
        if table["scale"] not in ("raw", "log"):
            raise SpecError(f'{where}.scale: expected "raw" or "log", got {table["scale"]!r}')
        values["log"] = table["scale"] == "log"
    if kind == "returns":
        values["lags"] = _lags(table.get("lags"), f"{where}.lags")
    if kind == "user":
        values |= _user(table, where, folder)
    return Column(kind, **values)


def _lags(value: Any, where: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_LAGS:
        raise SpecError(f"{where}: expected 1…{MAX_LAGS} lags in rows, got {value!r}")
    return tuple(_integer(lag, f"{where}[{i}]", 1, MAX_LAG) for i, lag in enumerate(value))


def _user(table: Mapping[str, Any], where: str, folder: Path) -> dict[str, Any]:
    file, function = table.get("file"), table.get("function")
    if not isinstance(file, str) or not file:
        raise SpecError(f"{where}.file: expected a Python file, got {file!r}")
    if not isinstance(function, str) or not function.isidentifier():
        raise SpecError(f"{where}.function: expected a function's name, got {function!r}")
    path = folder / file
    if not path.is_file():
        raise SpecError(f"{where}.file: no such file: {path}")
    params = table.get("params", [])
    if not isinstance(params, list) or len(params) > MAX_USER_PARAMS:
        raise SpecError(
            f"{where}.params: expected at most {MAX_USER_PARAMS} numbers, got {params!r}"
        )
    return {
        "file": path,
        "function": function,
        "params": tuple(_number(p, f"{where}.params[{i}]") for i, p in enumerate(params)),
        "digest": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def _normalisation(table: Any, spec: FeatureSpec) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if table is None:
        return (0.0,) * spec.width, (1.0,) * spec.width
    if not isinstance(table, Mapping):
        raise SpecError(f"$.normalisation: expected a table, got {table!r}")
    _no_other(table, {"mean", "std"}, "$.normalisation")
    numbers = []
    for key in ("mean", "std"):
        where, values = f"$.normalisation.{key}", table.get(key)
        if not isinstance(values, list):
            raise SpecError(f"{where}: expected {spec.width} numbers, got {values!r}")
        if len(values) != spec.width:
            raise SpecError(f"{where}: expected {spec.width} numbers, got {len(values)}")
        above = 0.0 if key == "std" else None
        numbers.append(tuple(_number(v, f"{where}[{i}]", above) for i, v in enumerate(values)))
    return numbers[0], numbers[1]


def _no_other(table: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise SpecError(f"{where}.{key}: unknown; known: {', '.join(sorted(known))}")


def _integer(value: Any, where: str, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise SpecError(f"{where}: expected {low}…{high}, got {value!r}")
    return value


def _number(value: Any, where: str, above: float | None = None) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or (above is not None and value <= above):
        text = "a finite number" if above is None else f"a number above {above:g}"
        raise SpecError(f"{where}: expected {text}, got {value!r}")
    return float(value)
