"""The analysis: for every tensor, which axis is time and which positions depend on the newest row.

Each operator's `Rule` says how that carries over from its inputs to its outputs (`Rule.flow`). A
rule that cannot answer gives a reason instead; the operator is then treated as *opaque*: it needs
its inputs whole, and its output depends on the newest row as soon as any input does. That is the
safe default: always correct, only with less moved off the path.

Words: a position is *fresh* when it depends on the newest row, else *known*.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from tickrt.engines.split.graph import Graph, Node
from tickrt.errors import SplitError

if TYPE_CHECKING:
    from tickrt.engines.split.graph_builder import GraphBuilder

__all__ = ["Analysis", "Columns", "Flow", "Positions", "Reason", "Rule", "analyse"]

Positions = tuple[int, ...]


@dataclass(frozen=True)
class Columns:
    """A second time axis, as attention scores have one: query rows × key columns.

    In the rows that are known, the columns `positions` belong to keys that are fresh. `kind` says
    what stands there: ``fresh`` (they do depend on the newest row), ``masked`` (a causal mask has
    put −inf there) or ``zero`` (and the softmax has made that an exact zero).
    """

    axis: int
    positions: frozenset[int]
    kind: Literal["fresh", "masked", "zero"]


@dataclass(frozen=True)
class Flow:
    """Time in one tensor. Without a time axis the tensor has the one position 0."""

    axis: int | None
    fresh: frozenset[int]
    columns: Columns | None = None

    @property
    def touched(self) -> bool:
        """True when anything in the tensor depends on the newest row."""
        return bool(self.fresh) or (self.columns is not None and self.columns.kind == "fresh")


KNOWN = Flow(None, frozenset())
FRESH = Flow(None, frozenset({0}))


@dataclass(frozen=True)
class Reason:
    """An operator that was not split, and why."""

    node: str
    op: str
    why: str


class Rule(ABC):
    """How one operator is split. Subclasses are registered by `rules.register`.

    `flow` runs once per node, in order. `emit` runs for the known rows (in `pre`: all wanted
    positions are known) and for the newest one (in `step`: all wanted positions are fresh); it
    asks the graph builder for its inputs at the positions that it needs and adds nodes.
    """

    @abstractmethod
    def flow(self, a: Analysis, node: Node) -> Flow | list[Flow] | str:
        """Flow of each output (one `Flow` stands for all), or the reason for giving up."""

    @abstractmethod
    def emit(self, out: GraphBuilder, node: Node, wants: dict[str, Positions]) -> dict[str, str]:
        """Add nodes that compute each wanted output at its positions; output → new name."""

    def carry(
        self, out: GraphBuilder, node: Node, wants: dict[str, Positions], keys: list[str]
    ) -> dict[str, str]:
        """In `pre`: what `emit` asked of `GraphBuilder.carry`, and the wanted outputs too."""
        raise SplitError(f"{node.op} {node.name!r} carries no state: its rule must say how")

    def following(self, out: GraphBuilder, node: Node, keys: list[str]) -> dict[str, str]:
        """In `advance`: the carried values after the newest row."""
        raise SplitError(f"{node.op} {node.name!r} carries no state: its rule must say how")


class Opaque(Rule):
    """Everything in, everything out."""

    def flow(self, a: Analysis, node: Node) -> Flow:
        return FRESH if any(a.touched(i) for i in node.inputs) else KNOWN

    def emit(self, out: GraphBuilder, node: Node, wants: dict[str, Positions]) -> dict[str, str]:
        inputs = [out.take(i) if i else "" for i in node.inputs]
        return dict(zip(node.outputs, out.copy(node, inputs), strict=True))


OPAQUE = Opaque()


@dataclass(eq=False)
class Analysis:
    """Flows by tensor, the rule chosen for each node (by its first output), and the reasons."""

    graph: Graph
    stateful: bool = False
    flows: dict[str, Flow] = field(default_factory=dict)
    rules: dict[str, Rule] = field(default_factory=dict)
    reasons: list[Reason] = field(default_factory=list)

    def flow(self, tensor: str) -> Flow:
        """The tensor's flow; a tensor that does not depend on the window is known."""
        return self.flows.get(tensor, KNOWN)

    def touched(self, tensor: str) -> bool:
        """True when any of the tensor depends on the newest row."""
        return self.flow(tensor).touched

    def positions(self, tensor: str) -> Positions:
        """All positions along the tensor's time axis."""
        axis = self.flow(tensor).axis
        return (0,) if axis is None else tuple(range(self.graph.shapes[tensor][axis]))

    def late(self, tensor: str) -> frozenset[int]:
        """Positions that only `step` can give: the fresh ones, and every one where a known row
        still has fresh columns (scores before their mask)."""
        flow = self.flow(tensor)
        if flow.columns is not None and flow.columns.kind == "fresh":
            return frozenset(self.positions(tensor))
        return flow.fresh

    def all_fresh(self, length: int) -> frozenset[int]:
        """Every position of a time axis of this length."""
        return frozenset(range(length))

    def note(self, node: Node, why: str) -> None:
        """Remember why an operator's known positions came to depend on the newest row."""
        self.reasons.append(Reason(node.name, node.op, why))

    def rule(self, node: Node) -> Rule:
        """The rule that splits this node."""
        return self.rules[node.outputs[0]]


def analyse(graph: Graph, table: dict[str, Rule], stateful: bool = False) -> Analysis:
    """Follow the newest row through `graph` with the rules of `table` (operator → rule)."""
    a = Analysis(graph, stateful)
    last = frozenset({graph.window - 1})
    a.flows[graph.input] = Flow(graph.time_axis, last)
    for node in graph.nodes:
        if all(graph.is_static(output) for output in node.outputs):
            continue
        rule = table.get(node.op) if node.domain == "" else None
        answer: Any = rule.flow(a, node) if rule else "no rule for this operator"
        if isinstance(answer, str):
            if any(a.touched(i) for i in node.inputs):
                a.reasons.append(Reason(node.name, node.op, answer))
            rule, answer = OPAQUE, OPAQUE.flow(a, node)
        assert rule is not None
        a.rules[node.outputs[0]] = rule
        answers: Iterable[Flow] = (
            answer if isinstance(answer, list) else [answer] * len(node.outputs)
        )
        a.flows.update(zip(node.outputs, answers, strict=False))
    return a
