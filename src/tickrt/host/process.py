"""A host process from our side: start it, ask it, notice its end at once, end it for certain.

Entry point: `HostProcess`.

    with HostProcess() as host:            # a spare one is a host that was started and warmed
        host.warm("program")
        host.load(parcel, layout, (rows, memory), box)
        host.start()                       # from now on it answers what comes into the mailbox

A thread belongs to each host: it starts the process, waits for its end, and writes that into the
mailbox (`GONE`), where the loop's handle finds it. It also ends a host whose heart stands still.

Invariants: no request waits longer than its timeout; a host that does not answer, or was asked by
somebody who was interrupted, is killed, since nobody knows what it is doing. A host never outlives
this process: its kernel ends it with the thread that started it. Neither a host nor the thread that
watches it runs on the loop's core (`cores`), even if the thread that made it is pinned there.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickrt.environment import for_child
from tickrt.errors import ConfigError, HostError, TickrtError
from tickrt.host.cores import cores_beside, process_cores
from tickrt.host.mailbox import ABORT, BEAT, GONE, SERVING, STATE, Layout, Mailbox
from tickrt.host.memory.registry import Allocated
from tickrt.host.messages import (
    PROTOCOL,
    Channel,
    channels,
    error_from_wire,
    read_sealed,
    sealed,
)
from tickrt.host.parcel import Parcel, pack

__all__ = ["HostProcess", "Limits", "Progress"]

Progress = Callable[[str, int, int], None]

_LOG = logging.getLogger("tickrt.host")
_LOOK_S = 0.25  # between two looks at the heart
_LOG_BYTES, _LOG_LINES, _LOG_MAX = 2000, 20, 1 << 20
_NOTICE_S = 3.0  # without a word from a process that was started
_PYTHON = "engine_python has to name a Python interpreter, 3.9 or later, with NumPy"
_GRACE_S = 1.0  # for a host that was aborted, or has ended, to be gone


def _silent(phase: str, done: int, total: int) -> None:
    """Nobody asked for progress."""


@dataclass(frozen=True)
class Limits:
    """How long things may take, seconds.

    Attributes:
        start: until the process has said what it is.
        request: until it has answered; `load`, `warm` and `verify` may take `load`.
        build: one engine may take, from one sign of progress to the next.
        silence: its heart may stand still, while it serves.
    """

    start: float = 20.0
    request: float = 20.0
    load: float = 300.0
    build: float = 3600.0
    silence: float = 10.0


def _allowed(cores: Collection[int]) -> frozenset[int]:
    """Those of `cores` that there are for us."""
    ours = process_cores()
    if not (found := ours.intersection(cores)):
        raise ConfigError(f"engine host: cores: {sorted(cores)}: choose from {sorted(ours)}")
    return found


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End it and what it has started: an interpreter may be a script that starts another."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # it leads a session of its own


class HostProcess:
    """One host.

    Args:
        python: the interpreter that has what the engine needs; empty: ours.
        kernels: further kernels, by format (`kernels.registry.Kernels`).
        environment: variables that it gets besides ours.
        limits: how long things may take.
        cores: that it may run on; None: all but that of a pinned caller (`cores.cores_beside`).

    Attributes:
        facts: what it said of itself: ``python``, ``numpy``, ``formats``.
        pid: its process.

    Raises:
        ConfigError: `python` is no interpreter, or the process may use none of `cores`.
        HostError: the process ended before it said what it is, or did not say so in time.
    """

    def __init__(
        self,
        python: str = "",
        *,
        kernels: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        cores: Collection[int] | None = None,
    ) -> None:
        self._python = python or sys.executable
        self._limits = limits or Limits()
        self._cores = cores_beside() if cores is None else _allowed(cores)
        self._lock = threading.Lock()  # one request at a time
        self._box: Mailbox | None = None
        self._asked, self._why = 0, ""
        self._ending = False
        self._log = os.memfd_create("tickrt-host-log", os.MFD_CLOEXEC)
        ours, its = channels()
        self._channel = Channel(ours, f"engine host ({self._python})")
        command = [self._python, str(Path(__file__).with_name("__main__.py"))]
        command += ["--control-fd", str(its.fileno()), "--parent", str(os.getpid())]
        for name, where in (kernels or {}).items():
            command += ["--kernel", f"{name}={where}"]
        self._process: subprocess.Popen[bytes] | None = None
        self._refused: list[OSError] = []  # why it could not be started
        self._started = threading.Event()
        self._thread = threading.Thread(
            target=self._live,
            args=(command, its.fileno(), for_child(environment or {})),
            name="tickrt-host-watch",
            daemon=True,
        )
        self._thread.start()
        try:
            self._started.wait()
            its.close()
            self.facts = self._greeting()
        except BaseException:
            self.kill()
            its.close()
            self._release()
            raise

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid if self._process is not None else 0

    @property
    def why(self) -> str:
        """Why it is gone; empty while it lives."""
        return self._why

    def _live(self, command: list[str], fd: int, variables: dict[str, str]) -> None:
        """The thread: start the process, watch it, say that it has ended."""
        try:
            os.sched_setaffinity(0, self._cores)  # of this thread, and so of what it starts
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=(fd,),
                env=variables,
                start_new_session=True,  # Ctrl-C is for us: we end it in order
            )
        except OSError as error:
            self._refused.append(error)
            return
        finally:
            self._started.set()
        self._watch(self._process)
        status = self._process.wait()
        self._why = self._why or (
            f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        )
        if self._box is not None:  # `load` looks at them the other way round: one of us sees both
            self._box.put(GONE, 1)

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """Return when the process has ended, or end it when its heart stands still."""
        end = select.poll()
        end.register(self._channel, 0)  # only the end of the other side
        beat, since, grace_s = -1, time.monotonic(), self._limits.request
        while not end.poll(1000 * _LOOK_S):
            box, now = self._box, time.monotonic()
            self._trim_log()
            if box is None or box.get(STATE) != SERVING or box.get(BEAT) != beat:
                beat, since = (-1 if box is None else box.get(BEAT)), now
            elif now - since > self._limits.silence:
                self._why = f"was ended: it had been silent for {self._limits.silence:g} s"
                grace_s = 0.0
                break
        if self._box is not None:
            self._box.put(GONE, 1)
        try:
            process.wait(grace_s)  # its end of the channel is closed: it is ending, or has ended
        except subprocess.TimeoutExpired:
            _kill(process)

    def _greeting(self) -> dict[str, Any]:
        if self._refused:
            why = self._refused[0]
            raise ConfigError(
                f"engine_python: {self._python}: {why.strerror}: name a Python interpreter, "
                "3.9 or later, with NumPy"
            ) from why
        try:
            facts = self._first_word()
        except (TimeoutError, EOFError, HostError) as error:
            lost = self._lost(error)
            if self._python == sys.executable:
                raise lost from error
            raise HostError(f"{lost} ({_PYTHON})") from error
        if facts.get("protocol") != PROTOCOL:
            raise HostError(f"engine host ({self._python}): it speaks {facts}, not {PROTOCOL}")
        return facts

    def _first_word(self) -> dict[str, Any]:
        """What it says of itself; whoever waits long for it is told so."""
        whole = self._limits.start
        notice = min(_NOTICE_S, whole)
        try:
            return self._channel.receive(notice)[0]
        except TimeoutError:
            if notice >= whole:
                raise
            _LOG.warning(
                "engine host (%s): it has said nothing for %g s: waiting up to %g s",
                *(self._python, notice, whole),
            )
        try:
            return self._channel.receive(whole - notice)[0]
        except TimeoutError:
            raise TimeoutError(f"nothing came for {whole:g} s") from None

    def _lost(self, error: Exception) -> HostError:
        """The host's end as an error, with what it wrote last."""
        if not isinstance(error, TimeoutError):
            self._thread.join(_GRACE_S)  # it knows how the process ended
        self._why = self._why or f"was ended: {error}"
        self.kill()
        text = self.log()
        return HostError(f"engine host ({self._python}) {self._why}{': ' if text else ''}{text}")

    def log(self) -> str:
        """The end of what it wrote to its standard output and error."""
        size = os.fstat(self._log).st_size
        data = os.pread(self._log, _LOG_BYTES, max(0, size - _LOG_BYTES))
        return "\n".join(data.decode("utf-8", "replace").strip().splitlines()[-_LOG_LINES:])

    def _trim_log(self) -> None:
        """Let it write as much as it likes: what is old goes. Its offset in the file is ours."""
        if os.fstat(self._log).st_size > _LOG_MAX:
            os.lseek(self._log, 0, os.SEEK_SET)
            os.ftruncate(self._log, 0)

    def request(
        self, do: str, fds: Sequence[int] = (), timeout_s: float | None = None, **fields: Any
    ) -> dict[str, Any]:
        """Ask, and wait for the answer; files that come with it are closed.

        Args:
            do: the request's name (`service`).
            fds: files that go with it; they stay the caller's.
            timeout_s: None: `Limits.request`.

        Raises:
            HostError: it has ended, or did not answer in time; it is killed then.
            TickrtError: the host's own error, of the kind that it named.
        """
        answer, files = self._exchange(do, fds, timeout_s, _silent, fields)
        for fd in files:
            os.close(fd)
        return answer

    def exchange(
        self,
        do: str,
        content: bytes | memoryview,
        timeout_s: float | None = None,
        progress: Progress | None = None,
        **fields: Any,
    ) -> tuple[dict[str, Any], memoryview]:
        """Ask with bytes, and wait for an answer with bytes.

        Args:
            do, timeout_s: as for `request`; the time counts anew from every sign of progress.
            content: travels in sealed memory.
            progress: called with phase, steps done, steps in all, in this thread.

        Raises:
            HostError, TickrtError: like `request`.
        """
        fd = sealed(bytes(content))
        try:
            answer, files = self._exchange(do, [fd], timeout_s, progress or _silent, fields)
        finally:
            os.close(fd)
        try:
            return answer, read_sealed(files[0], "its answer") if files else memoryview(b"")
        finally:
            for fd in files:
                os.close(fd)

    def _exchange(
        self,
        do: str,
        fds: Sequence[int],
        timeout_s: float | None,
        progress: Progress,
        fields: Mapping[str, Any],
    ) -> tuple[dict[str, Any], list[int]]:
        with self._lock:
            if self._why:
                raise HostError(f"engine host ({self._python}) {self._why}")
            self._asked += 1
            try:
                self._channel.send({"id": self._asked, "do": do, **fields}, fds)
                while True:
                    answer, files = self._channel.receive(timeout_s or self._limits.request)
                    if "progress" not in answer:
                        break
                    progress(*answer["progress"])
            except (TimeoutError, EOFError, HostError) as error:
                raise self._lost(error) from error
            except BaseException:  # interrupted: the answer would be taken for the next one's
                self.kill()
                raise
        if answer.get("id") != self._asked:
            self.kill()
            raise HostError(f"engine host ({self._python}): an answer to another request: {answer}")
        if "error" in answer:
            raise error_from_wire(answer["error"], f"engine host ({do})")
        return answer, files

    def build(
        self,
        format_: str,
        model: bytes,
        options: Mapping[str, Any],
        progress: Progress | None = None,
    ) -> tuple[dict[str, Any], memoryview]:
        """Have it build an engine: what there is to say of it, and its bytes. Raises like
        `request`, and BuildError for what cannot be built."""
        return self.exchange(
            "build", model, self._limits.build, progress, format=format_, options=dict(options)
        )

    def warm(self, format_: str) -> None:
        """Do what can be done before there is an engine. Raises like `request`."""
        self.request("warm", timeout_s=self._limits.load, format=format_)

    def load(
        self,
        parcel: Parcel,
        layout: Layout,
        memories: tuple[Allocated, Allocated],
        box: Mailbox,
    ) -> None:
        """Load an engine; the host verifies the parcel first.

        Args:
            memories: row memory and host memory, which the caller keeps until `stop` or `close`.
            box: our view of them: its `GONE` is set when the host ends.

        Raises:
            HostError: like `request`, or it has an engine already.
            TamperedError, BundleError, IncompatibleError, EngineError: the engine is refused.
        """
        message, parts = pack(parcel)
        try:
            fds = [*(memory.fd for memory in memories), *parts]
            self.request(
                "load",
                fds,
                self._limits.load,
                parcel=message,
                layout=layout.to_dict(),
                row_memory=memories[0].kind,
            )
        finally:
            for fd in parts:
                os.close(fd)
        self._box = box
        if self._why:  # it ended between its answer and now
            box.put(GONE, 1)

    def verify(
        self, rows: NDArray[np.float32], expected: NDArray[np.float32], tolerance: float
    ) -> float:
        """Have the loaded engine answer `rows`, before it starts.

        Args:
            rows: float32 [n, F], one after the other.
            expected: float32 [n, outputs]; a row of NaN expects nothing.
            tolerance: largest absolute difference.

        Returns:
            the largest difference.

        Raises:
            EngineError: it is larger than `tolerance`, or an answer is not finite.
        """
        values = np.concatenate([np.ravel(rows), np.ravel(expected)]).astype(np.float32)
        fd = sealed(values.tobytes())
        try:
            answer = self.request(
                "verify", [fd], self._limits.load, rows=len(rows), tolerance=tolerance
            )
        finally:
            os.close(fd)
        return float(answer["max_abs"])

    def start(self) -> None:
        """Answer what comes into the mailbox from now on. Raises like `request`."""
        self.request("start")

    def stats(self) -> dict[str, Any]:
        """What it has done: messages, rows, answers, refused, resets, times in µs, memory in MB."""
        return {k: v for k, v in self.request("stats").items() if k not in ("ok", "id")}

    def stop(self) -> None:
        """End the engine and release it; the host can load another. Raises like `request`."""
        self.request("stop")
        self._box = None

    def abort(self) -> None:
        """Set the abort word: the host ends without being asked anything."""
        self._why = self._why or "was aborted"
        if self._box is not None:
            self._box.put(ABORT, 1)
        else:
            self.kill()

    def kill(self) -> None:
        """End the process now."""
        self._started.wait()
        self._why = self._why or "was killed"
        if self._process is not None:
            _kill(self._process)
            self._thread.join()

    def close(self) -> None:
        """End it in order, or for certain; returns when it is gone."""
        if self._ending:
            return
        self._ending = True
        grace_s = _GRACE_S
        try:
            if not self._why:
                self.request("end")
                self._why, grace_s = "was closed", self._limits.request
        except TickrtError:
            pass  # it has ended, or is killed here
        finally:
            self._thread.join(grace_s)
            self.kill()
            self._release()

    def _release(self) -> None:
        self._channel.close()
        os.close(self._log)

    def __enter__(self) -> HostProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
