"""The shared-memory ring: order, batches, wrap-around, a full ring, close, a producer that dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickrt.compile.codes import BATCH_END, DEPTH, LOCAL
from tickrt.compile.intrinsics import load_acquire
from tickrt.compile.jit import JIT, kernel
from tickrt.errors import ConfigError, DataError, EngineError
from tickrt.memory.records import EVENT_DTYPE
from tickrt.memory.ring import Ring, array_view


def events_of(sizes, first=0):
    """Batches of `sizes` events, numbered in order_id."""
    events = np.zeros(sum(sizes), EVENT_DTYPE)
    events["ev"] = DEPTH | LOCAL
    events["order_id"] = np.arange(first, first + len(events))
    if len(events):
        events["ev"][np.cumsum(sizes) - 1] |= np.uint64(BATCH_END)
    return events


@pytest.fixture
def ring():
    made = Ring.create(None, 16)
    yield made
    made.unlink()


def numbers(events):
    return events["order_id"].tolist()


def test_events_come_out_as_they_went_in(ring):
    events = events_of([3, 2])
    assert ring.publish(events) == 5
    assert (ring.published, ring.consumed) == (5, 0)
    out = ring.read()
    assert out.tobytes() == events.tobytes()
    assert (ring.published, ring.consumed) == (5, 5)
    assert len(ring.read()) == 0


def test_the_other_side_sees_the_same_memory(ring):
    other = Ring.attach(ring.name)
    assert other.capacity == 16
    ring.publish(events_of([4]))
    assert numbers(other.read(3)) == [0, 1, 2]
    assert ring.consumed == 3
    assert numbers(other.read(3)) == [3]


def test_wrap_around(ring):
    sent, got = 0, []
    for _ in range(20):
        sent += ring.publish(events_of([3, 4], sent))
        got += numbers(ring.read())
    assert got == list(range(140))


def test_full_ring_takes_whole_batches_and_never_waits(ring):
    events = events_of([6, 6, 6])
    assert ring.publish(events) == 12
    assert ring.publish(events[12:]) == 0
    assert numbers(ring.read(5)) == [0, 1, 2, 3, 4]
    assert ring.publish(events[12:]) == 6
    assert numbers(ring.read()) == list(range(5, 18))


def test_part_of_a_batch_that_would_fit_later_waits(ring):
    assert ring.publish(events_of([10])) == 10
    part = events_of([8])
    part["ev"] &= ~np.uint64(BATCH_END)
    assert ring.publish(part) == 0
    ring.read()
    assert ring.publish(part) == 8


def test_the_rest_of_a_batch_longer_than_the_ring_follows_while_half_is_held():
    """The loop gives back half a ring of an open batch at a time, not more."""
    ring = Ring.create(None, 16)
    try:
        events = events_of([11, 20, 3, 40, 2])
        sent = held = 0
        for _ in range(40):
            taken = ring.publish(events[sent:])
            sent += taken
            held += taken
            while held > 8:  # as `loop_kernels.loop`: what is read of an open batch stays
                held -= len(ring.read(8))
            if sent == len(events):
                return
        pytest.fail(f"{sent} of {len(events)} events passed")
    finally:
        ring.unlink()


def test_batch_longer_than_the_ring_passes_in_parts(ring):
    events = events_of([40])
    got, sent = [], 0
    while sent < len(events):
        taken = ring.publish(events[sent:])
        assert taken > 0
        sent += taken
        got += numbers(ring.read())
    assert got == list(range(40))


def test_the_rest_of_a_batch_that_began_does_not_wait_for_room_as_a_whole(ring):
    events = events_of([9, 21])
    assert ring.publish(events[:9]) == 9
    assert ring.publish(events[9:]) == 7
    ring.read(9)  # the loop has read all 16, and holds the part until the batch is complete
    assert ring.publish(events[16:]) == 9
    ring.read(16)  # a full ring is given back
    assert ring.publish(events[25:]) == 5


def test_a_batch_ends_where_it_does_for_the_loop(ring):
    """An event that only the exchange's side reads ends none."""
    events = events_of([4, 8])
    events["ev"][3] &= ~np.uint64(LOCAL)
    assert ring.publish(events_of([8])) == 8
    assert ring.publish(events) == 0
    ring.read()
    assert ring.publish(events) == 12


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=8),
    turns=st.lists(st.integers(0, 20), min_size=1, max_size=40),
)
def test_batches_of_any_length_reach_a_consumer_that_keeps_parts(sizes, turns):
    """Taking turns in any order: 0 publishes, another number reads as many events.

    The consumer gives back as the loop does: complete batches, and what is more than half a ring.
    """
    ring, events = Ring.local(16), events_of(sizes)
    sent = read = idle = 0
    while read < len(events):
        for turn in [*turns, 0, 16]:
            before = sent + read
            if turn == 0:
                sent += ring.publish(events[sent:])
            for _ in range(min(turn, sent - read)):
                event = ring.view.events[read & 15]
                assert event["order_id"] == read
                read += 1
                if event["ev"] & np.uint64(BATCH_END) or read - ring.consumed > 7:
                    ring.read(read - ring.consumed)
            idle = 0 if sent + read > before else idle + 1
            assert idle < 100, f"stuck: {sent} published, {read} read, {ring.consumed} given back"


def test_stamps_are_the_clock_at_publication(ring):
    ring.publish(events_of([2]))
    ring.publish(events_of([1], 2))
    first, second, third = ring.view.stamps[:3].tolist()
    assert first == second
    assert third > second > 0


def test_recorded_events_carry_no_time_of_publication(ring):
    ring.publish(events_of([16]))
    ring.read()
    assert ring.view.stamps.all()
    assert ring.publish(events_of([3, 2]), stamped=False) == 5
    assert ring.view.stamps[:5].tolist() == [0] * 5
    assert ring.view.stamps[5:].all()  # those of the others stay
    assert ring.heartbeat_age() >= 0
    ring.publish(events_of([1]))
    assert ring.view.stamps[5] > ring.view.stamps[6]


def test_close_is_seen_and_final(ring):
    other = Ring.attach(ring.name)
    ring.publish(events_of([1]))
    assert not other.closed
    ring.close()
    assert other.closed
    assert len(other.read()) == 1
    with pytest.raises(EngineError, match="publish after close"):
        ring.publish(events_of([1]))


def test_heartbeat(ring):
    ring.beat()
    age = ring.heartbeat_age()
    assert ring.heartbeat_age() > age >= 0
    assert ring.producer_alive()


def test_view_outlives_the_ring():
    ring = Ring.create(None, 4)
    ring.publish(events_of([3]))
    ring.unlink()
    ring.unlink()
    view = ring.view
    del ring
    assert numbers(view.events[:3]) == [0, 1, 2]
    with pytest.raises(ConfigError, match="does not exist"):
        Ring.attach("tickrt-no-such-ring")


@pytest.mark.parametrize("capacity", [0, 1, 3, 1000, 1 << 33])
def test_capacity_is_a_power_of_two(capacity):
    with pytest.raises(ConfigError, match="power of two"):
        Ring.create(None, capacity)


def test_name_in_use(ring):
    with pytest.raises(ConfigError, match="exists already"):
        Ring.create(ring.name, 16)


def test_foreign_shared_memory_is_refused():
    from multiprocessing.shared_memory import SharedMemory

    for size in (8, 4096):
        foreign = SharedMemory(create=True, size=size)
        try:
            with pytest.raises(ConfigError, match="not a tickrt ring"):
                Ring.attach(foreign.name)
        finally:
            foreign.close()
            foreign.unlink()


def test_only_event_arrays_are_published(ring):
    with pytest.raises(DataError, match="event dtype"):
        ring.publish(np.zeros(3))
    with pytest.raises(DataError, match="one-dimensional"):
        ring.publish(np.zeros((2, 2), EVENT_DTYPE))
    assert ring.publish(events_of([2, 2])[::2]) == 2  # copied, not refused


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=60),
    chunk=st.integers(1, 40),
    limit=st.integers(1, 20),
)
def test_producer_thread_loses_and_reorders_nothing(sizes, chunk, limit):
    ring = Ring.create(None, 16)
    events = events_of(sizes)

    def produce():
        sent = 0
        while sent < len(events):
            sent += ring.publish(events[sent : sent + chunk])
        ring.close()

    producer = threading.Thread(target=produce)
    # A chunk may end inside a batch; it is published all the same, as its own producer wants it.
    producer.start()
    got = drain(Ring.attach(ring.name), limit)
    producer.join()
    ring.unlink()
    assert got == list(range(len(events)))


def drain(ring, limit):
    got = []
    while True:
        last = ring.closed
        part = ring.read(limit)
        got += numbers(part)
        if last and not len(part):
            return got


PRODUCER = """
import sys
sys.path.insert(0, {here!r})
from test_ring import events_of
from tickrt.memory.ring import Ring
ring = Ring.attach({name!r})
events, sent = events_of([5] * 4000), 0
while sent < len(events):
    sent += ring.publish(events[sent : sent + 1000])
if {close}:
    ring.close()
else:
    print("sent", flush=True)
    sys.stdin.read()
"""


def start_producer(ring, close):
    code = PRODUCER.format(here=os.path.dirname(__file__), name=ring.name, close=close)
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def test_producer_in_another_process():
    ring = Ring.create(None, 1024)
    with start_producer(ring, close=True) as producer:
        got = drain(ring, 700)
    assert producer.returncode == 0
    assert got == list(range(20_000))
    assert Ring.attach(ring.name).capacity == 1024  # its exit did not remove the memory
    ring.unlink()


def test_death_of_the_producer_is_seen():
    ring = Ring.create(None, 1 << 15)
    assert not ring.producer_alive()
    with start_producer(ring, close=False) as producer:
        assert producer.stdout.readline() == b"sent\n"
        assert ring.producer_alive()
        with pytest.raises(EngineError, match=f"process {producer.pid} is its producer"):
            ring.publish(events_of([1]))
        producer.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 30
        while ring.producer_alive():  # before it is waited for: a zombie is dead
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert not ring.closed
    assert len(ring.read(1 << 15)) == 20_000  # what was published stays
    assert ring.publish(events_of([1])) == 1  # another producer may take over
    ring.unlink()


def test_unlink_by_the_creator_in_a_forked_tree_is_quiet():
    code = (
        "from tickrt.memory.ring import Ring\n"
        "ring = Ring.create(None, 8); other = Ring.attach(ring.name); other.unlink()\n"
        "Ring.attach(ring.name); ring.unlink()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stderr == b""


def test_array_view_has_everything_published():
    events = events_of([3, 3])
    view, owner = array_view(events)
    assert view.events.base is events or view.events is events
    assert view.mask == -1
    assert numbers(view.events[np.arange(6) & view.mask]) == list(range(6))
    assert owner[0] == 6
    assert owner[16] == 1
    assert view.published == owner.ctypes.data


def test_array_view_copies_what_compiled_code_could_not_take():
    events = events_of([4])
    events.setflags(write=False)
    view, _owner = array_view(events)
    assert view.events.flags.writeable
    assert numbers(view.events) == [0, 1, 2, 3]


@kernel
def read_in_place(view, out):
    """As the hot loop reads: no copy of events."""
    count = load_acquire(view.published)
    for q in range(count):
        out[q] = np.int64(view.events[q & view.mask]["order_id"])
    return count


def test_compiled_code_reads_both_views_in_place(ring):
    events = events_of([5, 5])
    ring.publish(events)
    plain, _owner = array_view(events)
    for view in (ring.view, plain):
        out = np.zeros(16, np.int64)
        assert read_in_place(view, out) == 10
        assert out[:10].tolist() == list(range(10))
    if JIT:
        assert len(read_in_place.signatures) == 1  # one type, so the loop is compiled once


INTERPRETED = """
import sys
sys.path.insert(0, {here!r})
from test_ring import scenario
print(scenario())
"""


def scenario():
    """A fixed run of pushes and pops; what was taken and read at each step."""
    ring, random, log, sent = Ring.create(None, 32), np.random.default_rng(5), [], 0
    for _ in range(60):
        events = events_of(random.integers(1, 12, random.integers(1, 4)).tolist(), sent)
        taken = ring.publish(events)
        sent += taken
        read = ring.read(int(random.integers(1, 30)))
        log.append((taken, numbers(read)))
    ring.unlink()
    return log


def test_same_without_compilation():
    code = INTERPRETED.format(here=os.path.dirname(__file__))
    flag = "1" if JIT else "0"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "NUMBA_DISABLE_JIT": flag},
        capture_output=True,
        check=True,
        text=True,
    )
    assert done.stdout.strip() == str(scenario())


def test_attached_child_of_multiprocessing():
    ring = Ring.create(None, 64)
    context = multiprocessing.get_context("spawn")
    child = context.Process(target=child_publishes, args=(ring.name,))
    child.start()
    got = drain(ring, 10)
    child.join()
    assert child.exitcode == 0
    assert got == list(range(50))
    ring.unlink()


def child_publishes(name):
    ring = Ring.attach(name)
    ring.publish(events_of([5] * 10))
    ring.close()
