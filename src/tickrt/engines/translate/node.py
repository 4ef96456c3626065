"""What a rule sees of a node: its inputs as tensors, its attributes, the shapes of its outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from tickrt.engines.translate.builder import ProgramBuilder, TranslateError
from tickrt.engines.translate.tensors import Tensor

__all__ = ["NodeContext"]


class NodeContext:
    """One node of the graph that is being translated.

    Args:
        tensors: what was translated so far, by name.
        values: of every tensor of the graph at batch 1: the true value of constants, and the shape
            and type of all.
        constants: names of those that are constants.
    """

    def __init__(
        self,
        node: onnx.NodeProto,
        builder: ProgramBuilder,
        tensors: dict[str, Tensor],
        values: dict[str, NDArray[Any]],
        constants: set[str],
    ) -> None:
        self.node, self.b = node, builder
        self._tensors, self._values, self._constants = tensors, values, constants
        self.attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}

    @property
    def op(self) -> str:
        """Operator type."""
        return str(self.node.op_type)

    @property
    def inputs(self) -> int:
        """How many inputs are listed."""
        return len(self.node.input)

    def has(self, index: int) -> bool:
        """True when that input is given."""
        return index < len(self.node.input) and bool(self.node.input[index])

    def value(self, index: int) -> NDArray[Any] | None:
        """That input's value, where it is constant."""
        if not self.has(index) or self.node.input[index] not in self._constants:
            return None
        return self._values[self.node.input[index]]

    def known(self, index: int, what: str) -> NDArray[Any]:
        """That input's value.

        Raises:
            TranslateError: it is computed, or left out.
        """
        value = self.value(index)
        if value is None:
            raise TranslateError(f"its {what} are not constant")
        return value

    def ints(self, index: int, name: str) -> list[int] | None:
        """Integers from an input, or in older opsets from the attribute `name`."""
        if self.has(index):
            return [int(v) for v in self.known(index, name).ravel()]
        listed = self.attributes.get(name)
        return None if listed is None else [int(v) for v in listed]

    def x(self, index: int) -> Tensor:
        """That input as a tensor."""
        name = self.node.input[index]
        if name in self._tensors:
            return self._tensors[name]
        if name not in self._constants:
            raise TranslateError(f"input {name!r} is an output that no rule makes")
        value = self._values[name]
        if value.dtype.kind not in "fbiu":
            raise TranslateError(f"input {name!r} has type {value.dtype}")
        if not value.size:
            raise TranslateError(f"input {name!r} is empty")
        self._tensors[name] = self.b.constant(value.astype(np.float32), name)
        return self._tensors[name]

    def output(self, index: int) -> NDArray[Any]:
        """That output where the graph's inputs are zeros."""
        return self._values[self.node.output[index]]

    def shape(self, index: int = 0) -> tuple[int, ...]:
        """The shape of that output at batch 1."""
        return tuple(self.output(index).shape)

    def output_dtype(self, index: int) -> np.dtype[Any]:
        """The type of that output."""
        return self.output(index).dtype

    def number(self, name: str, default: float) -> float:
        """A float attribute."""
        return float(self.attributes.get(name, default))

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        return int(self.attributes.get(name, default))

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else str(value)

    def axis(self, default: int, rank: int) -> int:
        """The attribute ``axis``, counted from 0."""
        return self.integer("axis", default) % rank
