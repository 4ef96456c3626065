"""From a torch module to an ONNX file that the loop accepts, checked at once.

Entry point: ``export_onnx(module, path, spec)`` → `Exported`. The file is written last: what fails
a check leaves no file behind. Imports torch when it is called.

Known limit: the module must map ``rows`` [batch, T, F] to the probabilities of down, flat, up
[batch, 3]; end one that gives logits with a softmax.
"""

from __future__ import annotations

import copy
import os
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from tickrt.engines.graph.check import check_spec, loop_model
from tickrt.engines.graph.ort import open_session
from tickrt.errors import ConfigError, ModelError
from tickrt.feature.spec import FeatureSpec, load_spec
from tickrt.files import write_file

if TYPE_CHECKING:
    import torch

__all__ = ["Exported", "export_onnx"]

OPSET = 17
TOLERANCE = 1e-5  # of a probability, torch beside ONNX Runtime
_SUM_TOLERANCE = 1e-3  # of the sum of the three
_WINDOWS = 64
_RECURRENT = ("LSTM", "GRU", "RNN")


@dataclass(frozen=True)
class Exported:
    """An ONNX file that was written and checked.

    Attributes:
        path: the file.
        sha256: of its content.
        difference: the largest difference of a probability between torch and ONNX Runtime.
    """

    path: Path
    sha256: str
    difference: float


def export_onnx(
    module: torch.nn.Module,
    path: str | os.PathLike[str],
    spec: FeatureSpec | str | os.PathLike[str],
    *,
    metadata: Mapping[str, str] | None = None,
    tolerance: float = TOLERANCE,
) -> Exported:
    """Write a trained module as the ONNX model of a feature spec, and check what was written.

    The input is called ``rows``, the output ``probabilities``, the batch is dynamic; the spec's
    name and hash go into the metadata, so that the loop refuses the model with any other spec. The
    module itself stays as it is, in its mode and on its device.

        model = torch.nn.Sequential(network, torch.nn.Softmax(dim=1))
        tr.export_onnx(model, "mine.onnx", "my.toml")

    Args:
        module: float32 [batch, T, F] → float32 [batch, 3], probabilities of down, flat, up.
        path: the file to write; an existing one is replaced, missing folders are made.
        spec: what the module was trained on: a `FeatureSpec`, a shipped one's name, or a path.
        metadata: more entries, e.g. ``{"tickrt.horizon_ns": "100000000"}``.
        tolerance: the largest difference of a probability between torch and ONNX Runtime, on
            64 random windows.

    Raises:
        ConfigError: torch is not installed.
        ModelError: torch cannot export the module, its interface is another one, it gives no
            probabilities, or ONNX Runtime computes something else.
        FeatureMismatchError: it does not fit the spec.
    """
    try:
        import torch
    except ImportError as error:
        raise ConfigError(
            f"export_onnx needs torch: pip install 'tickrt[train]' ({error})"
        ) from error
    target = Path(path)
    found = spec if isinstance(spec, FeatureSpec) else load_spec(Path(spec))
    twin = copy.deepcopy(module).cpu().eval()
    model = _exported(twin, (2, found.window, found.width), target)
    _drop_zero_states(model.graph)
    said = {"tickrt.feature_hash": found.hash, "tickrt.spec": found.name, **(metadata or {})}
    for key, value in sorted(said.items()):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    content = model.SerializeToString(deterministic=True)
    facts = loop_model(content, str(target))
    check_spec(facts, found)
    generator = torch.Generator().manual_seed(0)
    windows = torch.randn(_WINDOWS, found.window, found.width, generator=generator)
    with torch.no_grad():
        expected = twin(windows).numpy()
    difference = _difference(content, windows.numpy(), expected, target, tolerance)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_file(target, [content])
    return Exported(target, facts.sha256, difference)


def _exported(module: torch.nn.Module, shape: tuple[int, ...], target: Path) -> onnx.ModelProto:
    """The ONNX model, as torch writes it for an example of `shape`."""
    import torch

    axes = {"rows": {0: "batch"}, "probabilities": {0: "batch"}}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # torch warns of LSTMs with a variable batch; they are compared with another batch.
        warnings.simplefilter("ignore")
        file = Path(folder) / "model.onnx"
        try:
            with torch.no_grad():
                made = module(torch.zeros(shape))
            torch.onnx.export(
                module,
                (torch.zeros(shape),),
                str(file),
                input_names=["rows"],
                output_names=["probabilities"],
                opset_version=OPSET,
                dynamic_axes=axes,
                dynamo=False,
            )
        except Exception as error:  # torch raises whatever the module's code raises
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelError(
                f"{target}: torch cannot export the module for windows of {list(shape)}: {first}"
            ) from error
        if tuple(made.shape) != (shape[0], 3):
            raise ModelError(
                f"{target}: the module makes {list(made.shape)} of windows {list(shape)}, expected "
                f"[{shape[0]}, 3]: the probabilities of down, flat, up"
            )
        return onnx.load(file)


def _difference(
    content: bytes,
    windows: NDArray[np.float32],
    expected: NDArray[np.float32],
    target: Path,
    tolerance: float,
) -> float:
    """How far ONNX Runtime is from torch's answers.

    Raises:
        ModelError: too far, or they are no probabilities.
    """
    if expected.min() < 0 or np.abs(expected.sum(1) - 1).max() > _SUM_TOLERANCE:
        raise ModelError(
            f"{target}: the module's outputs are no probabilities (they reach from "
            f"{expected.min():.3g} to {expected.max():.3g}): end it with torch.nn.Softmax(dim=1)"
        )
    session = open_session(content, threads=0)
    got: Any = session.run(["probabilities"], {"rows": windows})[0]
    difference = float(np.abs(got - expected).max())
    if not difference < tolerance:
        raise ModelError(
            f"{target}: ONNX Runtime's probabilities differ from torch's by {difference:.1g}, "
            f"expected less than {tolerance:g}: this export is wrong, do not use it"
        )
    return difference


def _is_zero(makers: dict[str, Any], name: str) -> bool:
    """Whether a value is zeros of a computed shape, or a slice of such."""
    maker = makers.get(name)
    if maker is not None and maker.op_type == "Slice":
        return _is_zero(makers, maker.input[0])
    if maker is None or maker.op_type != "ConstantOfShape":
        return False
    values = [numpy_helper.to_array(a.t) for a in maker.attribute if a.name == "value"]
    return not any(value.any() for value in values)


def _drop_zero_states(graph: Any) -> None:
    """Take out the zero initial states that torch computes from the batch size.

    ONNX starts a recurrent layer at zero when none is given; without them the graph has no shape
    arithmetic.
    """
    makers = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type in _RECURRENT:
            for i in range(5, min(7, len(node.input))):
                if _is_zero(makers, node.input[i]):
                    node.input[i] = ""
            while node.input and not node.input[-1]:
                node.input.pop()
    used = {output.name for output in graph.output}
    for node in reversed(list(graph.node)):
        if used.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            used.update(node.input)
