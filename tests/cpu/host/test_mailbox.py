"""The mailbox's layout and the host's view of it."""

from __future__ import annotations

import os
import resource

import numpy as np
import pytest

from tickrt.compile import codes
from tickrt.errors import ConfigError, HostError
from tickrt.host.mailbox import ERROR, FAILED, STATE, TAKEN, Layout, Mailbox
from tickrt.host.memory import memfd
from tickrt.host.memory.registry import ORDINARY, allocate, attach, choose


def make(layout: Layout) -> tuple[Mailbox, np.ndarray, np.ndarray]:
    host = np.zeros(layout.host_bytes, np.uint8)
    rows = np.zeros(layout.row_bytes, np.uint8)
    return Mailbox(layout, host, rows, fresh=True), host, rows


@pytest.mark.parametrize(("width", "batch"), [(1, 1), (5, 1), (402, 1), (7, 128)])
def test_nothing_overlaps_and_slots_are_lines(width: int, batch: int) -> None:
    layout = Layout(width, 3, max_batch=batch, slots=4)
    assert layout.mail_bytes % 64 == layout.reply_bytes % 64 == 0
    assert layout.row_stride % 16 == 0
    assert layout.row_stride >= 4 * width
    assert codes.MAIL_ROWS + batch * layout.row_stride <= layout.mail_bytes
    assert layout.mail_dtype.itemsize == layout.mail_bytes
    assert layout.reply_dtype.itemsize == layout.reply_bytes
    assert layout.mail_dtype["rows"].shape == (batch, layout.row_stride // 4)
    assert Layout(**layout.to_dict()) == layout


@pytest.mark.parametrize(
    "sizes", [(0, 3, 1, 4), (4, 0, 1, 4), (4, 3, 0, 4), (4, 3, 1, 3), (4, 3, 1, 1), (1 << 24, 3)]
)
def test_sizes_that_cannot_be(sizes: tuple[int, ...]) -> None:
    with pytest.raises(HostError, match="mailbox"):
        Layout(*sizes)


def test_other_sizes_or_another_version_are_refused() -> None:
    layout = Layout(4, 3, slots=4)
    _, host, rows = make(layout)
    Mailbox(layout, host, rows)
    with pytest.raises(HostError, match="use the same tickrt on both sides"):
        Mailbox(Layout(5, 3, slots=4), host)
    with pytest.raises(HostError, match="smaller"):
        Mailbox(Layout(4, 3, slots=8), host)
    host[8] += 1
    with pytest.raises(HostError, match="use the same tickrt on both sides"):
        Mailbox(layout, host)


def test_messages_are_taken_in_order_once_and_copied() -> None:
    layout = Layout(3, 2, max_batch=2, slots=2)
    box, _, rows = make(layout)
    mail = rows.view(layout.mail_dtype)
    assert box.take() is None
    for number in range(1, 6):
        slot = mail[(number - 1) % 2]
        slot["flags"], slot["seq"] = codes.MAIL_ANSWER if number % 2 else codes.MAIL_RESET, 70
        slot["count"] = 1 + number % 2
        slot["rows"][:] = number
        assert box.take() is None  # its stamp is not there yet
        slot["stamp"] = number
        taken = box.take()
        assert taken is not None
        assert (taken.seq, taken.answer, taken.reset) == (70, number % 2 == 1, number % 2 == 0)
        assert box.get(TAKEN) == number
        slot["rows"][:] = -1.0
        assert taken.rows.tolist() == [[number] * 3] * (1 + number % 2)
        assert box.take() is None


def test_a_failure_is_in_words_and_for_good() -> None:
    box, host, _ = make(Layout(3, 2, slots=2))
    assert box.text == ""
    box.fail("ü" * 5000)
    other = Mailbox(box.layout, host)
    assert other.text.startswith("üüü")
    assert len(other.text.encode()) <= 1026
    assert (other.get(STATE), other.get(ERROR)) == (FAILED, 1)
    other.say("short")
    assert box.text == "short"


def test_memory_is_shared_sealed_and_zero() -> None:
    ours = allocate(10_000)
    assert (ours.kind, choose(), ours.fence) == (ORDINARY, ORDINARY, 0)
    theirs = attach(ORDINARY, ours.fd, ours.size)
    assert ours.view is not None
    assert theirs.view is not None
    assert not theirs.view.any()
    theirs.view[9_999] = 7
    assert ours.view[9_999] == 7
    with pytest.raises(HostError, match="10000 bytes, expected 10001"):
        attach(ORDINARY, ours.fd, ours.size + 1)
    with pytest.raises(PermissionError):
        os.ftruncate(ours.fd, 1)
    ours.close()
    assert theirs.view[9_999] == 7  # each side's mapping is its own
    theirs.close()


def test_memory_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="'vram': unknown; there are auto, vulkan, memfd"):
        choose("vram")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(HostError, match="4096 bytes of shared memory: Too many open files"):
            allocate(4096)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    monkeypatch.setattr(memfd, "probe", lambda: "it is not there")
    with pytest.raises(ConfigError, match="memfd: it is not there"):
        choose()
    with pytest.raises(ConfigError, match="'memfd' cannot be had here: it is not there"):
        choose(ORDINARY)
