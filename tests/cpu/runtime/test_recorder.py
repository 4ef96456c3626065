"""The reader of records where the disk is full: the loop goes on, and whoever waits is told."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

import numpy as np
import pytest

from helpers.full_disk import room
from helpers.sessions import config, market_file, settings
from tickrt.backtest.run import Backtest
from tickrt.compile import codes
from tickrt.config import SessionConfig
from tickrt.errors import ConfigError
from tickrt.memory.records import RECORD_DTYPE
from tickrt.memory.ring import Ring
from tickrt.runtime.recorder import Recorder
from tickrt.runtime.results import counter
from tickrt.runtime.session import Session
from tickrt.strategy.params import MakerParams


@pytest.fixture
def made(tmp_path: Path) -> SessionConfig:
    data = market_file(tmp_path / "m.npz", 1000)
    return config(tmp_path, data, settings(tmp_path, policy=MakerParams()))


# A backtest leaves the last batch out.
@pytest.mark.parametrize(("kind", "rows"), [(Session, 1000), (Backtest, 999)])
def test_a_write_that_fails_is_raised_when_the_run_has_ended(
    kind: type[Session] | type[Backtest], rows: int, made: SessionConfig
) -> None:
    with kind(made) as session:
        with room(4096), pytest.raises(OSError, match="File too large") as caught:
            session.run()
        assert caught.value.errno == errno.EFBIG
        assert str(caught.value.filename).startswith(f"{tempfile.gettempdir()}: the run's records")
        assert counter(session.assembly, "rows") == rows
        assert session.recorder.count(codes.RECORD_SIGNAL) == counter(session.assembly, "signals")
        with pytest.raises(ConfigError, match="were not kept"):
            session.records(codes.RECORD_SIGNAL)


def test_what_is_not_kept_needs_no_disk(made: SessionConfig) -> None:
    with Session(made, keep_records=False) as session, room(0):
        assert session.run().rows == 1000


def test_a_close_that_fails_hides_nothing() -> None:
    ring = Ring.local(1 << 10, RECORD_DTYPE)
    recorder = Recorder(ring, 1, keep=True)
    some = np.zeros(3, RECORD_DTYPE)
    some["record"] = codes.RECORD_REPORT
    assert ring.publish(some) == 3
    with room(0):
        recorder.start()
        recorder.finish()  # they are few: nothing was written yet
        assert recorder.count(codes.RECORD_REPORT) == 3
        with pytest.raises(OSError, match="File too large"):
            recorder.records(codes.RECORD_REPORT)
        recorder.close()
    with pytest.raises(ConfigError, match="the session is closed"):
        recorder.records(codes.RECORD_REPORT)
