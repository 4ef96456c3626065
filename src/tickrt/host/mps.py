"""Several hosts on one GPU: a private MPS control daemon, ended with the session.

Without MPS the GPU gives each process a time slice: beside a second persistent kernel a tick then
waits up to 2.4 ms (p99.9, H100, driver 580). Under MPS their kernels run side by side, and each
host may have a share of the multiprocessors.

Entry points: `share_gpu(hosts)` → `Sharing`, whose `environment` each host is started with.

Invariants: the daemon is this session's own: its pipe and its log lie in a private folder, the
user's daemon and the GPU's settings are left alone. It ends with the session, however that ends: a
shell keeps a pipe to it, and sends ``quit`` when the pipe is closed.

Known limits: a daemon of the user's own on the same GPU is another one: its clients and ours take
turns in time slices.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tickrt.environment import for_child
from tickrt.errors import ConfigError, HostError

__all__ = ["MpsDaemon", "Sharing", "share_gpu"]

PROGRAM = "nvidia-cuda-mps-control"
_SLICE_MS = 2.4
_START_S, _QUIT_S = 20.0, 10.0
# $0: the program, $1: the folder. The daemon goes to the background by itself.
_KEEPER = """
"$0" -d </dev/null >>"$1/start.log" 2>&1 && echo get_server_list | "$0" >>"$1/start.log" 2>&1
echo "$?"
read -r _
echo quit | "$0" >/dev/null 2>&1
rm -rf "$1"
"""


def _why_no_daemon(program: str) -> str:
    return "" if shutil.which(program) else f"{program} is not installed (it comes with the driver)"


class MpsDaemon:
    """A control daemon of our own; its server starts with the first host that uses it.

    Raises:
        HostError: it does not start; says what it printed.
    """

    def __init__(self, program: str = PROGRAM) -> None:
        why = _why_no_daemon(program)
        if why:
            raise HostError(why)
        self._folder = Path(tempfile.mkdtemp(prefix="tickrt-mps-"))  # ours alone: mode 0700
        (self._folder / "pipe").mkdir(mode=0o700)
        (self._folder / "log").mkdir(mode=0o700)
        self._keeper = subprocess.Popen(
            ["/bin/sh", "-c", _KEEPER, program, str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=for_child(self.environment()),
            start_new_session=True,  # Ctrl-C is for the session: it ends us in order
        )
        try:
            status = self._first_line()
        except BaseException:
            self.close()
            raise
        if status != "0":
            text = (self._folder / "start.log").read_text("utf-8", "replace").strip()
            self.close()
            raise HostError(f"{program} does not start: {text or 'it says nothing'}")

    def _first_line(self) -> str:
        assert self._keeper.stdout is not None
        if not select.select([self._keeper.stdout], [], [], _START_S)[0]:
            return "no answer"
        return self._keeper.stdout.readline().decode().strip()

    def environment(self, share: float | None = None) -> dict[str, str]:
        """The variables that make a process one of its clients.

        Args:
            share: percent of the GPU's multiprocessors that it may use; None: all of them.

        Raises:
            ConfigError: not a percentage.
        """
        variables = {
            "CUDA_MPS_PIPE_DIRECTORY": str(self._folder / "pipe"),
            "CUDA_MPS_LOG_DIRECTORY": str(self._folder / "log"),
        }
        if share is not None:
            if not 0.0 < share <= 100.0:
                raise ConfigError(f"SM share: expected more than 0 and at most 100, got {share!r}")
            variables["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] = f"{share:g}"
        return variables

    def problem(self) -> str:
        """Why it serves no more, with the end of its log; empty while it does."""
        try:
            pid = int((self._folder / "pipe" / f"{PROGRAM}.pid").read_text())
            os.kill(pid, 0)
        except (OSError, ValueError):
            return f"the MPS control daemon has ended{self._log()}"
        return ""

    def _log(self) -> str:
        try:
            lines = (self._folder / "log" / "control.log").read_text("utf-8", "replace").split("\n")
        except OSError:
            return ""
        return ": " + " ".join(line for line in lines[-4:] if line)

    def close(self) -> None:
        """Quit it and remove its folder; its clients must have ended."""
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        self._keeper.stdin.close()
        try:
            self._keeper.wait(_QUIT_S)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()
            shutil.rmtree(self._folder, ignore_errors=True)
        self._keeper.stdout.close()


class Sharing:
    """How the hosts of a session share one GPU. A context manager; hosts are closed before it.

    Attributes:
        how: ``alone``, ``mps`` or ``time slices``.
    """

    def __init__(self, how: str, daemon: MpsDaemon | None = None) -> None:
        self.how, self._daemon = how, daemon

    def environment(self, share: float | None = None) -> Mapping[str, str]:
        """What to start a host with, as `MpsDaemon.environment`.

        Raises:
            ConfigError: a share is asked for, and there is no MPS to give it.
        """
        if self._daemon is not None:
            return self._daemon.environment(share)
        if share is not None and share < 100.0:
            raise ConfigError(f"an SM share of {share:g} % needs MPS; this GPU is used {self.how}")
        return {}

    def problem(self) -> str:
        """Why hosts cannot be served any more; empty while they can."""
        return "" if self._daemon is None else self._daemon.problem()

    def close(self) -> None:
        """End what belongs to it."""
        if self._daemon is not None:
            self._daemon.close()

    def __enter__(self) -> Sharing:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def share_gpu(
    hosts: int, *, allow_time_slicing: bool = False, shares: bool = False, program: str = PROGRAM
) -> Sharing:
    """Make ready for that many hosts on one GPU: before the first of them starts.

    Args:
        hosts: at the same time, spare ones included.
        allow_time_slicing: without MPS, let them take turns.
        shares: a host is to have a share of the multiprocessors: MPS also for a single one.
        program: the control program.

    Raises:
        ConfigError: more than one without MPS, and time slices are not allowed; says why there is
            no MPS.
    """
    if hosts <= 1 and not shares:
        return Sharing("alone")
    try:
        return Sharing("mps", MpsDaemon(program))
    except HostError as error:
        if allow_time_slicing and not shares:
            return Sharing("time slices")
        raise ConfigError(
            f"{hosts} engines on one GPU need MPS: {error}; without it they take turns in time "
            f"slices, and a tick may wait {_SLICE_MS} ms for its own: run fewer engines, or accept "
            "that with --allow-time-slicing"
        ) from error
