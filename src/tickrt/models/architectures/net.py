"""A small builder of ONNX models that read ``rows`` float32 [batch, T, F]; opset 17."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["Net"]

Array = npt.NDArray[Any]
CLASSES = 3


class Net:
    """Builds a graph from ``rows`` on.

    Args:
        window, features: T and F of the input [batch, T, F].
        seed: of the random weights.
        batch: size of the batch; None leaves it open.
    """

    def __init__(self, window: int, features: int, seed: int = 0, batch: int | None = None) -> None:
        self.window, self.features, self.batch = window, features, batch
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}

    def op(self, op: str, *inputs: str | Array, outputs: int = 1, **attrs: Any) -> str:
        """Add an operator (arrays become constants); its first output."""
        return self.ops(op, *inputs, outputs=outputs, **attrs)[0]

    def ops(self, op: str, *inputs: str | Array, outputs: int = 1, **attrs: Any) -> list[str]:
        """Add an operator; all its outputs."""
        names = [i if isinstance(i, str) else self.constant(i) for i in inputs]
        made = [f"{op.lower()}_{len(self.nodes)}_{i}" for i in range(outputs)]
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, names, made, name=name, **attrs))
        return made

    def constant(self, value: Array) -> str:
        """Add an initialiser."""
        name = f"const_{len(self.constants)}"
        self.constants[name] = np.asarray(value, order="C")
        return name

    def uniform(self, *shape: int, fan_in: int) -> Array:
        """Uniform in ±1/√fan_in, as PyTorch starts its layers."""
        limit = 1 / np.sqrt(fan_in)
        return self.rng.uniform(-limit, limit, shape).astype(np.float32)

    def linear(self, x: str, inputs: int, outputs: int) -> str:
        """x·W + b on the last axis."""
        weight = self.uniform(inputs, outputs, fan_in=inputs)
        return self.op("Add", self.op("MatMul", x, weight), self.uniform(outputs, fan_in=inputs))

    def layer_norm(self, x: str, width: int) -> str:
        """LayerNormalization on the last axis."""
        scale = 1 + 0.1 * self.rng.standard_normal(width).astype(np.float32)
        return self.op("LayerNormalization", x, scale, np.zeros(width, np.float32), axis=-1)

    def last(self, x: str) -> str:
        """Position T−1 of [batch, T, ..]."""
        return self.op("Gather", x, np.array(-1), axis=1)

    def head(self, x: str, width: int) -> str:
        """Linear and softmax to three classes."""
        return self.op("Softmax", self.linear(x, width, CLASSES), axis=-1)

    def model(
        self, output: str, name: str, shape: list[int | str] | None = None
    ) -> onnx.ModelProto:
        """Finish: `output`, made by the last operator, becomes ``probabilities``.

        Args:
            shape: of the output; default [batch, 3].
        """
        if output not in self.nodes[-1].output:
            raise ValueError(f"{output!r} was not made by the last operator")
        last = list(self.nodes[-1].output)
        self.nodes[-1].output[last.index(output)] = "probabilities"
        batch: int | str = self.batch or "batch"
        dims = [batch, self.window, self.features]
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info("rows", TensorProto.FLOAT, dims)],
            [
                helper.make_tensor_value_info(
                    "probabilities", TensorProto.FLOAT, shape or [batch, 3]
                )
            ],
            [numpy_helper.from_array(v, k) for k, v in self.constants.items()],
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="tickrt"
        )
        model.ir_version = 8
        onnx.checker.check_model(model)
        return model
