"""The table of rules, and what several rules share."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tickrt.engines.split.dependence import Analysis, Flow, Positions, Rule

__all__ = ["TABLE", "invert", "register", "same_for_all", "touched_any"]

TABLE: dict[str, Rule] = {}


def register(*ops: str) -> Callable[[type[Rule]], type[Rule]]:
    """Class decorator: this rule splits these operators (one instance for all of them)."""

    def add(cls: type[Rule]) -> type[Rule]:
        rule = cls()
        for op in ops:
            TABLE[op] = rule
        return cls

    return add


def touched_any(a: Analysis, tensors: Iterable[str]) -> bool:
    """True when any of the tensors depends on the newest row."""
    return any(a.touched(t) for t in tensors if t)


def invert(entries: list[int], fresh: frozenset[int]) -> frozenset[int]:
    """Output positions p whose source `entries[p]` is fresh."""
    return frozenset(p for p, source in enumerate(entries) if source in fresh)


def same_for_all(wants: dict[str, Positions]) -> Positions:
    """The union of what is wanted of all outputs, in order."""
    return tuple(sorted(set().union(*wants.values())))


def without_columns(a: Analysis, tensor: str) -> Flow:
    """The tensor's flow for a rule that knows nothing of columns: fresh columns taint every row."""
    flow = a.flow(tensor)
    if flow.columns is None:
        return flow
    if flow.axis is None or flow.columns.kind != "zero":
        length = 1 if flow.axis is None else a.graph.shapes[tensor][flow.axis]
        return Flow(flow.axis, frozenset(range(length)))
    return Flow(flow.axis, flow.fresh)
