"""SIGINT, SIGTERM and SIGHUP in a command: no crash, no traceback, a report of what ran."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import random
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tickrt.market.event_file import save_events
from tickrt.market.instrument import KNOWN
from tickrt.simulation.simulator import simulate

SIGNALS = (signal.SIGINT, signal.SIGTERM)
MOMENTS = 10
QUICK = ("--model", "light_lstm")


@pytest.fixture(scope="module")
def session_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute of simulated market."""
    events, _ = simulate(seconds=60.0, seed=5)
    path = tmp_path_factory.mktemp("signals") / "market.npz"
    return save_events(path, events, {"instrument": KNOWN["BTCUSD_PERP"].to_dict()})


def start(arguments: Sequence[str], **environment: str) -> subprocess.Popen[str]:
    """A command in a process of its own, once it handles signals."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tickrt", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        caught = int(status.read_text().split("SigCgt:")[1].split()[0], 16)
        if caught >> (signal.SIGTERM - 1) & 1:
            break
        time.sleep(0.002)
    return process


def end(process: subprocess.Popen[str], signum: signal.Signals) -> int:
    """Send the signal; the exit code, after a look at what was printed."""
    process.send_signal(signum)
    out, err = process.communicate(timeout=120)
    said = f"{process.args}: {process.returncode}\n{out}\n{err}"
    assert "Traceback" not in err, said
    assert "Fatal Python error" not in err, said
    assert process.returncode in (0, 128 + signum), said  # 0: it was over before
    return process.returncode


def moments(longest_s: float) -> Iterator[tuple[float, signal.Signals]]:
    draw = random.Random(f"tickrt {longest_s}")
    for i in range(MOMENTS):
        yield draw.uniform(0, longest_s), SIGNALS[i % 2]


def commands(data: Path, out: Path) -> dict[str, list[str]]:
    files = ["--data", str(data), "--out", str(out), *QUICK]
    return {
        "run": ["run", *files],
        "realtime": ["run", *files, "--pace", "realtime"],
        "backtest": ["backtest", *files],
        "demo": ["demo", "--out", str(out), "--seconds", "30", *QUICK],
    }


@pytest.mark.parametrize("command", ["run", "realtime", "backtest", "demo"])
def test_a_signal_at_any_moment_ends_a_command_in_order(
    command: str, session_file: Path, tmp_path: Path
) -> None:
    codes = []
    for i, (moment, signum) in enumerate(moments(4.0)):
        out = tmp_path / str(i)
        process = start(commands(session_file, out)[command])
        time.sleep(moment)
        codes.append(end(process, signum))
        for report in out.rglob("report.json"):
            found = json.loads(report.read_text())  # whole, whenever it was written
            assert found["interrupted"] in (None, signal.Signals(signum).name)
            assert report.with_name("report.html").is_file()
    assert any(code in (130, 143) for code in codes)


@pytest.mark.parametrize("signum", [*SIGNALS, signal.SIGHUP])
def test_the_report_covers_what_ran_until_the_signal(
    signum: signal.Signals, session_file: Path, tmp_path: Path
) -> None:
    process = start(commands(session_file, tmp_path / "out")["realtime"])
    while not (tmp_path / "out").is_dir() and process.poll() is None:  # made before the first tick
        time.sleep(0.01)
    time.sleep(1.5)
    assert end(process, signum) == 128 + signum
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert found["interrupted"] == signum.name
    assert 0 < found["events"] < 200_000
    assert any(note.startswith("interrupted by") for note in found["notes"])


def on_terminal(arguments: Sequence[str]) -> tuple[subprocess.Popen[bytes], int]:
    """A command on a terminal of its own, and that terminal's other end."""
    ours, its = pty.openpty()

    def take_it() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [sys.executable, "-m", "tickrt", *arguments],
        stdin=its,
        stdout=its,
        stderr=its,
        preexec_fn=take_it,
    )
    os.close(its)
    return process, ours


def test_a_terminal_that_is_closed_ends_a_run_with_its_report(
    session_file: Path, tmp_path: Path
) -> None:
    process, terminal = on_terminal(commands(session_file, tmp_path / "out")["realtime"])
    seen = b""
    while b"events" not in seen:  # the bar: the loop runs
        seen += os.read(terminal, 4096)
    os.close(terminal)
    assert process.wait(60) == 128 + signal.SIGHUP
    assert json.loads((tmp_path / "out" / "report.json").read_text())["interrupted"] == "SIGHUP"
    assert (tmp_path / "out" / "report.html").is_file()


def test_nohup_stays_nohup(session_file: Path, tmp_path: Path) -> None:
    hang_up = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as a child has it from nohup
    try:
        process = start(commands(session_file, tmp_path / "out")["realtime"])
    finally:
        signal.signal(signal.SIGHUP, hang_up)
    while not (tmp_path / "out").is_dir() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    assert end(process, signal.SIGTERM) == 128 + signal.SIGTERM


@pytest.mark.slow
def test_a_signal_while_everything_is_compiled(session_file: Path, tmp_path: Path) -> None:
    for i, moment in enumerate((1.5, 4.0, 9.0)):
        cache = {"NUMBA_CACHE_DIR": str(tmp_path / f"cache{i}"), "XDG_CACHE_HOME": str(tmp_path)}
        command = ("run", "backtest", "demo")[i]
        process = start(commands(session_file, tmp_path / str(i))[command], **cache)
        time.sleep(moment)
        assert end(process, SIGNALS[i % 2]) == 128 + SIGNALS[i % 2]
