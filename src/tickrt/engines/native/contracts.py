"""`Contract` as C: a tile of sums in registers, dot products, or plain loops.

Entry points: `write_contract`, `write_changes`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tickrt.engines.native.schedule import LANES, Dot, Lanes, Pack, Plain
from tickrt.engines.native.writer import Writer, terms
from tickrt.program import Contract, View

__all__ = ["write_changes", "write_contract"]


def write_contract(w: Writer, op: Contract, plan: Lanes | Dot | Plain) -> None:
    """The loops of one contraction."""
    if isinstance(plan, Lanes):
        _write_lanes(w, op, plan)
    elif isinstance(plan, Dot):
        _write_dot(w, op, plan)
    else:
        _write_plain(w, op)


def _write_plain(w: Writer, op: Contract) -> None:
    names = [f"n{i}" for i in range(len(op.loops))]
    folds = [f"k{i}" for i in range(len(op.folds))]
    w.line(f"const float *a = {w.address(op.a)}, *b = {w.address(op.b)};")
    if op.start is not None:
        w.line(f"const float *start = {w.address(op.start)};")
    w.line(f"float *y = {w.address(op.output)};")
    with w.loops(names, op.loops):
        first = "0.0f" if op.start is None else f"start[{terms(names, op.start.strides)}]"
        w.line(f"float sum = {first};")
        with w.loops(folds, op.folds):
            a, b = (terms([*names, *folds], v.strides) for v in (op.a, op.b))
            w.line(f"sum += a[{a}] * b[{b}];")
        w.line(f"y[{terms(names, op.output.strides)}] = sum;")


def _dense(pack: Pack, view: View, loops: int) -> tuple[int, ...]:
    """Strides of a packed operand of dot products, per loop and fold."""
    sizes = [n for n, _ in (*pack.outer, *pack.folds)]
    steps = [1]
    for size in reversed(sizes[1:]):
        steps.insert(0, steps[0] * size)
    outer = iter(steps)
    return tuple(next(outer) if s else 0 for s in view.strides[:loops]) + tuple(outer)


def _write_dot(w: Writer, op: Contract, plan: Dot) -> None:
    n = len(op.loops)
    names = [f"n{i}" for i in range(n)]
    folds = [f"k{i}" for i in range(len(op.folds) - 1)]
    strides = []
    for name, view, pack in zip("ab", (op.a, op.b), plan.packs, strict=True):
        place = w.address(view) if pack is None else f"m + {w.arena.packs[pack]}"
        w.line(f"const float *{name} = {place};")
        strides.append(view.strides if pack is None else _dense(pack, view, n))
    if op.start is not None:
        w.line(f"const float *start = {w.address(op.start)};")
    w.line(f"float *y = {w.address(op.output)};")
    last = op.folds[-1]
    whole = last // LANES * LANES
    with w.loops(names, op.loops):
        w.line("vec sums = {0};")
        if last > whole:
            first = "0.0f" if op.start is None else f"start[{terms(names, op.start.strides)}]"
            w.line(f"float rest = {first};")
        with w.loops(folds, op.folds[:-1]):
            for name, steps in zip("ab", strides, strict=True):
                w.line(f"const float *{name}_ = {name} + {terms([*names, *folds], steps[:-1])};")
            w.line(f"for (long k = 0; k < {whole}; k += LANES)")
            w.line("    sums += load(a_ + k) * load(b_ + k);")
            if last > whole:
                w.line(f"for (long k = {whole}; k < {last}; k++) rest += a_[k] * b_[k];")
        text = "total(sums)"
        if last > whole:
            text += " + rest"
        elif op.start is not None:
            text += f" + start[{terms(names, op.start.strides)}]"
        w.line(f"y[{terms(names, op.output.strides)}] = {text};")


@dataclass(frozen=True)
class _Part:
    """Turns first, first + step, … below `end` of a loop; the last vector has `valid` lanes."""

    first: int
    end: int
    step: int
    valid: int = LANES


def _parts(count: int, step: int) -> list[_Part]:
    """All turns: whole blocks, then the rest."""
    whole = count // step * step
    parts = [_Part(0, whole, step)] if whole else []
    if count > whole:
        parts.append(_Part(whole, count, count - whole))
    return parts


def _lane_parts(count: int, width: int) -> list[_Part]:
    parts = []
    for part in _parts(count, width):
        step = -(-part.step // LANES) * LANES
        parts.append(_Part(part.first, part.end, step, (part.step - 1) % LANES + 1))
    return parts


def write_changes(w: Writer) -> None:
    """In which columns the newest row differs from the one before."""
    window, width = w.program.window, w.program.width
    w.line(f"int32_t column[{width + LANES}];")
    w.line(f"float change[{width + LANES}];")
    w.line(f"const float *now = rows + at(seq, {window}) * {width};")
    w.line(f"const float *before = rows + at(seq - 1, {window}) * {width};")
    w.line(f"const long changes = changed(now, before, {width}, column, change);")


def _write_lanes(w: Writer, op: Contract, plan: Lanes) -> None:
    w.line(f"const float *s = {w.address(plan.scalar)};")
    if plan.pack is None:
        w.line(f"const float *v = {w.address(plan.vector)};")
    else:
        pack, place = plan.pack, w.arena.packs[plan.pack]
        kind = _element(plan)
        w.line(f"const {kind} *v = (const {kind} *)(m + {place}); /* {_packed_text(pack)} */")
        if _scaled(plan):
            w.line(f"const float *scale = m + {place + pack.size - pack.lanes};")
    if op.start is not None:
        w.line(f"const float *start = {w.address(op.start)};")
    w.line(f"float *y = {w.address(op.output)};")
    if plan.sparse is None:
        _write_blocks(w, op, plan)
        return
    if plan.sparse.kind == "zeros":
        w.line(f"int32_t column[{op.folds[0] + LANES}];")
        w.line(f"float change[{op.folds[0] + LANES}];")
        w.line(f"const long changes = not_zero(s, {op.folds[0]}, column, change);")
    else:
        w.line(f"const float *base = m + {w.names[plan.sparse.base]};")
    with w.block(f"if (changes <= {op.folds[0] * 7 // 8})"):
        lane = f"n{plan.lane}"
        for lanes in _lane_parts(op.loops[plan.lane], plan.vectors * LANES):
            with w.block(_head(lane, lanes)):
                _few_terms(w, op, plan, lanes)
    with w.block("else"):
        _write_blocks(w, op, plan)


def _few_terms(w: Writer, op: Contract, plan: Lanes, lanes: _Part) -> None:
    """A block of sums over the columns that count."""
    assert plan.sparse is not None
    vectors, lane = lanes.step // LANES, f"n{plan.lane}"
    first = _start(op, replace(plan, chains=1), lanes)
    if plan.sparse.base:
        first = f"load(base + {lane} + 16 * b)" + ("" if op.start is None else f" + {first}")
    scaled = _scaled(plan)
    w.line(f"const {_element(plan)} *v_ = {_vector_base(op, plan)};")
    w.line(f"vec sums[1][{vectors}];")
    w.line(f"for (int b = 0; b < {vectors}; b++) sums[0][b] = {'(vec){0}' if scaled else first};")
    w.line("for (long k = 0; k < changes; k++)")
    w.line(f"    for (int b = 0; b < {vectors}; b++)")
    at = f"v_ + column[k] * {lanes.step} + 16 * b"
    w.line(f"        sums[0][b] += splat(change[k]) * {_load(plan)}({at});")
    _scale(w, plan, vectors, first)
    _store(w, op, plan, lanes, 1)


def _element(plan: Lanes) -> str:
    """The C type of a packed weight."""
    kinds = {"fp32": "float", "bf16": "uint16_t", "int8": "int8_t"}
    return kinds[plan.pack.weights if plan.pack else "fp32"]


def _load(plan: Lanes) -> str:
    """The function that reads 16 of them."""
    kinds = {"fp32": "load", "bf16": "load_bf16", "int8": "load_int8"}
    return kinds[plan.pack.weights if plan.pack else "fp32"]


def _scaled(plan: Lanes) -> bool:
    return plan.pack is not None and plan.pack.weights == "int8"


def _scale(w: Writer, plan: Lanes, vectors: int, first: str) -> None:
    """Sums of int8 weights times the scale of each lane, then what they begin with."""
    if _scaled(plan):
        w.line(f"for (int b = 0; b < {vectors}; b++)")
        w.line(f"    sums[0][b] = sums[0][b] * load(scale + n{plan.lane} + 16 * b) + {first};")


def _write_blocks(w: Writer, op: Contract, plan: Lanes) -> None:
    """Every block of lanes, over all folds."""
    names = [f"n{i}" for i in range(len(op.loops))]
    with w.loops([names[i] for i in plan.outer], [op.loops[i] for i in plan.outer]):
        for lanes in _lane_parts(op.loops[plan.lane], plan.vectors * LANES):
            with w.block(_head(names[plan.lane], lanes)):
                if plan.tile is None:
                    _tile(w, op, plan, lanes, 1)
                    continue
                for rows in _parts(op.loops[plan.tile], plan.rows):
                    with w.block(_head(names[plan.tile], rows)):
                        _tile(w, op, plan, lanes, rows.step)


def _head(name: str, part: _Part) -> str:
    if part.first + part.step >= part.end:
        return f"for (long {name} = {part.first}; {name} < {part.end}; {name} += {part.end})"
    return f"for (long {name} = {part.first}; {name} < {part.end}; {name} += {part.step})"


def _packed_text(pack: Pack) -> str:
    """How a packed operand lies, for a reader."""
    return f"packed: [{-(-pack.lanes // pack.width)} blocks][{pack.depth}][{pack.width} lanes]"


def _vector_base(op: Contract, plan: Lanes) -> str:
    """Where the vectors of this block begin."""
    if plan.pack is None:
        return f"v + {terms([f'n{i}' for i in range(len(op.loops))], _without_tile(op, plan))}"
    pack = plan.pack
    varying = [i for i in plan.outer if plan.vector.strides[i]]
    step = pack.lanes * pack.depth
    strides: list[int] = []
    for i in reversed(varying):
        strides.insert(0, step)
        step *= op.loops[i]
    indices = [f"n{i}" for i in varying] + [f"n{plan.lane}"]
    return f"v + {terms(indices, [*strides, pack.depth])}"


def _without_tile(op: Contract, plan: Lanes) -> list[int]:
    return [0 if i == plan.tile else plan.vector.strides[i] for i in range(len(op.loops))]


def _tile(w: Writer, op: Contract, plan: Lanes, lanes: _Part, rows: int) -> None:
    """`rows` × the block's vectors of sums, in registers, over all folds.

    Sum u is that of turn u of the tile's loop; where there is no tile, of every chains-th fold.
    """
    n, vectors = len(op.loops), lanes.step // LANES
    names = [f"n{i}" for i in range(n)]
    sums = plan.chains if plan.tile is None else rows
    first = "(vec){0}" if _scaled(plan) else _start(op, plan, lanes)
    w.line(f"const float *s_ = s + {terms(names, plan.scalar.strides[:n])};")
    w.line(f"const {_element(plan)} *v_ = {_vector_base(op, plan)};")
    w.line(f"vec sums[{sums}][{vectors}];")
    w.line(f"for (int u = 0; u < {sums}; u++)")
    w.line(f"    for (int b = 0; b < {vectors}; b++) sums[u][b] = {first};")
    folds = [f"k{f}" for f in plan.folds]
    with w.loops(folds[:-1], [op.folds[f] for f in plan.folds][:-1]):
        _folds(w, op, plan, lanes, sums)
    if plan.chains > 1:
        w.line(f"for (int u = 1; u < {plan.chains}; u++)")
        w.line(f"    for (int b = 0; b < {vectors}; b++) sums[0][b] += sums[u][b];")
    _scale(w, plan, vectors, _start(op, replace(plan, chains=1), lanes))
    _store(w, op, plan, lanes, rows)


def _folds(w: Writer, op: Contract, plan: Lanes, lanes: _Part, sums: int) -> None:
    """The innermost fold: for each k a number of every sum, times the block's vectors."""
    n, chains = len(op.loops), plan.chains
    folds = [f"k{f}" for f in plan.folds]
    s_steps, v_steps = ([v.strides[n + f] for f in plan.folds] for v in (plan.scalar, plan.vector))
    if plan.pack is None:
        w.line(f"const float *p = v_ + {terms(folds[:-1], v_steps[:-1])};")
        vector, ahead = f"p + k * {v_steps[-1]} + 16 * b", v_steps[-1]
    else:
        vector, ahead = "v_ + 16 * b", lanes.step
    s_step = s_steps[-1]
    scalar = f"{terms(folds[:-1], s_steps[:-1])} + k * {s_step}"
    inner = op.folds[plan.folds[-1]]
    whole = inner // chains * chains
    if plan.tile is not None:
        per_sum = (f" + u * {plan.scalar.strides[plan.tile]}", "")
    else:
        per_sum = (f" + u * {s_step}", f" + u * {ahead}")
    parts = [(0, whole, chains, sums, per_sum)]
    if whole < inner:
        parts.append((whole, inner, 1, 1, ("", "")))
    for first, end, step, count, (s_more, v_more) in parts:
        move = "" if plan.pack is None else f", v_ += {step * ahead}"
        w.line(f"for (long k = {first}; k < {end}; k += {step}{move})")
        w.line(f"    for (int u = 0; u < {count}; u++)")
        w.line(f"        for (int b = 0; b < {lanes.step // LANES}; b++)")
        product = f"splat(s_[{scalar}{s_more}]) * {_load(plan)}({vector}{v_more})"
        w.line(f"            sums[u][b] += {product};")


def _start(op: Contract, plan: Lanes, lanes: _Part) -> str:
    """What a vector of sums begins with."""
    if op.start is None:
        return "(vec){0}"
    names = [f"n{i}" for i in range(len(op.loops))]
    lane = op.start.strides[plan.lane]
    place = f"start + {terms(names, op.start.strides)}"
    if plan.tile is not None and op.start.strides[plan.tile]:
        place += f" + u * {op.start.strides[plan.tile]}"
    last = lanes.step // LANES - 1
    if lane == 0:
        value = f"splat(*({place}))"
    else:
        count = "LANES" if lanes.valid == LANES else f"b < {last} ? LANES : {lanes.valid}"
        value = f"gather({place} + {LANES * lane} * b, {lane}, {count})"
        if lane == 1 and (lanes.valid == LANES or op.start.buffer != "rows"):
            value = f"load({place} + 16 * b)"
    if plan.tile is None and plan.chains > 1:
        return f"u ? (vec){{0}} : {value}"
    return value


def _store(w: Writer, op: Contract, plan: Lanes, lanes: _Part, rows: int) -> None:
    names = [f"n{i}" for i in range(len(op.loops))]
    vectors, out = lanes.step // LANES, op.output.strides
    place = f"y + {terms(names, out)}"
    if plan.tile is not None:
        place += f" + u * {out[plan.tile]}"
    w.line(f"for (int u = 0; u < {rows}; u++) {{")
    whole = vectors if lanes.valid == LANES else vectors - 1
    stride = out[plan.lane]
    if stride == 1:
        if whole:
            w.line(f"    for (int b = 0; b < {whole}; b++) store({place} + 16 * b, sums[u][b]);")
        if whole < vectors:
            w.line(f"    store_part({place} + {16 * whole}, sums[u][{whole}], {lanes.valid});")
    else:
        if whole:
            text = f"scatter({place} + {16 * stride} * b, {stride}, sums[u][b], LANES)"
            w.line(f"    for (int b = 0; b < {whole}; b++) {text};")
        if whole < vectors:
            at = f"{place} + {16 * stride * whole}"
            w.line(f"    scatter({at}, {stride}, sums[u][{whole}], {lanes.valid});")
    w.line("}")
