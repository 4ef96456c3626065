"""A script in place of MPS's control program: ``-d`` starts a daemon in the background, commands
come on standard input.

Entry points: `install`, `daemon_pid`. With ``FAKE_BROKEN`` in the environment it does not start.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from tickrt.host import mps

__all__ = ["daemon_pid", "install"]

FAKE = """#!/bin/sh
pid="$CUDA_MPS_PIPE_DIRECTORY/nvidia-cuda-mps-control.pid"
if [ "$1" = -d ]; then
  [ -n "$FAKE_BROKEN" ] && { echo "no GPU for MPS"; exit 1; }
  sleep 300 & echo $! >"$pid"
  echo "Start" >"$CUDA_MPS_LOG_DIRECTORY/control.log"
  exit 0
fi
while read -r line; do
  echo "$line" >>"$FAKE_HEARD"
  kill -0 "$(cat "$pid")" || { echo "Cannot find MPS control daemon process"; exit 1; }
  [ "$line" = quit ] && kill "$(cat "$pid")"
done
exit 0
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put it on the path; the file with what the control program is told."""
    program = folder / "bin" / mps.PROGRAM
    program.parent.mkdir()
    program.write_text(FAKE)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("FAKE_HEARD", str(folder / "heard"))
    return folder / "heard"


def daemon_pid(environment: Mapping[str, str]) -> int:
    folder = Path(environment["CUDA_MPS_PIPE_DIRECTORY"])
    return int((folder / f"{mps.PROGRAM}.pid").read_text())
