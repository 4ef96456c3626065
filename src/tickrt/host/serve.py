"""The loop of a host: a row comes, its answer goes, the engine advances.

Entry point: `Server`, a thread. It ends when it is told to, when the abort word is set (within a
millisecond, or when the row in hand is done), or when the kernel fails.

Invariants: an answer is out before the engine advances; what a kernel raises is in the mailbox, as
that row's error or the engine's, never lost with the thread.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tickrt.errors import EngineError
from tickrt.host.mailbox import ABORT, BEAT, SERVING, STATE, STOPPED, Mail, Mailbox
from tickrt.host.memory.registry import Attached

__all__ = ["Served", "Server"]

_LOOKS, _NAP_S = 200, 50e-6  # looks for a row before the thread rests; how long it rests
_WATCH_S = 500e-6  # between two looks at a kernel that serves by itself


@dataclass
class Served:
    """What a server has done; `rows_max` is the most rows that one message had."""

    rows: int = 0
    answers: int = 0
    refused: int = 0
    resets: int = 0
    messages: int = 0
    rows_max: int = 0
    answer_us_max: float = 0.0
    busy_us: float = 0.0

    def to_dict(self) -> dict[str, float]:
        """For a message."""
        return asdict(self)


class Server:
    """A thread that serves one mailbox with one kernel.

    Args:
        box: the mailbox.
        kernel: a `kernels.registry.Kernel`.
        memories: the two mappings behind it, for a kernel that serves by itself.
        aborted: called in the thread when the abort word ended it.
    """

    def __init__(
        self,
        box: Mailbox,
        kernel: Any,
        memories: tuple[Attached, Attached],
        aborted: Callable[[], None],
    ) -> None:
        self.served = Served()
        self._box, self._kernel, self._memories = box, kernel, memories
        self._aborted, self._stopping = aborted, False
        self._out = np.zeros((box.layout.max_batch, box.layout.outputs), np.float32)
        self._thread = threading.Thread(target=self._run, name="tickrt-serve", daemon=True)

    def start(self) -> None:
        """Begin: a kernel that serves by itself does so when this returns.

        Raises:
            EngineError: it cannot.
        """
        if hasattr(self._kernel, "begin"):
            self._kernel.begin(self._box, *self._memories)
        self._box.put(STATE, SERVING)
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """End it; False when it did not within the time."""
        self._stopping = True
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        box = self._box
        try:
            if hasattr(self._kernel, "begin"):
                self._watch()
            else:
                self._serve()
        except BaseException as error:  # the thread's end: nobody else would say so
            box.fail(f"{type(error).__name__}: {error}")
        else:
            box.put(STATE, STOPPED)
        if box.get(ABORT):
            self._aborted()

    def _over(self) -> bool:
        return self._stopping or self._box.get(ABORT) != 0

    def _watch(self) -> None:
        """The kernel serves; its heart is ours."""
        beats = 0
        try:
            while not self._over():
                problem = self._kernel.problem()
                if problem:
                    raise EngineError(problem)
                beats += 1
                self._box.put(BEAT, beats)
                time.sleep(_WATCH_S)
        finally:
            self._kernel.finish()

    def _serve(self) -> None:
        box, beats, idle = self._box, 0, 0
        looks = sys.maxsize if getattr(self._kernel, "spins", False) else _LOOKS
        while not self._over():
            beats += 1
            box.put(BEAT, beats)
            if self.turn():
                idle = 0
            elif idle < looks:
                idle += 1
            else:
                time.sleep(_NAP_S)

    def turn(self) -> bool:
        """Answer the next message; False where there is none."""
        mail = self._box.take()
        if mail is not None:
            self._answer(mail)
        return mail is not None

    def _answer(self, mail: Mail) -> None:
        served, began = self.served, time.perf_counter()
        served.rows += 1
        served.messages += 1
        served.rows_max = max(served.rows_max, len(mail.rows))
        if mail.reset:
            served.resets += 1
            self._kernel.reset()
        if mail.answer:
            out = self._out[: len(mail.rows)]
            try:
                self._kernel.answer(mail.seq, mail.rows, out)
            except EngineError as error:
                served.refused += 1
                self._box.say(str(error))
                self._box.reply(mail.seq, None, 1)
            else:
                self._box.reply(mail.seq, out)
                served.answers += 1
                took_us = 1e6 * (time.perf_counter() - began)
                served.answer_us_max = max(served.answer_us_max, took_us)
        self._kernel.advance(mail.seq, mail.rows)
        served.busy_us += 1e6 * (time.perf_counter() - began)
