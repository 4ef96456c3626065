"""What several tests need: small models, small markets, small sessions.

Everything here is deterministic.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tickrt.compile.codes import BATCH_END, BUY, CLEAR, DEPTH, EXCH, LOCAL, SELL, SNAPSHOT, TRADE
from tickrt.config import SessionConfig, StrategySettings
from tickrt.feature.spec import FeatureSpec, load_spec
from tickrt.market.event_file import load_events, save_events
from tickrt.market.instrument import KNOWN, Instrument
from tickrt.memory.records import EVENT_DTYPE
from tickrt.memory.ring import array_view
from tickrt.runtime.session import Session
from tickrt.strategy.params import MakerParams, TakerParams

T = 4
BTC: Instrument = KNOWN["BTCUSDT"]
SPEC_TEXT = """
format = 1
name = "tiny"
window = {window}
row_on = "batch"
clip = 8.0

[[columns]]
kind = "levels"
depth = 2

[[columns]]
kind = "volume"

[[columns]]
kind = "spread"
"""


def tiny_spec(folder: Path, window: int = 4) -> FeatureSpec:
    """A small spec in a file of its own."""
    path = folder / f"tiny{window}.toml"
    path.write_text(SPEC_TEXT.format(window=window), encoding="utf-8")
    return load_spec(path)


def tiny_model(
    spec: FeatureSpec,
    path: Path,
    *,
    seed: int = 1,
    hash_: str | None = "",
    nan: bool = False,
    **change: Any,
) -> Path:
    """Flatten → Gemm → Softmax on `spec`'s window; `change` breaks its interface on purpose."""
    t, f = change.get("window", spec.window), change.get("width", spec.width)
    kind = change.get("dtype", TensorProto.FLOAT)
    outputs = change.get("outputs", 3)
    rng = np.random.default_rng(seed)
    weight = rng.normal(0, 0.2, (t * f, outputs)).astype(np.float32)
    if nan:
        weight[:] = np.nan
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["rows"], ["flat"], axis=1),
            helper.make_node("MatMul", ["flat", "weight"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
        ],
        "tiny",
        [helper.make_tensor_value_info("rows", kind, [change.get("batch", "batch"), t, f])],
        [helper.make_tensor_value_info("probabilities", kind, ["batch", outputs])],
        [numpy_helper.from_array(weight.astype(dtype), "weight")],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", change.get("opset", 17))], ir_version=8
    )
    if hash_ is not None:
        helper.set_model_props(model, {"tickrt.feature_hash": hash_ or spec.hash})
    onnx.save(model, str(path))
    return path


def market(
    batches: int,
    *,
    seed: int = 7,
    start_ns: int = 1_000_000_000,
    symbol: int = 0,
    clear_at: int = -1,
) -> NDArray[np.void]:
    """A small random market on BTCUSDT's ticks: a snapshot, then depth and trades; never crossed.

    `clear_at` starts the book anew (CLEAR + SNAPSHOT) at that batch.
    """
    rng = np.random.default_rng(seed)
    events: list[tuple[int, float, float]] = []
    ends: list[int] = []
    mid = 600_000

    def snapshot() -> None:
        events.append((CLEAR, 0.0, 0.0))
        for i in range(1, 40):
            events.append((SNAPSHOT | BUY, (mid - i) * 0.1, float(rng.integers(1, 50))))
            events.append((SNAPSHOT | SELL, (mid + i) * 0.1, float(rng.integers(1, 50))))
        ends.append(len(events) - 1)

    snapshot()
    for b in range(1, batches):
        if b == clear_at:
            snapshot()
            continue
        step = int(rng.integers(-1, 2))
        if step:  # the mid moves: clear the way, then quote the new touch
            side, back = (SELL, BUY) if step > 0 else (BUY, SELL)
            events.append((DEPTH | side, (mid + step) * 0.1, 0.0))
            events.append((DEPTH | back, mid * 0.1, float(rng.integers(1, 50))))
            mid += step
            events.append((DEPTH | side, (mid + step) * 0.1, float(rng.integers(1, 50))))
        for side, sign in ((BUY, -1), (SELL, 1)):
            px = (mid + sign * int(rng.integers(1, 20))) * 0.1
            events.append((DEPTH | side, px, float(rng.integers(1, 50))))
        if rng.random() < 0.3:
            aggressor, sign = (BUY, 1) if rng.random() < 0.5 else (SELL, -1)
            events.append((TRADE | aggressor, (mid + sign) * 0.1, float(rng.integers(1, 5))))
        ends.append(len(events) - 1)
    data = np.zeros(len(events), EVENT_DTYPE)
    data["ev"] = [ev | LOCAL | EXCH for ev, _, _ in events]
    data["ev"][ends] |= np.uint64(BATCH_END)
    data["px"] = [px for _, px, _ in events]
    data["qty"] = [qty for _, _, qty in events]
    batch = np.searchsorted(ends, np.arange(len(events)))
    data["exch_ts"] = start_ns + batch * 10_000_000
    data["local_ts"] = data["exch_ts"] + 1_000_000
    data["ival"] = symbol
    return data


def market_file(path: Path, batches: int, **options: Any) -> Path:
    """`market(…)` as an event file of BTCUSDT."""
    instrument = options.pop("instrument", BTC)
    return save_events(path, market(batches, **options), {"instrument": instrument.to_dict()})


def settings(folder: Path, **changes: object) -> StrategySettings:
    """A strategy on the tiny spec and model in `folder`."""
    spec = tiny_spec(folder, T)
    model = folder / "tiny.onnx"
    if not model.exists():
        tiny_model(spec, model)
    options = {
        "model": str(model),
        "spec": str(spec.path),
        "policy": TakerParams(enter_threshold=0.05, exit_threshold=0.0),
    }
    return StrategySettings(**{**options, **changes})


def config(
    folder: Path, data: Path, *strategies: StrategySettings, **changes: object
) -> SessionConfig:
    chosen = strategies or (settings(folder),)
    return SessionConfig(data=(data,), strategies=chosen, **changes)


def on_many_symbols(folder: Path, symbols: int, batches: int, **changes: Any) -> Session:
    """A session of that many markets, from memory, batch by batch in turn: their strategies, a
    taker and a maker on each, share a `reference` engine host."""
    names = [f"S{i}" for i in range(symbols)]
    strategies = [
        settings(folder, name=f"{name} {type(policy).__name__}", symbol=name, policy=policy)
        for name in names
        for policy in (TakerParams(enter_threshold=0.05, exit_threshold=0.0), MakerParams())
    ]
    events = np.concatenate([market(batches, seed=i, symbol=i) for i in range(symbols)])
    view, owner = array_view(events[np.argsort(events["local_ts"], kind="stable")])
    options = {"backend": "reference", "deadline_us": 1e7, **changes}
    made = config(folder, folder / "none.npz", *strategies, **options)
    session = Session(made, feed=(view, [replace(BTC, symbol=name) for name in names]))
    session.feed_owner = owner  # type: ignore[attr-defined]  # lives as long as the session
    return session


def from_memory(made: SessionConfig) -> Session:
    """A session that plays its one file from memory: its events can be changed, and played again
    after ``counters[:] = 0``."""
    file = load_events(made.data[0])
    assert file.instrument is not None
    view, owner = array_view(file.data)
    session = Session(made, feed=(view, [file.instrument]))
    session.feed_owner = owner  # type: ignore[attr-defined]  # lives as long as the session
    return session
