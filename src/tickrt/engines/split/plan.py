"""A split that was checked and timed once, and is then kept on disk.

Entry points: `plan(model)` → `SplitPlan`; `split_facts` and `bank_starts`, for the manifest.

The plan is the graphs as bytes, what lies between them, and what to run off the path (`pre`, or
`advance` where that was measured to be cheaper). Verifying and timing take a second or so; the
result is kept in the cache folder under the digest of the model, of the split's source and of ONNX
Runtime's version, so that the next start costs nothing.

A split that is not exact is not used: `SplitPlan.usable` is False and `why_not` says why.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from tickrt.engines.graph.check import LoopModel
from tickrt.engines.graph.ort import ort_version
from tickrt.engines.split import SplitResult, draw, measure, split, verify
from tickrt.engines.split.check import random_rows
from tickrt.environment import cache_folder
from tickrt.files import new_folder

__all__ = ["BankTensor", "Mode", "SplitPlan", "bank_starts", "plan", "split_facts"]

Mode = Literal["pre", "bank", "carry"]
_VERIFY_WINDOWS = 64
_MEASURE_S = 0.6


@dataclass(frozen=True, eq=False)
class BankTensor:
    """One tensor of the staggered bank: read as `name`, put out as `following`."""

    name: str
    following: str
    start: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class SplitPlan:
    """How to run a model split: what a bundle and the cache folder hold, as they hold it.

    Attributes:
        mode: what runs off the path: ``pre`` over the known rows, the ``bank`` of staggered states,
            or ``carry`` (states from the last step, for models trained so).
        pre, step, advance: serialised graphs; empty where there is none.
        facts: names and shapes of what lies between them (`split_facts`), as plain data.
        starts: start values of the bank, float32, in the order and shapes of the facts.
        figures: parity, times in µs, share of multiply-adds on the path, a drawing (SVG).
        why_not: why the model runs whole, where it does.
    """

    mode: Mode
    pre: bytes
    step: bytes
    advance: bytes
    facts: dict[str, Any]
    starts: bytes
    figures: dict[str, Any]
    why_not: str = ""

    @property
    def usable(self) -> bool:
        """True when `step` may stand for the model."""
        return bool(self.step) and not self.why_not

    @property
    def known(self) -> str:
        """Name of `pre`'s input."""
        return str(self.facts["known"])

    @property
    def newest(self) -> str:
        """Name of `step`'s row."""
        return str(self.facts["newest"])

    @property
    def states(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """(name, shape at batch 1) of what goes from `pre` to `step`."""
        return tuple(
            (str(state["name"]), tuple(abs(int(d)) for d in state["shape"]))
            for state in self.facts["states"]
        )

    @cached_property
    def bank(self) -> tuple[BankTensor, ...]:
        """The bank's tensors."""
        values = np.frombuffer(self.starts, "<f4").astype(np.float32)
        tensors, at = [], 0
        for entry in self.facts["bank"]:
            size = math.prod(entry["shape"])
            start = values[at : at + size].reshape(entry["shape"])
            tensors.append(BankTensor(str(entry["name"]), str(entry["following"]), start))
            at += size
        return tuple(tensors)


def split_facts(result: SplitResult) -> dict[str, Any]:
    """What the manifest and a `SplitPlan` say of a split, as plain data."""
    bank = [
        {
            "state": entry.state,
            "name": entry.name,
            "following": entry.following,
            "shape": list(entry.start.shape),
        }
        for entry in result.bank
    ]
    names = {"known": result.known, "newest": result.newest, "bank": bank}
    return {**result.summary(), **names}


def bank_starts(result: SplitResult) -> bytes:
    """The start values of the bank, one after the other, float32; empty without one."""
    return b"".join(np.ascontiguousarray(e.start, "<f4").tobytes() for e in result.bank)


@cache
def _source_digest() -> str:
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _key(model: LoopModel, stateful: bool) -> str:
    text = f"{model.sha256} {stateful} {_source_digest()} {ort_version()}"
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _graph(model: onnx.ModelProto | None) -> bytes:
    return b"" if model is None else model.SerializeToString()


def _why_not(result: SplitResult) -> str:
    """What the loop's engine cannot run, beside what could not be split."""
    if result.step is None:
        return result.why_not
    if any(state.dtype != "float32" for state in result.states):
        return "a state is not float32"
    if result.pre is None:
        return "the model does not use the older rows: there is nothing to prepare"
    return ""


def _make(model: LoopModel, stateful: bool) -> SplitPlan:
    whole = onnx.load_model_from_string(model.content)
    result = split(whole, stateful=stateful)
    why_not, figures, mode = _why_not(result), {}, "pre"
    if not why_not:
        # With carried state only the first window equals the whole model: its start is the same.
        count = result.window + (0 if stateful else _VERIFY_WINDOWS - 1)
        parity = verify(result, whole, random_rows(result, count), advance=not stateful)
        times = measure(result, whole, seconds=_MEASURE_S)
        mode = "carry" if stateful else {"advance": "bank", "pre": "pre"}[times.off_path]
        if mode == "carry" and result.advance is None:
            why_not = f"no carried state: {result.no_advance}"
        figures = {
            "parity": asdict(parity),
            "time_us": asdict(times),
            "rows_per_s": times.ticks_per_second,
            "on_path_share": max(cost.share for cost in result.costs),
            "state_bytes": result.state_bytes,
            "drawing": draw(result),
        }
        if not parity.ok:
            why_not = f"the split is not exact: relative error {parity.max_rel:.2g}"
    return SplitPlan(
        mode=mode,  # type: ignore[arg-type]
        pre=_graph(result.pre),
        step=_graph(result.step),
        advance=_graph(result.advance),
        facts=split_facts(result),
        starts=bank_starts(result),
        figures=figures,
        why_not=why_not,
    )


_FILES = {"pre": "pre.onnx", "step": "step.onnx", "advance": "advance.onnx", "starts": "bank.f32"}
_ENTRIES = ("mode", "facts", "figures", "why_not")


def _store(plan_: SplitPlan, folder: Path) -> None:
    """A reader sees all of it or nothing."""
    entries = {name: getattr(plan_, name) for name in _ENTRIES}
    with new_folder(folder) as new:
        for name, file in _FILES.items():
            (new / file).write_bytes(getattr(plan_, name))
        (new / "plan.json").write_text(json.dumps(entries), encoding="utf-8")


def _load(folder: Path) -> SplitPlan:
    entries = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    data: dict[str, Any] = {name: (folder / file).read_bytes() for name, file in _FILES.items()}
    return SplitPlan(**data, **{name: entries[name] for name in _ENTRIES})


def plan(model: LoopModel, *, stateful: bool = False) -> SplitPlan:
    """The checked and timed split of `model`, from the cache or made now.

    Args:
        model: a checked model.
        stateful: it was trained with carried state: states come from the last step.
    """
    folder = cache_folder("split") / _key(model, stateful)
    try:
        return _load(folder)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError):  # a damaged entry is made again
        shutil.rmtree(folder, ignore_errors=True)
    split_plan = _make(model, stateful)
    try:
        _store(split_plan, folder)
    except OSError:  # a full or read-only disk costs the next start a second, nothing else
        shutil.rmtree(folder, ignore_errors=True)
    return split_plan
