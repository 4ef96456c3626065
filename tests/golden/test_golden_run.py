"""A fixed simulated session gives the same intents on every machine.

The strategies trade on the rule-based signal, which is plain arithmetic: a model's last digits
depend on the processor's vector units, these do not. Features are compared to a tolerance, since
they use the system's logarithm.

When a change is meant to alter decisions, write the new record with
``python tests/golden/test_golden_run.py`` and say in the commit why they changed.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tickrt.config import SessionConfig, StrategySettings
from tickrt.feature.streams import window
from tickrt.market.event_file import save_events
from tickrt.market.instrument import KNOWN
from tickrt.runtime.session import Session
from tickrt.simulation.simulator import simulate
from tickrt.strategy.params import MakerParams, TakerParams
from tickrt.strategy.state import Mode

RECORD = Path(__file__).with_name("golden_run.json")
SEED, SECONDS = 20_260_101, 30.0
FIELDS = ("seq", "ts_ns", "order_id", "px_tick", "qty_lots", "strategy", "kind", "side", "reason")


def golden_run(folder: Path) -> dict[str, Any]:
    """Simulate, run, and say what came out."""
    events, _ = simulate(seconds=SECONDS, seed=SEED)
    data = save_events(
        folder / "golden.npz", events, {"instrument": KNOWN["BTCUSD_PERP"].to_dict()}
    )
    strategies = (
        StrategySettings(name="taker", spec="light", policy=TakerParams(enter_threshold=0.8)),
        StrategySettings(name="maker", spec="light", policy=MakerParams()),
    )
    config = SessionConfig(
        data=(data,), strategies=strategies, backend="null", healthy_needed=1_000_000_000
    )
    with Session(config) as session:
        session.assembly.loop.strategies.mode[:] = Mode.FALLBACK
        report = session.run()
        intents = session.intents()
        rows = window(session.assembly.loop.streams, 0).astype(np.float64)
    return {
        "events_sha256": hashlib.sha256(events.tobytes()).hexdigest(),
        "intents_sha256": hashlib.sha256(intents.tobytes()).hexdigest(),
        "counts": {
            "events": report.events,
            "rows": report.rows,
            "intents": report.intents,
            "orders": report.orders,
            "fills": report.fills,
        },
        "first_intents": [[int(i[f]) for f in FIELDS] for i in intents[:20]],
        "row_means": [round(float(x), 6) for x in rows.mean(axis=0)],
    }


def test_golden_run(tmp_path: Path) -> None:
    expected = json.loads(RECORD.read_text(encoding="utf-8"))
    found = golden_run(tmp_path)
    assert found["events_sha256"] == expected["events_sha256"]
    assert found["first_intents"] == expected["first_intents"]
    assert found["counts"] == expected["counts"]
    assert found["intents_sha256"] == expected["intents_sha256"]
    np.testing.assert_allclose(found["row_means"], expected["row_means"], atol=1e-4)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        text = json.dumps(golden_run(Path(folder)), indent=1)
    RECORD.write_text(text + "\n", encoding="utf-8")
    print(text)
