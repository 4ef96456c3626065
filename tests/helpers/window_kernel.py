"""A whole-window model in a host, with NumPy alone: softmax(window · weight), and faults on demand.

`parcel` makes what a host loads; the faults are facts: ``load_s``, ``out_of_memory``, ``chatter``
(lines that each answer prints), ``stuck_at`` and ``broken_at`` (rows that never end, that raise),
``needs`` (rows before the first answer), ``nan_at`` and ``nan_from`` (a row, and all from one on),
``answer_s`` (how long each answer takes) and ``no_end`` (`finish` raises).
"""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

from tickrt.errors import EngineError
from tickrt.host.mailbox import Mailbox
from tickrt.host.memory.registry import Attached
from tickrt.host.parcel import Parcel

KERNELS = {
    "window": "helpers.window_kernel",
    "self": "helpers.window_kernel:SelfServing",
}


def weight(window: int, width: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.2, (window * width, 3)).astype(np.float32)


def expected(window: np.ndarray, weights: np.ndarray) -> np.ndarray:
    logits = window.reshape(-1) @ weights
    odds = np.exp(logits - logits.max())
    return (odds / odds.sum()).astype(np.float32)


def parcel(window: int, width: int, format_: str = "window", **facts: Any) -> Parcel:
    payloads = {"weight": weight(window, width).tobytes()}
    return Parcel("window.bin", format_, payloads, {"window": window, "width": width, **facts})


class WindowKernel:
    def __init__(self, weights: np.ndarray, facts: Any) -> None:
        self.weights, self.facts = weights, facts
        self.rows = np.zeros((facts["window"], facts["width"]), np.float32)
        self.count = 0

    def answer(self, seq: int, rows: np.ndarray, out: np.ndarray) -> None:
        facts = self.facts
        if self.count < facts.get("needs", 0):
            raise EngineError(f"row {seq}: only {self.count} rows came before it")
        for _ in range(facts.get("chatter", 0)):
            print("x" * 400 + " talk", flush=True)
        if seq == facts.get("broken_at"):
            raise ValueError(f"broken at {seq}")
        while seq == facts.get("stuck_at"):
            time.sleep(0.01)
        out[0] = expected(np.vstack([self.rows[1:], rows]), self.weights)
        time.sleep(facts.get("answer_s", 0.0))
        if seq == facts.get("nan_at") or seq >= facts.get("nan_from", seq + 1):
            out[0] = np.nan

    def advance(self, seq: int, rows: np.ndarray) -> None:
        self.rows = np.vstack([self.rows[1:], rows])
        self.count += 1

    def reset(self) -> None:
        self.rows[:] = 0.0
        self.count = 0

    def close(self) -> None:
        """Nothing but memory."""


def warm() -> None:
    """Nothing to do."""


def load(payloads: Any, facts: Any) -> WindowKernel:
    time.sleep(facts.get("load_s", 0.0))
    if facts.get("out_of_memory"):
        np.zeros(1 << 50)
    weights = np.frombuffer(payloads["weight"], np.float32).reshape(-1, 3)
    return WindowKernel(weights, facts)


class SelfServing(WindowKernel):
    """The same, which takes rows from the mailbox in a thread of its own."""

    @staticmethod
    def warm() -> None:
        """Nothing to do."""

    @classmethod
    def load(cls, payloads: Any, facts: Any) -> SelfServing:
        return cls(np.frombuffer(payloads["weight"], np.float32).reshape(-1, 3), facts)

    def begin(self, box: Mailbox, rows: Attached, host: Attached) -> None:
        assert rows.kind == host.kind == "memfd"
        self.text, self.ending = "", False
        self.thread = threading.Thread(target=self.serve, args=(box,), daemon=True)
        self.thread.start()

    def serve(self, box: Mailbox) -> None:
        out = np.zeros((1, 3), np.float32)
        while not self.ending:
            mail = box.take()
            if mail is None:
                time.sleep(20e-6)
                continue
            if mail.reset:
                self.reset()
            try:
                self.answer(mail.seq, mail.rows, out)
            except ValueError as error:
                self.text = f"launch failed: {error}"
                return
            box.reply(mail.seq, out)
            self.advance(mail.seq, mail.rows)

    def problem(self) -> str:
        return self.text

    def finish(self) -> None:
        self.ending = True
        self.thread.join()
        if self.facts.get("no_end"):
            raise EngineError("the kernel does not stop")
