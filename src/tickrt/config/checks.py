"""Strict checks of settings, and what to say when they fail: ``$.threads: expected …, got …``.

Entry points: `read_settings` (a table becomes a settings dataclass), `check_keys`, `problems`.

Invariants: a number is never made of a text or of true, nor a whole number of one with a fraction;
a name that is not known is refused with the nearest one that is.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from tickrt.errors import TickrtError

__all__ = ["check_keys", "problems", "read_settings", "refuse"]

Settings = TypeVar("Settings")

_OURS = "tickrt"  # type of the errors that `refuse` makes
_EXPECTED: dict[str, str] = {
    "bool_type": "true or false",
    "float_type": "a number",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "int_type": "a whole number",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "model_type": "a table",
    "path_type": "a path",
    "string_type": "a text",
    "too_short": "at least {min_length} in the list",
    "tuple_type": "a list",
}
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}


def refuse(where: str, text: str) -> PydanticCustomError:
    """The error for a part of the value that is checked: `where` is ``""`` or ``.name``."""
    return PydanticCustomError(_OURS, "{text}", {"text": f"{where}: {text}"})


def check_keys(given: Iterable[object], known: Sequence[str]) -> None:
    """Refuse names that are not known.

    Raises:
        PydanticCustomError: it names the nearest known name.
    """
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise refuse(f".{key}", f"unknown; {hint}")


def read_settings(kind: type[Settings], value: object, also: Sequence[str] = ()) -> Settings:
    """An instance of the settings dataclass `kind` from a table; an instance is kept as it is.

    Args:
        also: keys that may be there and say nothing to `kind`.

    Raises:
        PydanticCustomError: an unknown name, a value of the wrong type, or what `kind` refuses.
    """
    if isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        raise refuse("", f"expected a table, got {value!r}")
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    check_keys(value, [*also, *names])
    hints = get_type_hints(kind)
    read = {key: _typed(item, hints[key], key) for key, item in value.items() if key in names}
    try:
        return kind(**read)
    except TickrtError as error:
        head, _, text = str(error).partition(": ")  # ``RiskLimits.max_loss: expected …``
        _, dot, name = head.partition(".")
        raise refuse(dot + name, text) from None


def _typed(item: Any, hint: Any, name: str) -> Any:
    """`item` where it is what the hint allows: paths of texts, tuples of lists, else unchanged."""
    allowed = get_args(hint) if type(None) in get_args(hint) else (hint,)
    if item is None and type(None) in allowed:
        return None
    kind = next(a for a in allowed if a is not type(None))
    number = isinstance(item, (int, float)) and not isinstance(item, bool)
    if kind is float and number:
        return item
    if kind is int and number and isinstance(item, int):
        return item
    if kind is Path and isinstance(item, (str, Path)):
        return Path(item)
    if getattr(kind, "__origin__", None) is tuple and isinstance(item, (list, tuple)):
        inner = get_args(kind)[0]
        return tuple(_typed(one, inner, f"{name}[{i}]") for i, one in enumerate(item))
    if isinstance(item, str) and kind not in _KINDS and get_args(kind)[:1] != (int,):
        return item  # a name: the dataclass knows which
    expected = _KINDS.get(kind, "a list" if "tuple" in str(kind) else "a name")
    raise refuse(f".{name}", f"expected {expected}, got {item!r}")


def problems(error: ValidationError) -> list[str]:
    """Each problem as ``strategies[1].risk.max_loss: expected more than 0, got 0``."""
    found = error.errors(include_url=False)
    places = [item["loc"] for item in found]
    return [
        _problem(item)
        for item in found  # a list whose only entry is wrong is not too short as well
        if item["type"] != "too_short"
        or not any(p != item["loc"] == p[: len(item["loc"])] for p in places)
    ]


def _problem(item: ErrorDetails) -> str:
    place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in item["loc"])
    if item["type"] == _OURS:
        return f"{place}{item['msg']}".removeprefix(".").removeprefix(": ")
    if item["type"] == "missing":
        return f"{place}: missing".removeprefix(".")
    expected = _EXPECTED.get(item["type"])
    if expected is None:
        return f"{place}: {item['msg']}, got {item['input']!r}".removeprefix(".")
    text = expected.format(**item.get("ctx", {}))
    return f"{place}: expected {text}, got {item['input']!r}".removeprefix(".")
