"""A host that answers badly on purpose: ``python -m helpers.mailbox_writer FD LAYOUT MODE LAST``.

Every answer's values are all equal to its row's number, but for the moments in which they are not.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from tickrt.compile import codes
from tickrt.host.mailbox import EMPTY, Layout
from tickrt.host.memory.registry import ORDINARY, attach


def main(fd: int, text: str, mode: str, last: int) -> None:
    layout = Layout(**json.loads(text))
    view = attach(ORDINARY, fd, layout.host_bytes).view
    assert view is not None
    replies = view[layout.host_bytes - layout.slots * layout.reply_bytes :].view(layout.reply_dtype)
    print("ready", flush=True)
    for seq in range(1, last + 1):
        slot = replies[seq % layout.slots]
        slot["stamp"] = EMPTY
        if mode == "torn":  # half an answer, then nothing for a while, then the rest
            slot["values"][0, ::2] = seq
            time.sleep(50e-6)
            slot["values"][0, 1::2] = seq
        elif mode == "again":  # the row's answer, then a wrong one in its place, then the right one
            slot["values"][0] = seq
            slot["stamp"] = seq
            slot["stamp"] = EMPTY
            slot["values"][0] = -1.0
            slot["values"][0] = seq
        slot["stamp"] = seq
        while view[: 8 * 9].view(np.int64)[8] < seq:  # STATE: the reader has it
            time.sleep(0)


if __name__ == "__main__":
    assert codes.REPLY_STAMP == 0
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
