"""A host's kernel that watches the rows as one on a GPU does: the data is the flag.

`Watcher` is that side of a mailbox; the module is a self-serving kernel which runs a program with
it, in NumPy (``KERNELS``, `parcel`). Facts: ``piece_s``, what lies between two pieces of an answer;
``broken_at``, a row that ends it.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np

from tickrt.compile import codes
from tickrt.errors import EngineError
from tickrt.host.kernels.reference import ReferenceKernel, warm
from tickrt.host.mailbox import CONTROL_BYTES, TAKEN, Layout, Mail, Mailbox
from tickrt.host.memory.registry import Attached
from tickrt.host.parcel import Parcel
from tickrt.program import Buffer, Instruction, Map, Move, StreamProgram, View, to_bytes

__all__ = ["KERNELS", "Watcher", "Watching", "echo", "load", "parcel", "warm"]

KERNELS = {"watching": "helpers.watching_kernel"}
Words = Any  # uint32 arrays


def parcel(program: StreamProgram, **facts: Any) -> Parcel:
    engines = {"engines": {"full": "program"}}
    return Parcel("it.program", "watching", {"program": to_bytes(program)}, {**engines, **facts})


def echo(window: int, width: int, outputs: int) -> StreamProgram:
    """Output j is the row's number ``j mod F``, bit for bit."""
    newest = (Move("seq", width, 0, window),)
    step = tuple(
        Map(
            (),
            (View("rows", j % width, (), newest),),
            (Instruction("load", (0,)),),
            (View("output", j, ()),),
            (0,),
        )
        for j in range(outputs)
    )
    buffers = {
        "rows": Buffer("rows", 2 * window * width, "rows"),
        "output": Buffer("output", outputs, "output"),
    }
    return StreamProgram(window, width, outputs, 0, 0, buffers, {"step": step, "advance": ()}, {})


class Watcher:
    """The kernel's side of a mailbox: `take` a row that is whole, `answer` it in pieces."""

    def __init__(self, box: Mailbox, rows: np.ndarray, host: np.ndarray) -> None:
        self.box, layout = box, box.layout
        self.layout: Layout = layout
        self.slots: Words = rows[: layout.row_bytes].view(np.uint32).reshape(layout.slots, -1)
        replies = host[CONTROL_BYTES : layout.host_bytes].view(np.uint32)
        values = replies.reshape(layout.slots, -1)[:, codes.REPLY_VALUES // 4 :]
        size = 4 * layout.answer_pieces
        self.replies: Words = values[:, :size].reshape(layout.slots, -1, 4)
        self.slots[:] = codes.EMPTY_WORD
        self.taken = 0

    def take(self) -> Mail | None:
        """The next row once each of its words is there; its slot is empty again then."""
        slot = self.slots[self.taken % self.layout.slots]
        head = slot[codes.MAIL_HEAD // 4 :][:4]
        row = slot[codes.MAIL_ROWS // 4 :][: self.layout.row_stride // 4]
        if (head == codes.EMPTY_WORD).any() or (row == codes.EMPTY_WORD).any():
            return None
        number, rest, flags, spare = head.tolist()
        assert (spare, number >> 30) == (0, 0)
        assert not row[self.layout.width :].any()
        values = row[: self.layout.width].copy().view(np.float32)[None]
        mail = Mail(
            number + (rest << 30),
            bool(flags & codes.MAIL_ANSWER),
            bool(flags & codes.MAIL_RESET),
            values,
        )
        head[:], row[:] = codes.EMPTY_WORD, codes.EMPTY_WORD
        self.taken += 1
        self.box.put(TAKEN, self.taken)
        return mail

    def answer(self, seq: int, values: np.ndarray, refused: bool = False) -> None:
        """Every piece of the answer to row `seq`."""
        for piece in range(len(self.replies[0])):
            self.piece(seq, values, piece, refused)

    def piece(self, seq: int, values: np.ndarray, piece: int, refused: bool = False) -> None:
        """One piece: three values, then the number of their row."""
        where = self.replies[seq % self.layout.slots, piece]
        three = np.ascontiguousarray(values, np.float32).ravel()[3 * piece : 3 * piece + 3]
        where[: len(three)] = three.view(np.uint32)
        where[3] = (seq & 0x3FFFFFFF) | (codes.ANSWER_REFUSED if refused else 0)


class Watching(ReferenceKernel):
    """A program that takes its rows from the mailbox, in a thread of its own."""

    def __init__(self, content: bytes, facts: Any) -> None:
        super().__init__(content)
        self.facts = facts

    def begin(self, box: Mailbox, rows: Attached, host: Attached) -> None:
        assert rows.view is not None
        assert host.view is not None
        self.text, self.ending = "", False
        watcher = Watcher(box, rows.view, host.view)
        self.thread = threading.Thread(target=self.serve, args=(watcher,), daemon=True)
        self.thread.start()

    def serve(self, watcher: Watcher) -> None:
        out = np.zeros((1, watcher.layout.outputs), np.float32)
        while not self.ending:
            mail = watcher.take()
            if mail is None:
                time.sleep(20e-6)
                continue
            if mail.seq == self.facts.get("broken_at"):
                self.text = f"launch failed at row {mail.seq}"
                return
            if mail.reset:
                self.reset()
            refused = False
            if mail.answer:
                try:
                    self.answer(mail.seq, mail.rows, out)
                except EngineError:
                    refused = True
                for piece in range(len(watcher.replies[0])):
                    watcher.piece(mail.seq, out, piece, refused)
                    time.sleep(self.facts.get("piece_s", 0.0))
            self.advance(mail.seq, mail.rows)

    def stats(self) -> dict[str, Any]:
        return {"watched": True}

    def problem(self) -> str:
        return self.text

    def finish(self) -> None:
        self.ending = True
        self.thread.join()


def load(payloads: Any, facts: Any) -> Watching:
    return Watching(bytes(payloads[facts["engines"]["full"]]), facts)
