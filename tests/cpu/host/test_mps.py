"""MPS: refused with the reason where it is not, started, shared and ended where it is.

Its control program is a script here (`helpers.mps_stand_in`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.mps_stand_in import daemon_pid, install
from tickrt.errors import ConfigError, HostError
from tickrt.host.mps import MpsDaemon, share_gpu
from tickrt.host.process import HostProcess


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with what the control program was told."""
    return install(tmp_path, monkeypatch)


def gone(pid: int, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


def test_one_host_needs_none() -> None:
    with share_gpu(1, program="no-such-program") as sharing:
        assert (sharing.how, dict(sharing.environment()), sharing.problem()) == ("alone", {}, "")
        with pytest.raises(ConfigError, match="an SM share of 25 % needs MPS"):
            sharing.environment(25.0)


def test_more_are_refused_without_it_and_told_why() -> None:
    words = (
        r"2 engines on one GPU need MPS: no-such-program is not installed.*2\.4 ms.*--allow-time"
    )
    with pytest.raises(ConfigError, match=words):
        share_gpu(2, program="no-such-program")
    with share_gpu(2, program="no-such-program", allow_time_slicing=True) as sharing:
        assert sharing.how == "time slices"
        assert not sharing.environment()
    with pytest.raises(ConfigError, match="need MPS"):
        share_gpu(2, program="no-such-program", allow_time_slicing=True, shares=True)


def test_it_is_private_and_ends_with_the_session(heard: Path) -> None:
    with share_gpu(2) as sharing:
        assert sharing.how == "mps"
        assert sharing.problem() == ""
        first, second = sharing.environment(30.0), sharing.environment()
        assert first["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "30"
        assert "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE" not in second
        folder = Path(first["CUDA_MPS_PIPE_DIRECTORY"]).parent
        assert folder.stat().st_mode & 0o777 == 0o700
        assert Path(first["CUDA_MPS_LOG_DIRECTORY"]).parent == folder
        pid = daemon_pid(dict(first))
        assert heard.read_text().split() == ["get_server_list"]
        with HostProcess(environment=first) as host:
            environment = Path(f"/proc/{host.pid}/environ").read_bytes()
        assert f"CUDA_MPS_PIPE_DIRECTORY={folder}/pipe".encode() in environment.split(b"\0")
    assert heard.read_text().split() == ["get_server_list", "quit"]
    assert gone(pid)
    assert not folder.exists()


@pytest.mark.parametrize("share", [0.0, -1.0, 100.5, float("nan")])
def test_a_share_is_a_percentage(share: float, heard: Path) -> None:
    with share_gpu(1, shares=True) as sharing, pytest.raises(ConfigError, match="SM share"):
        sharing.environment(share)


def test_one_that_does_not_start(heard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_BROKEN", "1")
    with pytest.raises(HostError, match="mps-control does not start: no GPU for MPS"):
        MpsDaemon()
    with pytest.raises(ConfigError, match=r"need MPS: .*no GPU for MPS"):
        share_gpu(3)
    assert not list(heard.parent.glob("tickrt-mps-*"))


def test_a_daemon_that_is_gone_is_said(heard: Path) -> None:
    with share_gpu(2) as sharing:
        os.kill(daemon_pid(dict(sharing.environment())), signal.SIGKILL)
        assert gone(daemon_pid(dict(sharing.environment())))
        end = time.monotonic() + 5.0
        while not sharing.problem() and time.monotonic() < end:
            time.sleep(0.01)
        assert sharing.problem() == "the MPS control daemon has ended: Start"


def test_it_ends_when_the_session_is_killed(heard: Path) -> None:
    program = (
        "from tickrt.host.mps import MpsDaemon; import time\n"
        "daemon = MpsDaemon(); print(daemon.environment()['CUDA_MPS_PIPE_DIRECTORY'], flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as session:
        assert session.stdout is not None
        pipe = Path(session.stdout.readline().strip())
        pid = daemon_pid({"CUDA_MPS_PIPE_DIRECTORY": str(pipe)})
        session.kill()
    assert gone(pid)
    end = time.monotonic() + 10.0
    while pipe.exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert not pipe.exists()
