"""Tiny operations of a step in the registers of one warp: `Lanes`.

Vectors of a few elements are in every lane, an element per register, so what follows a product –
a softmax over three outputs, say – needs no memory and no exchange between lanes. What a later
operation reads is also stored.
"""

from __future__ import annotations

import math

from tickrt.engines.resident.text import FOLDS, comment, expression
from tickrt.engines.resident.writer import Text
from tickrt.program import Contract, For, Map, Operation, Reduce, View
from tickrt.program.ir import operands

__all__ = ["Lanes"]

_KEPT = 4  # times four registers of every thread, for the weights of a product
_ELEMENTS = 8  # of a vector: each takes a register, and a product of it five shuffles


class Lanes:
    """Writes a run of tiny operations, where all have a form that fits.

    Args:
        later: buffers that operations behind the run read: these are stored.

    Attributes:
        values: buffer → (first element, a register's name per element).
    """

    def __init__(self, text: Text, run: list[Operation], later: set[str]) -> None:
        self.text, self.run, self.later = text, run, later
        self.values: dict[str, tuple[int, list[str]]] = {}

    def possible(self) -> bool:
        """True when every operation has a form that lanes can take, and finds what it reads."""
        return all(self._form(op) for op in self.run) and self._found()

    def _found(self) -> bool:
        """Whatever was written in the run is read from registers: memory does not have it."""
        written: dict[str, tuple[int, int]] = {}
        for op in self.run:
            assert not isinstance(op, For)
            sizes = op.loops if isinstance(op, Map) else op.loops + op.folds
            views, outputs = operands(op)
            for view in views:
                walked = sizes if len(view.strides) == len(sizes) else op.loops
                spans = [s * (n - 1) for s, n in zip(view.strides, walked, strict=True)]
                low = view.offset + sum(min(0, span) for span in spans)
                high = view.offset + sum(max(0, span) for span in spans)
                first, last = written.get(view.buffer, (low, high))
                if low < first or high > last:
                    return False
            for view in outputs:
                last = view.offset + (op.loops[0] if op.loops else 1) - 1
                written[view.buffer] = (view.offset, last)
        return True

    def _form(self, op: Operation) -> bool:
        if isinstance(op, Map):
            flat = len(op.loops) <= 1 and all(v.strides in ((), (1,)) for v in op.outputs)
        elif isinstance(op, Contract):
            flat = len(op.loops) <= 1 and len(op.folds) == 1 and op.output.strides in ((), (1,))
        else:
            flat = isinstance(op, Reduce) and op.loops == () and len(op.folds) == 1
        return flat and (not op.loops or op.loops[0] <= _ELEMENTS)  # type: ignore[union-attr]

    def _load(self, view: View, j: int) -> str:
        """Element j: from a register where it is there."""
        at = view.offset + j * (view.strides[0] if view.strides else 0)
        first, names = self.values.get(view.buffer, (0, []))
        if 0 <= at - first < len(names):
            return names[at - first]
        return self.text.near.load(view, [str(j)] if view.strides else [])

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

    def _put(self, view: View, names: list[str]) -> None:
        self.values[view.buffer] = (view.offset, names)
        if view.buffer in self.later:
            for j, name in enumerate(names):
                store = self.text.near.store(view, [str(j)] if view.strides else [], name)
                self.text.add(f"if (lane == 0) {store}")

    def _map(self, op: Map, number: int) -> None:
        size = op.loops[0] if op.loops else 1
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
        first, names = self.values.get(view.buffer, (at, []))
        if names:
            return names[at - first]
        return self.text.near.load(view, [str(i) for i in index])

    def _contract(self, op: Contract, number: int) -> None:
        outputs, folds, text = (op.loops[0] if op.loops else 1), op.folds[0], self.text
        if op.a.buffer in self.values or op.b.buffer in self.values:
            self._short(op, number, outputs)
            return
        names = [f"y{number}_{j}" for j in range(outputs)]
        text.add("float " + ", ".join(f"{name} = 0.0f" for name in names) + ";")
        for weights, x in ((op.b, op.a), (op.a, op.b)):
            if self._stays(weights, x, outputs, folds):
                self._kept(names, weights, x, folds)
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

    def _stays(self, weights: View, x: View, outputs: int, folds: int) -> bool:
        """True for a constant matrix that a lane has room for, and a vector to read by fours."""
        constant = any(name == weights.buffer for name, _, _ in self.text.plan.kept)
        few = outputs * math.ceil(folds / 128) <= _KEPT and folds % 4 == 0
        whole = not weights.moves and not x.moves and x.strides[-1] == 1
        base = self.text.plan.near[x.buffer][0] + x.offset
        return constant and few and whole and not any(x.strides[:-1]) and base % 4 == 0

    def _kept(self, names: list[str], weights: View, x: View, folds: int) -> None:
        """A product whose weights stay in registers: lane l has inputs 4·l … 4·l + 3 of each 128."""
        text = self.text
        for chunk in range(math.ceil(folds / 128)):
            place = f"{128 * chunk} + lane * 4" if chunk else "lane * 4"
            inside = f"{place} < {folds}"
            first = text.near.load(x, ["0", f"({place})"][-len(x.strides) :])
            value = f"*reinterpret_cast<const float4 *>(&{first})"
            kept = [f"k{len(text.kept)}_{j}" for j in range(len(names))]
            text.open("")
            zero = "make_float4(0.0f, 0.0f, 0.0f, 0.0f)"
            text.add(f"const float4 x = {inside} ? {value} : {zero};")
            for j, (name, weight) in enumerate(zip(names, kept, strict=True)):
                parts = []
                for i in range(4):
                    index = [str(j), f"({place} + {i})"][-len(weights.strides) :]
                    parts.append(f"{inside} ? {text.near.load(weights, index)} : 0.0f")
                text.kept.append(f"  const float4 {weight} = make_float4({', '.join(parts)});")
                text.add(*(f"{name} = fmaf(x.{c}, {weight}.{c}, {name});" for c in "xyzw"))
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
        if op.x.buffer in self.values:
            total = self._load(op.x, 0)
            for j in range(1, op.folds[0]):
                total = join.format(total, self._load(op.x, j))
            text.add(f"const float {name} = {total};")
        else:
            text.add(f"float {name} = {start};")
            value = text.near.load(op.x, ["k"])
            text.add("#pragma unroll")
            head = f"for (int k = lane; k < {op.folds[0]}; k += 32)"
            text.add(f"{head} {name} = {join.format(name, value)};")
            self._butterfly([name], join)
        self._put(op.output, [name])
