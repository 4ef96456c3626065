"""What a kernel does after an answer is out: `advance(text, chunks, columns)`.

All blocks take part. Products with the newest row are made by the stage that has their weights,
products of many rows by `columns`; maps beside those are shared out by units, everything else
element by element. `shares.Barriers` says what has to come between.
"""

from __future__ import annotations

from tickrt.engines.resident.columns import Columns
from tickrt.engines.resident.schedule import ROW, THREADS
from tickrt.engines.resident.shares import Barriers, flat, grouped
from tickrt.engines.resident.stages import product, product_share
from tickrt.engines.resident.text import Team, grouped_map, operation, turn
from tickrt.engines.resident.writer import Text
from tickrt.program import Contract, For, Map, Operation, View
from tickrt.program.ir import ROWS, operands, walk

__all__ = ["SLOT", "advance", "turns"]

# Made anew where they are used: what is kept from row to row takes registers from the weights.
SLOT = "uint4 *slot = a.rows + (taken & a.mask) * a.slot_pieces;"
_SEQ = "const long long seq = ((long long)head.y << 30) + head.x;"


def turns(text: Text, operations: tuple[Operation, ...], extra: list[View]) -> None:
    """The moves with the row's number that these operations have."""
    views = [v for op in walk(operations) for some in operands(op) for v in some]
    found = {turn(move) for view in (*views, *extra) for move in view.moves}
    if found - {None}:
        text.add(_SEQ)
    for name, shift, period in sorted(each for each in found if each is not None):
        text.add(f"const int {name} = (int)((seq + {shift}) % {period});")


def _newest(text: Text, op: Operation) -> tuple[View, View] | None:
    """(weights, row) of a product with the newest row that the step has made, too: its weights are
    at hand."""
    if not isinstance(op, Contract) or len(op.loops) != 1 or op.start is not None:
        return None
    for weights_, x in ((op.b, op.a), (op.a, op.b)):
        newest = [(m.shift, m.period) for m in x.moves] == [(0, text.program.window)]
        if x.buffer == ROWS and newest and x.strides == (0, 1) and x.offset < text.program.width:
            return weights_, x
    return None


def _write(text: Text, section: str, op: Operation, columns: Columns, barriers: Barriers) -> None:
    """One operation off the path, in the form that suits it, behind the barrier that it needs."""
    blocks, size = text.plan.blocks, columns.size(section)
    newest = _newest(text, op)
    share = product_share(text, *newest) if newest is not None else None
    if newest is not None and share is not None:
        assert isinstance(op, Contract)
        text.flat(barriers.before(op, share, elsewhere=[newest[1]]))
        product(text, *newest, op.output)
    elif (share := columns.share(section, op)) is not None:
        assert isinstance(op, Contract)
        text.flat(barriers.before(op, share, [op.a]))
        text.mark("  met")
        columns.write(section, op)
    elif isinstance(op, Map) and size and op.loops and op.loops[-1] % size == 0:
        text.flat(barriers.before(op, grouped(op.loops, size, blocks)))
        text.flat(grouped_map(op, text.far, size, blocks, THREADS))
    else:
        share = None if isinstance(op, For) else flat(op, blocks)
        text.flat(barriers.before(op, share))
        team = Team("everyone", THREADS * blocks, 32)
        text.flat(operation(op, text.far, team, "cluster_sync();"))
    columns.written(op)


def _section(text: Text, section: str, columns: Columns) -> None:
    """Operations of a section, by all threads of the cluster."""
    operations = text.program.sections[section]
    barriers = Barriers(text.program, text.plan.blocks)
    columns.begin()
    text.open("")
    turns(text, operations, [])
    for op in operations:
        text.open("")
        text.add("ANEW;")
        _write(text, section, op, columns, barriers)
        text.close()
        text.mark(f"{section}: {op.label}")
    text.close()


def advance(text: Text, chunks: int, columns: Columns) -> None:
    plan, program = text.plan, text.program
    rows = plan.far.get(ROWS)
    text.add("cluster_meet();")  # everybody has read the row
    text.open("if (rank == 0)")
    text.add(SLOT)
    empty = "make_uint4(EMPTY, EMPTY, EMPTY, EMPTY)"
    text.add(f"for (int c = tid; c < {chunks}; c += {THREADS})")
    text.add(f"  store_system(slot + a.row_piece + c, {empty});")
    text.add(f"if (tid == 0) store_system(slot + a.head_piece, {empty});")
    if rows is not None:
        base, width, window = rows[0], program.width, program.window
        text.add(_SEQ)
        text.add(f"const int place = (int)(seq % {window}) * {width};")
        text.open(f"for (int i = tid; i < {width}; i += {THREADS})")
        text.add(f"const float value = near[{plan.near[ROW][0]} + i];")
        text.add(f"far[{base} + place + i] = value;")
        text.add(f"far[{base + window * width} + place + i] = value;")
        text.close()
    text.close()
    text.open(f"if (count > {program.idle})")
    if "first" in program.sections:
        text.open(f"if (count == {program.warm})")
        _section(text, "first", columns)
        text.close()
        text.open("else")
        _section(text, "advance", columns)
        text.close()
    else:
        _section(text, "advance", columns)
    text.close()
    text.add("cluster_sync();")
