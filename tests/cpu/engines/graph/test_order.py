"""Order and liveness of nodes, and what `sort_nodes` refuses."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from tickrt.engines.graph.load import sort_nodes
from tickrt.engines.graph.order import in_order, live, reads_of
from tickrt.errors import ModelError

Op = tuple[str, str, str]  # name, inputs, outputs


def ops(*nodes: Op) -> list[Op]:
    return list(nodes)


def reads(node: Op) -> list[str]:
    return node[1].split(",")


def writes(node: Op) -> list[str]:
    return node[2].split(",")


def names(nodes: list[Op]) -> str:
    return "".join(node[0] for node in nodes)


def test_only_what_must_move_moves() -> None:
    nodes = ops(("a", "y", "z"), ("b", "x", "w"), ("c", "x", "y"), ("d", "w", "v"))
    ordered, cycle = in_order(nodes, reads, writes)
    assert names(ordered) == "bcda"
    assert cycle == []


def test_a_cycle_is_told_with_what_waits_for_it() -> None:
    nodes = ops(("a", "x", "y"), ("b", "q", "p"), ("c", "p", "q"), ("d", "q", "r"))
    ordered, cycle = in_order(nodes, reads, writes)
    assert names(ordered) == "a"
    assert names(cycle) == "bcd"


def test_only_what_an_output_needs_is_alive() -> None:
    nodes = ops(("a", "x", "y"), ("b", "x,", "dead,"), ("c", "y,", "z"), ("d", "z", "out"))
    kept, needed = live(nodes, ["out"], reads, writes)
    assert names(kept) == "acd"  # an output that is left out is not an input that is left out
    assert needed == {"out", "z", "y", "x"}


def graph(*nodes: onnx.NodeProto) -> onnx.GraphProto:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    return helper.make_graph(list(nodes), "g", [value], [])


def test_a_subgraph_reads_from_outside() -> None:
    inner = graph(
        helper.make_node("Neg", ["outer"], ["a"]), helper.make_node("Add", ["a", "x"], ["b"])
    )
    node = helper.make_node("If", ["condition"], ["y"], then_branch=inner)
    assert list(reads_of(node)) == ["condition", "outer"]


def test_nodes_of_a_graph_are_sorted_in_place() -> None:
    made = graph(
        helper.make_node("Neg", ["y"], ["z"], name="second"),
        helper.make_node("Neg", ["x"], ["y"], name="first"),
    )
    sort_nodes(made)
    assert [node.name for node in made.node] == ["first", "second"]


@pytest.mark.parametrize(
    ("source", "words"), [("nowhere", "'n' reads 'nowhere'"), ("y", "'n' lies on a cycle")]
)
def test_graphs_without_an_order_are_refused(source: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        sort_nodes(graph(helper.make_node("Neg", [source], ["y"], name="n")))
