"""The shipped networks in torch: training loop and ONNX export. Imports torch; nothing else may.

The network is an LSTM over the rows of a window, a linear layer on its last output, and a softmax:
``rows`` [batch, T, F] → ``probabilities`` [batch, 3]. It is trained on chunks of 1.5 windows with a
loss at each row of the last window's length, so one pass over the chunk teaches many windows; each
such row has at least half a window before it.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from tickrt.engines.graph.ort import open_session
from tickrt.errors import ModelError
from tickrt.feature.spec import FeatureSpec
from tickrt.training.dataset import F4, I8, Mirror, mirror_of
from tickrt.training.evaluate import batches, metrics

__all__ = ["Recipe", "export", "fit"]

OPSET = 17
EXPORT_TOLERANCE = 1e-5  # of a probability


@dataclass(frozen=True)
class Recipe:
    """How one model is made.

    `column_dropout`: share of the columns that are zero for a whole chunk. `depth_decay`: book
    level n is scaled by ``n ** −depth_decay`` while it trains, so that deep levels are learned
    slower; the factors are folded into the weights afterwards.
    """

    spec: str
    layers: int
    hidden: int
    horizon_ns: int = 100_000_000
    epochs: int = 30
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    dropout: float = 0.3
    column_dropout: float = 0.0
    depth_decay: float = 0.0
    batch: int = 32


class Network(nn.Module):
    """LSTM → linear, logits at every row; `Window` turns the last one into probabilities.

    In training, columns are dropped for a chunk as a whole.
    """

    gain: torch.Tensor

    def __init__(self, gain: F4, recipe: Recipe) -> None:
        super().__init__()
        width = len(gain)
        self.register_buffer("gain", torch.from_numpy(gain))
        between = recipe.dropout if recipe.layers > 1 else 0.0
        self.lstm = nn.LSTM(width, recipe.hidden, recipe.layers, batch_first=True, dropout=between)
        self.columns = nn.Dropout(recipe.column_dropout)
        self.dropout = nn.Dropout(recipe.dropout)
        self.head = nn.Linear(recipe.hidden, 3)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        kept = self.columns(torch.ones_like(rows[:, :1]))
        out, _ = self.lstm(rows * (self.gain * kept))
        return self.head(self.dropout(out))

    def fold(self) -> Network:
        """Move the gain into the first layer's weights."""
        with torch.no_grad():
            self.lstm.weight_ih_l0 *= self.gain
            self.gain.fill_(1.0)
        return self


class Window(nn.Module):
    """What is exported: probabilities after the last row."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        out, _ = self.network.lstm(rows)
        return torch.softmax(self.network.head(out[:, -1]), dim=1)


def class_weights(labels: I8) -> torch.Tensor:
    """Inverse square root of the class shares, mean 1 over the samples."""
    share = np.maximum(np.bincount(labels, minlength=3), 1) / len(labels)
    weights = share**-0.5
    return torch.tensor(weights / (weights * share).sum(), dtype=torch.float32)


def gain(names: tuple[str, ...], decay: float) -> F4:
    """The factor of each column: n ** −decay for level n of the book, else 1."""
    level = [int(n.rsplit("_", 1)[1]) if n.startswith(("bid_", "ask_")) else 1 for n in names]
    factors: F4 = (np.array(level) ** -decay).astype(np.float32)
    return factors


def fit(
    rows: F4,
    labels: I8,
    parts: tuple[I8, I8],
    recipe: Recipe,
    spec: FeatureSpec,
    seed: int,
    progress: Callable[[int, dict[str, Any]], None],
) -> tuple[Network, list[dict[str, Any]]]:
    """Train; keep the epoch with the best macro-F1 on the validation part.

    Args:
        rows: float32 [N, F], normalised.
        labels: int64 [N]; −1 where there is none.
        parts: samples of the training and of the validation part.
        spec: of the rows: the window, the columns, and their mirror (bid and ask of half of the
            chunks are exchanged, where the spec has one).
        seed: of everything that is drawn.
        progress: called after each epoch with its number and figures.

    Returns:
        the network, and the figures of each epoch.
    """
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    window, mirror = spec.window, mirror_of(spec)
    network = Network(gain(spec.names, recipe.depth_decay), recipe)
    optimiser = torch.optim.AdamW(
        network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    train, validation = parts
    weights = class_weights(labels[train])
    steps = recipe.epochs * len(list(_chunks(train, window, recipe.batch, generator)))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.learning_rate, total_steps=steps + recipe.epochs
    )
    best, best_f1, history = copy.deepcopy(network), -1.0, []
    for epoch in range(recipe.epochs):
        begin = time.perf_counter()
        network.train()
        losses = []
        for ends in _chunks(train, window, recipe.batch, generator):
            x, y = _chunk(rows, labels, ends, window, int(train[-1]))
            if mirror is not None:
                _mirror(x, y, mirror, generator)
            logits = network(torch.from_numpy(x))[:, window // 2 :]
            loss = nn.functional.cross_entropy(
                logits.flatten(0, 1), torch.from_numpy(y).flatten(), weights, ignore_index=-1
            )
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            if schedule.last_epoch < schedule.total_steps - 1:
                schedule.step()
            losses.append(loss.item())
        figures = _validate(network, rows, labels, validation[::5], window, weights)
        figures |= {"loss": float(np.mean(losses)), "seconds": time.perf_counter() - begin}
        history.append({"epoch": epoch + 1, **figures})
        if figures["macro_f1"] > best_f1:
            best, best_f1 = copy.deepcopy(network), figures["macro_f1"]
        progress(epoch + 1, figures)
    return best.eval().fold(), history


def _chunks(
    train: I8, window: int, batch: int, generator: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Last rows of this epoch's chunks, in batches: a random phase, a window apart, shuffled."""
    first = int(train[0]) + window // 2 + int(generator.integers(window))
    ends = np.arange(first, int(train[-1]) + 1, window)
    generator.shuffle(ends)
    return [ends[i : i + batch] for i in range(0, len(ends), batch)]


def _chunk(rows: F4, labels: I8, ends: I8, window: int, last: int) -> tuple[F4, I8]:
    """Rows [B, 1.5·T, F] and the labels of the last T of them."""
    assert int(ends.max()) <= last
    index = ends[:, None] + np.arange(1 - window - window // 2, 1)
    return rows[index], labels[index[:, window // 2 :]]


def _mirror(x: F4, y: I8, mirror: Mirror, generator: np.random.Generator) -> None:
    chosen = generator.random(len(x)) < 0.5
    x[chosen] = mirror.rows(x[chosen])
    y[chosen] = np.where(y[chosen] >= 0, 2 - y[chosen], -1)


def _validate(
    network: Network,
    rows: F4,
    labels: I8,
    samples: I8,
    window: int,
    weights: torch.Tensor,
) -> dict[str, Any]:
    network.eval()
    whole = Window(copy.deepcopy(network).fold())
    with torch.no_grad():
        out = torch.cat([whole(torch.from_numpy(b)) for b in batches(rows, samples, window)])
    y = torch.from_numpy(labels[samples])
    loss = nn.functional.nll_loss(torch.log(out), y, weights)
    figures = metrics(labels[samples], out.argmax(1).numpy())
    return {
        "validation_loss": loss.item(),
        "macro_f1": figures["macro_f1"],
        "mcc": figures["mcc"],
    }


def _is_zero(makers: dict[str, Any], name: str) -> bool:
    """Whether a value is zeros of a computed shape, or a slice of such."""
    maker = makers.get(name)
    if maker is not None and maker.op_type == "Slice":
        return _is_zero(makers, maker.input[0])
    if maker is None or maker.op_type != "ConstantOfShape":
        return False
    values = [onnx.numpy_helper.to_array(a.t) for a in maker.attribute if a.name == "value"]
    return not any(value.any() for value in values)


def drop_zero_states(graph: Any) -> None:
    """Take out the zero initial states that torch computes from the batch size.

    ONNX starts an LSTM at zero when none is given; without them the graph has no shape arithmetic.
    """
    makers = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type == "LSTM":
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


def export(
    network: Network, window: int, width: int, path: Path, metadata: dict[str, str]
) -> float:
    """Write the ONNX file; compare it with torch.

    Returns:
        the largest difference of a probability between torch and ONNX Runtime on 64 random windows.

    Raises:
        ModelError: they differ by more than rounding.
    """

    whole = Window(network).eval()  # as a whole: export puts back the mode that it finds
    example = torch.zeros(2, window, width)
    with warnings.catch_warnings():
        # torch warns of LSTMs with a variable batch; the comparison below is with another batch.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            whole,
            (example,),
            str(path),
            input_names=["rows"],
            output_names=["probabilities"],
            opset_version=OPSET,
            dynamic_axes={"rows": {0: "batch"}, "probabilities": {0: "batch"}},
            dynamo=False,
        )
    model = onnx.load(path)
    drop_zero_states(model.graph)
    for key, value in sorted(metadata.items()):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    x = torch.randn(64, window, width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = whole(x).numpy()
    session = open_session(path.read_bytes(), threads=0)
    got = session.run(["probabilities"], {"rows": x.numpy()})[0]
    difference = float(np.abs(got - expected).max())
    if not difference < EXPORT_TOLERANCE:
        raise ModelError(
            f"{path}: ONNX Runtime's probabilities differ from torch's by {difference:.1g}, "
            f"expected less than {EXPORT_TOLERANCE}: this export is wrong, do not use it"
        )
    return difference
