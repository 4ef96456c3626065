"""Make a shipped model: train, export, evaluate, write its spec, card and figures.

    python -m tickrt.training.train --model seed_lstm --data btcusd.npz --unseen ethusd.npz

The event files come from ``tickrt data convert``. Needs the extra ``[train]``. Written beside each
other into `--out`: the ONNX file, the feature spec with its normalisation, the card (markdown) and
its figures (JSON). What each step does is in `dataset`, `network`, `evaluate`, `card`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tickrt.errors import ConfigError
from tickrt.feature.normalise import mirror_of, normalisation, normalised, write_spec
from tickrt.feature.spec import load_spec
from tickrt.training.card import write_card
from tickrt.training.dataset import I8, Split, TrainingRows, load_session, split_by_time
from tickrt.training.evaluate import Baselines, evaluate, predict
from tickrt.training.export import export_onnx

if TYPE_CHECKING:
    from tickrt.training.network import Recipe

__all__ = ["main", "train"]

FOLDER = Path(__file__).parent.parent / "models"


def recipes() -> dict[str, Recipe]:
    """The shipped models, by name."""
    from tickrt.training.network import Recipe

    return {
        "seed_lstm": Recipe(
            spec="l2_100x100",
            layers=2,
            hidden=128,
            epochs=20,
            weight_decay=0.1,
            column_dropout=0.3,
            depth_decay=0.75,
        ),
        "light_lstm": Recipe(spec="light", layers=1, hidden=32, learning_rate=3e-3),
    }


def train(
    name: str, data: Path, unseen: list[Path], out: Path, threads: int, seed: int, stride: int
) -> dict[str, Any]:
    """Make model `name`; returns the figures that its JSON holds."""
    import torch
    from rich.progress import Progress

    from tickrt.training.network import Window, fit

    torch.set_num_threads(threads)
    recipe = recipes()[name]
    spec = load_spec(recipe.spec)
    session = load_session(data, spec, recipe.horizon_ns)
    split = split_by_time(session, spec.window, recipe.horizon_ns)
    mirror = mirror_of(spec)
    numbers = normalisation(session.rows[: split.train[-1] + 1], mirror)
    out.mkdir(parents=True, exist_ok=True)
    spec = write_spec(spec, *numbers, out / f"{recipe.spec}.toml")
    with Progress() as bar:
        task = bar.add_task(f"training {name}", total=recipe.epochs)

        def progress(epoch: int, figures: dict[str, Any]) -> None:
            bar.update(task, advance=1)
            bar.console.print(epoch, {k: round(v, 4) for k, v in figures.items()})

        network, history = fit(
            normalised(session.rows, spec),
            session.labels,
            (split.train, split.validation),
            recipe,
            spec,
            seed,
            progress,
        )
    metadata = {"tickrt.horizon_ns": str(recipe.horizon_ns)}
    made = export_onnx(Window(network), out / f"{name}.onnx", spec, metadata=metadata)
    figures = {
        "name": name,
        "spec": spec.name,
        "feature_hash": spec.hash,
        "horizon_ns": recipe.horizon_ns,
        "window": spec.window,
        "width": spec.width,
        "parameters": sum(p.numel() for p in network.parameters()),
        "recipe": dataclasses.asdict(recipe) | {"seed": seed},
        "torch_minus_onnxruntime": made.difference,
        "made_with": made_with(torch.__version__),
        "history": [{k: round(v, 4) for k, v in h.items()} for h in history],
        "parts": _parts(session, split),
    }
    _evaluate(figures, session, split, unseen, out, threads, stride)
    return figures


def evaluate_again(
    name: str, data: Path, unseen: list[Path], out: Path, threads: int, stride: int
) -> dict[str, Any]:
    """Evaluate the model `name` that lies in `out`; write its figures and card anew.

    Raises:
        ConfigError: `data` is not the file that it was trained on.
    """
    figures: dict[str, Any] = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
    spec = load_spec(out / f"{figures['spec']}.toml")
    session = load_session(data, spec, figures["horizon_ns"])
    split = split_by_time(session, spec.window, figures["horizon_ns"])
    if spec.hash != figures["feature_hash"] or _parts(session, split) != figures["parts"]:
        raise ConfigError(f"{data} or {spec.path}: not what {name} was trained on")
    _evaluate(figures, session, split, unseen, out, threads, stride)
    return figures


def _evaluate(
    figures: dict[str, Any],
    session: TrainingRows,
    split: Split,
    unseen: list[Path],
    out: Path,
    threads: int,
    stride: int,
) -> None:
    """Evaluate the exported model; write `figures` and the card."""
    name, horizon_ns = figures["name"], figures["horizon_ns"]
    spec, onnx = load_spec(out / f"{figures['spec']}.toml"), out / f"{name}.onnx"
    baselines = Baselines(session, split.train)
    rows = normalised(session.rows, spec)
    figures["evaluation"] = {}
    for key, part in (("validation", split.validation), ("test", split.test)):
        chosen = part[::stride]
        answers = predict(onnx, rows, chosen, spec.window, threads)
        figures["evaluation"][key] = evaluate(session, chosen, answers, baselines)
    for path in unseen:
        other = load_session(path, spec, horizon_ns)
        chosen = other.samples[:: 3 * stride]
        answers = predict(onnx, normalised(other.rows, spec), chosen, spec.window, threads)
        key = f"unseen_{other.symbol}"
        figures["evaluation"][key] = evaluate(other, chosen, answers, baselines)
    (out / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    write_card(figures, out / f"{name}.md")


def made_with(torch_version: str) -> dict[str, str]:
    """Library versions and the processor that made the model."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch_version,
        "machine": platform.machine(),
    }


def _parts(session: TrainingRows, split: Split) -> dict[str, Any]:
    """Samples and times of the three parts."""
    out: dict[str, Any] = {
        "symbol": session.symbol,
        "rows": len(session.rows),
        "session_ns": [int(session.times[0]), int(session.times[-1])],
        "cuts_ns": list(split.cuts_ns),
    }
    for name in ("train", "validation", "test"):
        samples: I8 = getattr(split, name)
        share = np.bincount(session.labels[samples], minlength=3) / len(samples)
        out[name] = {
            "samples": len(samples),
            "from_ns": int(session.times[samples[0]]),
            "to_ns": int(session.times[samples[-1]]),
            "class_share": [round(float(x), 4) for x in share],
        }
    return out


def main(arguments: list[str] | None = None) -> None:
    """The command; see the module's text."""
    parser = argparse.ArgumentParser(prog="python -m tickrt.training.train", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--model", required=True, help="seed_lstm or light_lstm")
    parser.add_argument("--data", required=True, type=Path, help="event file to train on")
    parser.add_argument(
        "--unseen", action="append", default=[], type=Path, help="event file to test on; repeatable"
    )
    parser.add_argument("--out", type=Path, default=FOLDER, help="default: the package itself")
    parser.add_argument("--threads", type=int, default=1, help="of torch; default 1")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--evaluate-only", action="store_true", help="evaluate the model in --out again"
    )
    parser.add_argument("--stride", type=int, default=2, help="evaluate every so many rows")
    options = parser.parse_args(arguments)
    paths = (options.model, options.data, options.unseen, options.out, options.threads)
    if options.evaluate_only:
        _print(evaluate_again(*paths, options.stride))
        return
    try:
        names = recipes()
    except ImportError as error:
        raise ConfigError(f"training needs torch: pip install 'tickrt[train]' ({error})") from error
    if options.model not in names:
        raise ConfigError(f"--model: expected one of {', '.join(names)}, got {options.model!r}")
    _print(train(*paths, options.seed, options.stride))


def _print(figures: dict[str, Any]) -> None:
    for part, result in figures["evaluation"].items():
        print(part, json.dumps(result["model"]))


if __name__ == "__main__":
    main()
