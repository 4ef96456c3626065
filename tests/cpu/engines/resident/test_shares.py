"""Which block does what off the path, and which barrier an operation needs."""

from __future__ import annotations

import numpy as np
import pytest

from tickrt.engines.resident.shares import Barriers, flat, group_size, grouped
from tickrt.program import Buffer, Contract, For, Instruction, Map, Move, StreamProgram, View
from tickrt.program.ir import OUTPUT, ROWS

BLOCKS = 4
BLOCK, CLUSTER = ["__syncthreads();"], ["cluster_sync();"]


def program() -> StreamProgram:
    names = {"a": 4096, "b": 4096, "c": 4096, ROWS: 64}
    buffers = {n: Buffer(n, size, "rows" if n == ROWS else "scratch") for n, size in names.items()}
    buffers[OUTPUT] = Buffer(OUTPUT, 1, "output")
    return StreamProgram(4, 8, 1, 0, 0, buffers, {"step": (), "advance": ()}, {})


def move(source: View, target: View, loops: tuple[int, ...]) -> Map:
    return Map(loops, (source,), (Instruction("load", (0,)),), (target,), (0,), "")


def by_columns(source: str, target: str) -> Map:
    return move(View(source, 0, (64, 1)), View(target, 0, (64, 1)), (64, 64))


def test_columns_of_every_group_are_shared_out_in_order() -> None:
    share = grouped((2, 16), 8, BLOCKS).reshape(2, 16)
    assert share[0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3] * 2
    assert (share[0] == share[1]).all()


def test_a_block_that_reads_its_own_meets_alone() -> None:
    barriers, share = Barriers(program(), BLOCKS), grouped((64, 64), 64, BLOCKS)
    assert barriers.before(by_columns("a", "b"), share) == []
    assert barriers.before(by_columns("b", "c"), share) == BLOCK
    assert barriers.before(by_columns("c", "a"), share) == BLOCK


def test_a_block_that_reads_what_another_wrote_meets_the_cluster() -> None:
    barriers, share = Barriers(program(), BLOCKS), grouped((64, 64), 64, BLOCKS)
    assert barriers.before(by_columns("a", "b"), share) == []
    turned = move(View("b", 0, (1, 64)), View("c", 0, (64, 1)), (64, 64))
    assert barriers.before(turned, share) == CLUSTER
    # What came before that barrier is over; what it has written itself is not.
    assert barriers.before(by_columns("a", "b"), share) == CLUSTER  # `turned` still reads b
    assert barriers.before(by_columns("c", "a"), share) == BLOCK  # a is read, by itself


def test_a_barrier_of_the_block_leaves_the_cluster_s_for_later() -> None:
    barriers, share = Barriers(program(), BLOCKS), grouped((64, 64), 64, BLOCKS)
    barriers.before(by_columns("a", "b"), share)
    assert barriers.before(by_columns("b", "c"), share) == BLOCK
    every = View("b", 0, (64, 1))
    assert barriers.before(by_columns("b", "a"), share, everywhere=[every]) == CLUSTER


def test_writing_what_another_still_reads_and_writing_twice() -> None:
    share = grouped((64, 64), 64, BLOCKS)
    turned = move(View("b", 0, (1, 64)), View("c", 0, (64, 1)), (64, 64))
    for first, then in ((turned, by_columns("a", "b")), (by_columns("a", "b"), turned)):
        barriers = Barriers(program(), BLOCKS)
        assert barriers.before(first, share) == []
        assert barriers.before(then, share) == CLUSTER
    twice = move(View("a", 0, (1, 64)), View("b", 0, (1, 64)), (64, 64))
    barriers = Barriers(program(), BLOCKS)
    barriers.before(by_columns("a", "b"), share)
    assert barriers.before(twice, share) == CLUSTER


def test_a_ring_may_be_at_any_turn() -> None:
    barriers, share = Barriers(program(), BLOCKS), grouped((64,), 64, BLOCKS)
    ring = View("b", 0, (1,), (Move("seq", 64, 0, 5),))
    assert barriers.before(move(View("a", 0, (1,)), ring, (64,)), share) == []
    late = View("b", 4 * 64, (1,))
    assert barriers.before(move(late, View("c", 0, (1,)), (64,)), share) == BLOCK
    shifted = View("b", 4 * 64 - 16, (1,))
    assert barriers.before(move(shifted, View("c", 64, (1,)), (64,)), share) == CLUSTER


def test_the_first_block_has_written_the_newest_row() -> None:
    share = grouped((8,), 8, BLOCKS)
    op = move(View(ROWS, 0, (1,), (Move("seq", 8, 0, 4),)), View("a", 0, (1,)), (8,))
    assert Barriers(program(), BLOCKS).before(op, share) == CLUSTER
    assert Barriers(program(), BLOCKS).before(op, share, elsewhere=list(op.inputs)) == []


def test_a_loop_may_reach_everything() -> None:
    barriers, share = Barriers(program(), BLOCKS), grouped((64, 64), 64, BLOCKS)
    barriers.before(by_columns("a", "b"), share)
    loop = For("i", 3, (move(View("b", 0, (1,)), View("c", 0, (1,)), (4,)),))
    assert barriers.before(loop, None) == CLUSTER


def product(n: int) -> Contract:
    views = View("a", 0, (8, 0, 1)), View("b", 0, (0, 1, n)), View("c", 0, (n, 1))
    return Contract((9, n), (8,), *views)


@pytest.mark.parametrize(
    ("columns", "maps", "size"),
    [
        ((64, 32), (16,), 16),
        ((64,), (), 64),
        ((64, 24), (16,), 0),
        ((64,), (6,), 0),
        ((), (16,), 0),
    ],
)
def test_a_group_is_as_wide_as_the_states(
    columns: tuple[int, ...], maps: tuple[int, ...], size: int
) -> None:
    products = [product(n) for n in columns]
    others = [move(View("a", 0, (64, 1)), View("b", 0, (64, 1)), (4, n)) for n in maps]
    assert group_size(products, [*products, *others], BLOCKS) == size


def test_flat_shares_are_those_of_the_text() -> None:
    """512 threads of a block take 512 elements, or 16 outputs of 32 lanes, one after the other."""
    element = move(View("a", 0, (1,)), View("b", 0, (1,)), (3000,))
    assert flat(element, BLOCKS).tolist() == [i // 512 % BLOCKS for i in range(3000)]
    fold = Contract((64,), (40,), View("a", 0, (40, 1)), View("b", 0, (0, 1)), View("c", 0, (1,)))
    assert flat(fold, BLOCKS).tolist() == [i * 32 // 512 for i in range(64)]
    across = flat(product(1024), BLOCKS).reshape(9, 1024)  # tiles of 4 × 4: 256 side by side
    assert (across[:4] == 0).all()
    assert (across[8] == 1).all()
    assert np.unique(across).tolist() == [0, 1]
