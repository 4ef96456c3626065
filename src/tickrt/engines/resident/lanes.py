"""Tiny operations of a step in the registers of one warp: `Lanes`.

Vectors of a few elements are in every lane, an element per register, so what follows a product –
a softmax over three outputs, say – needs no memory and no exchange between lanes. Longer ones are
spread: lane l has elements l, l + 32, …, so a normalisation takes no memory either. What a later
operation reads is also stored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tickrt.engines.resident.schedule import THREADS
from tickrt.engines.resident.text import FOLDS, comment, expression
from tickrt.engines.resident.writer import Text
from tickrt.program import Contract, For, Map, Operation, Reduce, View
from tickrt.program.ir import operands

__all__ = ["ELEMENTS", "Lanes"]

ELEMENTS = 8  # of a vector: each takes a register, and a product of it five shuffles
_SPREAD = 128  # of one that is spread over the lanes


@dataclass(frozen=True)
class _Vector:
    """Elements in registers: `names` are those of all of them, or of every 32."""

    first: int
    size: int
    names: list[str]

    @property
    def spread(self) -> bool:
        return len(self.names) < self.size


class Lanes:
    """Writes a run of tiny operations, where all have a form that fits.

    Args:
        later: buffers that operations behind the run read: these are stored.

    Attributes:
        values: what the run has written, by buffer.
    """

    def __init__(self, text: Text, run: list[Operation], later: set[str]) -> None:
        self.text, self.run, self.later = text, run, later
        self.values: dict[str, _Vector] = {}

    def possible(self) -> bool:
        """True when every operation has a form that lanes can take, and finds what it reads."""
        return all(self._form(op) for op in self.run) and self._found()

    def _found(self) -> bool:
        """Whatever was written in the run is read from registers: memory does not have it."""
        written: dict[str, tuple[int, int]] = {}  # first element, size
        for op in self.run:
            assert not isinstance(op, For)
            sizes = op.loops if isinstance(op, Map) else op.loops + op.folds
            views, outputs = operands(op)
            for view in views:
                walked = sizes if len(view.strides) == len(sizes) else op.loops
                spans = [s * (n - 1) for s, n in zip(view.strides, walked, strict=True)]
                low = view.offset + sum(min(0, span) for span in spans)
                high = view.offset + sum(max(0, span) for span in spans)
                first, size = written.get(view.buffer, (low, high - low + 1))
                if low < first or high >= first + size:
                    return False
                if view.buffer in written and size > ELEMENTS:  # spread: all of it, in its order
                    along = [s for s, n in zip(view.strides, walked, strict=True) if n > 1 and s]
                    if along != [1] or (low, high) != (first, first + size - 1):
                        return False
            for view in outputs:
                written[view.buffer] = (view.offset, op.loops[0] if op.loops else 1)
        return True

    def _form(self, op: Operation) -> bool:
        if isinstance(op, Map):
            flat = len(op.loops) <= 1 and all(v.strides in ((), (1,)) for v in op.outputs)
            return flat and (not op.loops or op.loops[0] <= _SPREAD)
        if isinstance(op, Contract):
            flat = len(op.loops) <= 1 and len(op.folds) == 1 and op.output.strides in ((), (1,))
        else:
            flat = isinstance(op, Reduce) and op.loops == () and len(op.folds) == 1
        return flat and (not op.loops or op.loops[0] <= ELEMENTS)  # type: ignore[union-attr]

    def _load(self, view: View, j: int) -> str:
        """Element j: from a register where it is there."""
        at = view.offset + j * (view.strides[0] if view.strides else 0)
        vector = self.values.get(view.buffer)
        if vector is not None:
            return vector.names[at - vector.first]
        return self.text.near.load(view, [str(j)] if view.strides else [])

    def _part(self, view: View, r: int, size: int, strides: tuple[int, ...]) -> str:
        """This lane's element of those from 32·r on, of a vector of `size`."""
        vector = self.values.get(view.buffer)
        if vector is not None and vector.spread:
            return vector.names[r]
        if vector is not None or not any(strides):
            return self._load(view, 0)
        index = f"({32 * r} + lane)" if size >= 32 * r + 32 else f"min({32 * r} + lane, {size - 1})"
        return self.text.near.load(view, [*["0"] * (len(strides) - 1), index])

    def write(self) -> None:
        """All of them."""
        for number, op in enumerate(self.run):
            if op.label:
                self.text.add(comment(op.label))
            if isinstance(op, Map):
                self._map(op, number)
            elif isinstance(op, Contract):
                self._contract(op, number)
            elif isinstance(op, Reduce):
                self._reduce(op, number)
        self.text.add("__syncwarp();")

    def _put(self, view: View, names: list[str], size: int = 0) -> None:
        vector = self.values[view.buffer] = _Vector(view.offset, size or len(names), names)
        if view.buffer not in self.later:
            return
        for j, name in enumerate(names):
            if not vector.spread:
                store = self.text.near.store(view, [str(j)] if view.strides else [], name)
                self.text.add(f"if (lane == 0) {store}")
                continue
            store = self.text.near.store(view, [f"({32 * j} + lane)"], name)
            rest = vector.size - 32 * j
            self.text.add(store if rest >= 32 else f"if (lane < {rest}) {store}")

    def _spread_map(self, op: Map, number: int) -> None:
        size, text = op.loops[0], self.text
        results: list[list[str]] = [[] for _ in op.outputs]
        for r in range(math.ceil(size / 32)):
            names = [f"y{number}_{k}_{r}" for k in range(len(op.outputs))]
            text.add("float " + ", ".join(names) + ";")
            text.open("")
            loads = [self._part(view, r, size, view.strides) for view in op.inputs]
            statements, values = expression(op.body, loads.__getitem__)
            text.add(*statements)
            for k, (name, result) in enumerate(zip(names, op.results, strict=True)):
                text.add(f"{name} = {values[result]};")
                results[k].append(name)
            text.close()
        for view, made in zip(op.outputs, results, strict=True):
            self._put(view, made, size)

    def _map(self, op: Map, number: int) -> None:
        size = op.loops[0] if op.loops else 1
        if size > ELEMENTS:
            self._spread_map(op, number)
            return
        results: list[list[str]] = [[] for _ in op.outputs]
        for j in range(size):
            names = [f"y{number}_{k}_{j}" for k in range(len(op.outputs))]
            statements, values = expression(op.body, lambda i, j=j: self._load(op.inputs[i], j))  # type: ignore[misc]
            self.text.add("float " + ", ".join(names) + ";")
            self.text.open("")
            self.text.add(*statements)
            for k, (name, r) in enumerate(zip(names, op.results, strict=True)):
                self.text.add(f"{name} = {values[r]};")
                results[k].append(name)
            self.text.close()
        for view, made in zip(op.outputs, results, strict=True):
            self._put(view, made)

    def _butterfly(self, names: list[str], join: str) -> None:
        for step in (16, 8, 4, 2, 1):
            for name in names:
                other = f"__shfl_xor_sync(0xffffffffu, {name}, {step})"
                self.text.add(f"{name} = {join.format(name, other)};")

    def _element(self, view: View, index: tuple[int, ...]) -> str:
        """An element by all of its indices."""
        at = view.offset + sum(i * s for i, s in zip(index, view.strides, strict=True))
        vector = self.values.get(view.buffer)
        if vector is not None:
            return vector.names[at - vector.first]
        return self.text.near.load(view, [str(i) for i in index])

    def _contract(self, op: Contract, number: int) -> None:
        outputs, folds, text = (op.loops[0] if op.loops else 1), op.folds[0], self.text
        inside = [self.values[v.buffer] for v in (op.a, op.b) if v.buffer in self.values]
        if inside and not any(vector.spread for vector in inside):
            self._short(op, number, outputs)
            return
        names = [f"y{number}_{j}" for j in range(outputs)]
        text.add("float " + ", ".join(f"{name} = 0.0f" for name in names) + ";")
        for weights, x in ((op.b, op.a), (op.a, op.b)):
            if inside:
                self._spread_product(op, names)
                break
            if self._by_fours(weights, x, folds):
                self._wide(names, weights, x, folds)
                break
        else:
            text.add("#pragma unroll")
            text.open(f"for (int k = lane; k < {folds}; k += 32)")
            for j, name in enumerate(names):
                index = [str(j), "k"] if op.loops else ["k"]
                a, b = text.near.load(op.a, index), text.near.load(op.b, index)
                text.add(f"{name} = fmaf({a}, {b}, {name});")
            text.close()
        self._butterfly(names, FOLDS["sum"][1])
        if op.start is not None:
            for j, name in enumerate(names):
                text.add(f"{name} += {self._load(op.start, j)};")
        self._put(op.output, names)

    def _spread_product(self, op: Contract, names: list[str]) -> None:
        """A product with a vector that is spread over the lanes."""
        folds = op.folds[0]
        for r in range(math.ceil(folds / 32)):
            guard = f"if (lane < {folds - 32 * r}) " if folds < 32 * r + 32 else ""
            for j, name in enumerate(names):
                a, b = (self._factor(op, view, r, j) for view in (op.a, op.b))
                self.text.add(f"{guard}{name} = fmaf({a}, {b}, {name});")

    def _factor(self, op: Contract, view: View, r: int, j: int) -> str:
        if view.buffer in self.values:
            return self._part(view, r, op.folds[0], view.strides)
        index = [str(j), f"min({32 * r} + lane, {op.folds[0] - 1})"]
        return self.text.near.load(view, index[-len(view.strides) :])

    def _by_fours(self, weights: View, x: View, folds: int) -> bool:
        """True for a constant matrix and a vector that lanes can read four numbers at a time."""
        constant = any(name == weights.buffer for name, _, _ in self.text.plan.kept)
        whole = not weights.moves and not x.moves and x.strides[-1] == 1 and folds % 4 == 0
        base = self.text.plan.near[x.buffer][0] + x.offset
        return constant and whole and not any(x.strides[:-1]) and base % 4 == 0

    def _wide(self, names: list[str], weights: View, x: View, folds: int) -> None:
        """Such a product: lane l has inputs 4·l … 4·l + 3 of each 128, and the matrix lies so."""
        text, size = self.text, math.ceil(folds / 128) * 128
        place = text.take(len(names) * size)
        element = text.near.load(weights, ["j", "k"][-len(weights.strides) :])
        text.kept += [
            f"  for (int i = tid; i < {len(names) * size}; i += {THREADS}) {{",
            f"    const int j = i / {size}, k = i % {size};",
            f"    pool[{place} + i] = k < {folds} ? {element} : 0.0f;",
            "  }",
        ]
        for first in range(0, size, 128):
            where = f"({first} + lane * 4)"
            vector = text.near.load(x, ["0", where][-len(x.strides) :])
            value = f"*reinterpret_cast<const float4 *>(&{vector})"
            guard = f"{where} < {folds} ? " if first + 128 > folds else ""
            other = " : make_float4(0.0f, 0.0f, 0.0f, 0.0f)" if guard else ""
            text.open("")
            text.add(f"const float4 x = {guard}{value}{other};")
            for j, name in enumerate(names):
                at = f"&pool[{place + j * size} + {where}]"
                text.add(f"const float4 w{j} = *reinterpret_cast<const float4 *>({at});")
                text.add(*(f"{name} = fmaf(x.{c}, w{j}.{c}, {name});" for c in "xyzw"))
            text.close()

    def _short(self, op: Contract, number: int, outputs: int) -> None:
        """A product of what is in registers: every lane computes all of it."""
        names = []
        for j in range(outputs):
            name = f"y{number}_{j}"
            names.append(name)
            self.text.add(f"float {name} = 0.0f;")
            for k in range(op.folds[0]):
                index = (j, k) if op.loops else (k,)
                a, b = self._element(op.a, index), self._element(op.b, index)
                self.text.add(f"{name} = fmaf({a}, {b}, {name});")
            if op.start is not None:
                self.text.add(f"{name} += {self._load(op.start, j)};")
        self._put(op.output, names)

    def _reduce(self, op: Reduce, number: int) -> None:
        name, text = f"y{number}", self.text
        start, join = FOLDS[op.kind]
        vector, folds = self.values.get(op.x.buffer), op.folds[0]
        if vector is not None and vector.spread:
            parts = [
                one if folds >= 32 * r + 32 else f"(lane < {folds - 32 * r} ? {one} : {start})"
                for r, one in enumerate(vector.names)
            ]
            total = parts[0]
            for part in parts[1:]:
                total = join.format(total, part)
            text.add(f"float {name} = {total};")
            self._butterfly([name], join)
        elif vector is not None:
            total = self._load(op.x, 0)
            for j in range(1, folds):
                total = join.format(total, self._load(op.x, j))
            text.add(f"const float {name} = {total};")
        else:
            text.add(f"float {name} = {start};")
            value = text.near.load(op.x, ["k"])
            text.add("#pragma unroll")
            head = f"for (int k = lane; k < {folds}; k += 32)"
            text.add(f"{head} {name} = {join.format(name, value)};")
            self._butterfly([name], join)
        self._put(op.output, [name])
