"""An ONNX model as a PyTorch module, as somebody would write it there: for `tickrt bench engine`.

Entry point: `torch_module(content)`. The module is straight-line code (`torch.fx`): operators by
`torch` and `torch.nn.functional`, recurrent layers by `torch.nn`, which runs them in cuDNN.

Limits: the operators of the shipped and reference models, in the forms that they have there.
Anything else is refused by name. Whoever uses it compares the answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from tickrt.errors import ModelError

__all__ = ["torch_module"]

_SAME = {
    "Add": "add",
    "Div": "div",
    "Less": "lt",
    "MatMul": "matmul",
    "Mul": "mul",
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Sqrt": "sqrt",
    "Sub": "sub",
    "Tanh": "tanh",
    "Where": "where",
}
# Where PyTorch keeps the gates that ONNX has in its own order.
_GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}


class _Writer:
    """Writes the graph; `values` are its nodes by name, `constants` what is known already."""

    def __init__(self, model: onnx.ModelProto) -> None:
        import torch
        from torch import fx

        self.torch, self.root, self.graph = torch, torch.nn.Module(), fx.Graph()
        self.constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.values: dict[str, Any] = {}
        for value in model.graph.input:
            if value.name not in self.constants:
                self.values[value.name] = self.graph.placeholder("rows")

    def value(self, name: str) -> Any:
        """The node of a name; a constant becomes a buffer when it is first asked for."""
        if name not in self.values:
            held = f"c{len(self.values)}"
            array = np.array(self.constants[name])
            self.root.register_buffer(held, self.torch.from_numpy(array))
            self.values[name] = self.graph.get_attr(held)
        return self.values[name]

    def numbers(self, node: onnx.NodeProto, i: int) -> list[int] | None:
        """Input `i`, which must be a constant, as integers; None where it is not given."""
        if len(node.input) <= i or not node.input[i]:
            return None
        if node.input[i] not in self.constants:
            raise _refused(node, f"its input {i} is no constant")
        return [int(v) for v in np.ravel(self.constants[node.input[i]])]

    def call(self, function: Any, *arguments: Any, **more: Any) -> Any:
        return self.graph.call_function(function, arguments, more)


def _refused(node: onnx.NodeProto, why: str) -> ModelError:
    return ModelError(f"no PyTorch module of it: {node.op_type} {node.output[0]!r}: {why}")


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def _recurrent(w: _Writer, node: onnx.NodeProto, given: dict[str, Any]) -> tuple[Any, ...]:
    nn, kind = w.torch.nn, node.op_type
    hidden = int(given.pop("hidden_size"))
    if kind == "GRU" and not given.pop("linear_before_reset", 0):
        raise _refused(node, "torch.nn.GRU applies the reset gate after the product")
    if given.pop("direction", b"forward") != b"forward" or given:
        raise _refused(node, f"it is not plain: {sorted(given) or 'direction'}")
    if any(node.input[4:]):
        raise _refused(node, "it has lengths or first states")
    weight, recurrence = (w.constants[name][0] for name in node.input[1:3])
    layer = getattr(nn, kind)(weight.shape[1], hidden)
    blocks, order = len(_GATES[kind]), _GATES[kind]
    bias = np.zeros(2 * blocks * hidden, np.float32)
    if len(node.input) > 3 and node.input[3]:
        bias = w.constants[node.input[3]][0]
    parts = {"weight_ih_l0": weight, "weight_hh_l0": recurrence}
    parts["bias_ih_l0"], parts["bias_hh_l0"] = bias[: len(bias) // 2], bias[len(bias) // 2 :]
    with w.torch.no_grad():
        for name, array in parts.items():
            ordered = np.concatenate([np.split(array, blocks)[i] for i in order])
            getattr(layer, name).copy_(w.torch.from_numpy(ordered))
    name = f"layer{sum(1 for _ in w.root.children())}"
    w.root.add_module(name, layer)
    found = w.graph.call_module(name, (w.value(node.input[0]),))
    states, last = (w.call(_item, found, i) for i in (0, 1))
    outputs = [w.call(w.torch.unsqueeze, states, 1)]
    outputs += [w.call(_item, last, i) for i in (0, 1)] if kind == "LSTM" else [last]
    return tuple(outputs[: len(node.output)])


def _item(values: Any, i: int) -> Any:
    return values[i]


def _padded(w: _Writer, x: Any, given: dict[str, Any], fill: float) -> Any:
    """`x` with the node's padding: torch counts the last axis first."""
    pads = list(given.pop("pads", ()))
    if not any(pads):
        return x
    half = len(pads) // 2
    flat = [p for i in reversed(range(half)) for p in (pads[i], pads[half + i])]
    return w.call(w.torch.nn.functional.pad, x, flat, "constant", fill)


def _conv(w: _Writer, node: onnx.NodeProto, given: dict[str, Any]) -> Any:
    weight = w.constants[node.input[1]]
    function = getattr(w.torch.nn.functional, f"conv{weight.ndim - 2}d")
    x = _padded(w, w.value(node.input[0]), given, 0.0)
    bias = w.value(node.input[2]) if len(node.input) > 2 else None
    ones = [1] * (weight.ndim - 2)
    stride, dilation = (list(given.pop(name, ones)) for name in ("strides", "dilations"))
    return w.call(
        function,
        *(x, w.value(node.input[1]), bias, stride, 0, dilation, int(given.pop("group", 1))),
    )


def _max_pool(w: _Writer, node: onnx.NodeProto, given: dict[str, Any]) -> Any:
    kernel = list(given.pop("kernel_shape"))
    x = _padded(w, w.value(node.input[0]), given, float("-inf"))
    stride = list(given.pop("strides", [1] * len(kernel)))
    return w.call(getattr(w.torch.nn.functional, f"max_pool{len(kernel)}d"), x, kernel, stride)


def _gemm(w: _Writer, node: onnx.NodeProto, given: dict[str, Any]) -> Any:
    if given.pop("transA", 0) or given.pop("alpha", 1.0) != 1 or given.pop("beta", 1.0) != 1:
        raise _refused(node, "it transposes A, or scales")
    a, b, *c = (w.value(name) for name in node.input)
    if not given.pop("transB", 0):
        b = w.call(w.torch.t, b)
    return w.call(w.torch.nn.functional.linear, a, b, *c)


def _gather(w: _Writer, node: onnx.NodeProto, given: dict[str, Any]) -> Any:
    index = w.constants.get(node.input[1])
    if index is None or index.ndim:
        raise _refused(node, "its index is not one number")
    return w.call(w.torch.select, w.value(node.input[0]), given.pop("axis", 0), int(index))


def _reshape(w: _Writer, node: onnx.NodeProto, given: dict[str, Any]) -> Any:
    x, sizes = w.value(node.input[0]), w.numbers(node, 1) or []
    shape = [w.call(_size, x, i) if n == 0 else n for i, n in enumerate(sizes)]
    return w.call(w.torch.reshape, x, shape)


def _size(x: Any, i: int) -> Any:
    return x.shape[i]


def _axes(w: _Writer, node: onnx.NodeProto, given: dict[str, Any]) -> list[int]:
    axes = given.pop("axes", None) or w.numbers(node, 1)
    if axes is None:
        raise _refused(node, "it names no axes")
    return list(axes)


def _squeeze(w: _Writer, node: onnx.NodeProto, given: dict[str, Any]) -> Any:
    return w.call(w.torch.squeeze, w.value(node.input[0]), tuple(_axes(w, node, given)))


def _unsqueeze(w: _Writer, node: onnx.NodeProto, given: dict[str, Any]) -> Any:
    x = w.value(node.input[0])
    for axis in sorted(_axes(w, node, given)):
        x = w.call(w.torch.unsqueeze, x, axis)
    return x


def _reduced(w: _Writer, node: onnx.NodeProto, given: dict[str, Any]) -> Any:
    function = w.torch.mean if node.op_type == "ReduceMean" else w.torch.sum
    axes, keep = _axes(w, node, given), bool(given.pop("keepdims", 1))
    return w.call(function, w.value(node.input[0]), axes, keepdim=keep)


def _layer_norm(w: _Writer, node: onnx.NodeProto, given: dict[str, Any]) -> Any:
    if given.pop("axis", -1) != -1:
        raise _refused(node, "not along the last axis")
    x, *scale = (w.value(name) for name in node.input)
    shape, epsilon = list(w.constants[node.input[1]].shape), given.pop("epsilon", 1e-5)
    bias = scale[1] if len(scale) > 1 else None
    return w.call(w.torch.nn.functional.layer_norm, x, shape, scale[0], bias, epsilon)


def _batch_norm(w: _Writer, node: onnx.NodeProto, given: dict[str, Any]) -> Any:
    given.pop("momentum", None)
    x, scale, bias, mean, variance = (w.value(name) for name in node.input)
    return w.call(
        w.torch.nn.functional.batch_norm,
        *(x, mean, variance, scale, bias, False, 0.0, given.pop("epsilon", 1e-5)),
    )


def _with_axis(name: str, default: int) -> Callable[..., Any]:
    def write(w: _Writer, node: onnx.NodeProto, given: dict[str, Any]) -> Any:
        axis, xs = given.pop("axis", default), [w.value(name) for name in node.input]
        return w.call(getattr(w.torch, name), xs if name == "cat" else xs[0], axis)

    return write


def _permute(w: _Writer, node: onnx.NodeProto, given: dict[str, Any]) -> Any:
    return w.call(w.torch.permute, w.value(node.input[0]), list(given.pop("perm")))


def _leaky(w: _Writer, node: onnx.NodeProto, given: dict[str, Any]) -> Any:
    slope = given.pop("alpha", 0.01)
    return w.call(w.torch.nn.functional.leaky_relu, w.value(node.input[0]), slope)


_WRITERS: dict[str, Callable[..., Any]] = {
    "BatchNormalization": _batch_norm,
    "Concat": _with_axis("cat", 0),
    "Conv": _conv,
    "Flatten": _with_axis("flatten", 1),
    "GRU": _recurrent,
    "Gather": _gather,
    "Gemm": _gemm,
    "LSTM": _recurrent,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": _leaky,
    "MaxPool": _max_pool,
    "RNN": _recurrent,
    "ReduceMean": _reduced,
    "ReduceSum": _reduced,
    "Reshape": _reshape,
    "Softmax": _with_axis("softmax", -1),
    "Squeeze": _squeeze,
    "Transpose": _permute,
    "Unsqueeze": _unsqueeze,
}


def _write(w: _Writer, node: onnx.NodeProto) -> None:
    given = _attributes(node)
    if node.op_type == "Constant":
        w.constants[node.output[0]] = numpy_helper.to_array(given["value"])
        return
    if node.op_type == "Identity":
        found = w.value(node.input[0])
    elif node.op_type in _SAME:
        function = getattr(w.torch, _SAME[node.op_type])
        found = w.call(function, *(w.value(name) for name in node.input))
    elif node.op_type in _WRITERS:
        found = _WRITERS[node.op_type](w, node, given)
    else:
        raise _refused(node, "there is no rule for this operator")
    given.pop("kernel_shape", None)  # the weights say it
    if given and node.op_type not in _GATES:
        raise _refused(node, f"it has {sorted(given)}")
    values = found if isinstance(found, tuple) else (found,)
    w.values.update(zip(node.output, values, strict=True))


def torch_module(content: bytes) -> Any:
    """A `torch.nn.Module` from the window float32 [1, T, F] to the outputs [1, n], on the CPU.

    Raises:
        ModelError: an operator, or a form of one, has no rule here; names it.
    """
    from torch import fx

    model = onnx.load_model_from_string(content)
    w = _Writer(model)
    for node in model.graph.node:
        _write(w, node)
    w.graph.output(w.value(model.graph.output[0].name))
    return fx.GraphModule(w.root, w.graph).eval()
