"""An engine is exchanged between two batches by one store into `Engines.active`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from helpers.sessions import BTC, config, market, market_file, settings, tiny_spec
from tickrt.compile import codes
from tickrt.config import SessionConfig
from tickrt.memory.ring import Ring
from tickrt.runtime.backends.null import NullEngine
from tickrt.runtime.lifecycle import run_to_end
from tickrt.runtime.loop.loop_kernels import Pace, run
from tickrt.runtime.session import Session
from tickrt.strategy.params import MakerParams

UP, DOWN = (0.0, 0.0, 1.0), (1.0, 0.0, 0.0)


def two_strategies(folder: Path) -> SessionConfig:
    chosen = [settings(folder), settings(folder, policy=MakerParams())]
    spec = str(tiny_spec(folder).path)
    chosen = [s.model_copy(update={"spec": spec}) for s in chosen]
    return config(folder, market_file(folder / "m.npz", 60), *chosen, backend="null")


def test_a_strategy_hears_the_row_that_is_active_and_no_other(tmp_path: Path) -> None:
    with Session(two_strategies(tmp_path)) as session:
        engines, spare = session.assembly.loop.engines, NullEngine(DOWN)
        engines.table[1] = spare.handle()
        engines.active[1] = 1  # the second strategy only
        report = session.run()
        signals = session.signals()
    assert report.signals == 2 * (60 - 3)  # each row's result counts
    for p, row, wanted in ((0, 0, UP), (1, 1, DOWN)):
        mine = signals[signals["strategy"] == p]
        assert set(mine["engine"]) == {row}
        heard = np.unique(np.stack([mine[n] for n in ("p_down", "p_flat", "p_up")], 1), axis=0)
        np.testing.assert_array_equal(heard, [wanted])


def test_it_changes_between_two_batches_while_the_loop_runs(tmp_path: Path) -> None:
    events, ring = market(60), Ring.local(1 << 12)
    ends = np.flatnonzero(events["ev"] & np.uint64(codes.BATCH_END))
    with Session(two_strategies(tmp_path), feed=(ring.view, [BTC])) as session:
        loop, spare = session.assembly.loop, NullEngine(DOWN)
        loop.engines.table[1] = spare.handle()
        half = int(ends[30]) + 1
        ring.publish(events[:half])

        def swap() -> None:
            if ring.consumed == half and loop.engines.active[0] == 0:
                loop.engines.active[:] = 1
                ring.publish(events[half:])
                ring.close()

        feed, pace = session.feed, Pace(0, 0, 0, 0.0)
        ended = run_to_end(
            lambda: int(run(feed, loop, pace)),
            loop.stop,
            progress=swap,
            companions=[session.recorder],
        )
        signals = session.signals()
    assert ended.code == 0
    for p in (0, 1):
        mine = signals[signals["strategy"] == p]
        assert list(mine["seq"]) == list(range(4, 61))  # no row is missing, none came twice
        assert list(mine["engine"]) == [0] * 28 + [1] * 29


def test_spare_rows_are_never_called(tmp_path: Path) -> None:
    with Session(two_strategies(tmp_path)) as session:
        session.run()
        assert not session.assembly.loop.engines.table[1::2].any()
