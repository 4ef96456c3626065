"""What the loop writes down: one function per kind of record, in place in the record ring.

`r` is a `state.RecordRing`. A record that finds no room is counted in `r.lost`, and nothing waits
for it here; `publish_records` makes what was written readable, once per batch.
"""

from tickrt.compile.codes import (
    RECORD_CLOCK,
    RECORD_FILL,
    RECORD_INTENT,
    RECORD_MODE,
    RECORD_ORDER,
    RECORD_REPORT,
    RECORD_ROW,
    RECORD_SIGNAL,
)
from tickrt.compile.intrinsics import clock, load_acquire, pause, prefetch_write, store_release
from tickrt.compile.jit import kernel, kernel_internal
from tickrt.market.kernels import NO_ASK, NO_BID, best
from tickrt.memory.records import NO_MID
from tickrt.strategy.kernels import equity

HEAD, LIMIT = 0, 1  # columns of RecordRing.state
PREFETCHED = 8  # records that a batch with an order usually makes


@kernel_internal
def reserve(r, kind):
    """The slot of the next record, or −1: the reader is too slow, and the record is lost."""
    head = r.state[HEAD]
    if head >= r.state[LIMIT]:
        r.state[LIMIT] = load_acquire(r.consumed) + r.mask + 1
        if head >= r.state[LIMIT]:
            r.lost[kind] += 1
            return -1
    r.state[HEAD] = head + 1
    return head & r.mask


@kernel_internal
def publish_records(r):
    """What was written until now can be read."""
    store_release(r.published, r.state[HEAD])


@kernel_internal
def prefetch_records(r):
    """Fetch the slots of the next batch's records: the reader's core has them."""
    head = r.state[HEAD]
    for i in range(PREFETCHED):
        prefetch_write(r.base + 64 * ((head + i) & r.mask))


@kernel_internal
def room(r):
    """Whether a batch's records are sure to find room: half the ring is free."""
    return r.state[HEAD] - load_acquire(r.consumed) <= r.mask >> 1


@kernel
def wait_for_room(x):
    """Until the records of a batch are sure to find room, or the loop is told to stop."""
    while not room(x.records) and load_acquire(x.stop[0]) == 0:
        pause()


@kernel_internal
def mid2_of(book, s):
    """Best bid + best ask in ticks; 0 where a side is missing."""
    bid, _, ask, _ = best(book, s)
    return 0 if bid == NO_BID or ask == NO_ASK else bid + ask


@kernel_internal
def record_row(x, k, s, seq, ts_ns, exch_ts_ns, event):
    """The row that stream `k` made of a batch; `seq` may be a Code."""
    i = reserve(x.records, RECORD_ROW)
    if i < 0:
        return
    bid, _, ask, _ = best(x.book, s)
    w = x.records.rows[i]
    w["seq"] = seq
    w["ts_ns"] = ts_ns
    w["exch_ts_ns"] = exch_ts_ns
    w["event"] = event
    w["bid_tick"] = bid
    w["stream"] = k
    w["strategy"] = -1
    w["symbol"] = s
    w["spare"] = 0
    w["spare_2"] = 0
    w["record"] = RECORD_ROW
    w["ask_tick"] = ask


@kernel_internal
def record_signal(x, p, s, seq, ts_ns, code, engine, wanted, position):
    """What strategy `p` decided on: the signal of `x.signal`, and its account before."""
    i = reserve(x.records, RECORD_SIGNAL)
    if i < 0:
        return
    mid2 = mid2_of(x.book, s)
    w = x.records.signals[i]
    w["seq"] = seq
    w["ts_ns"] = ts_ns
    w["mid2_tick"] = mid2
    w["equity"] = equity(x.strategies, p, 0.5 * mid2 / x.book.inv_tick[s])
    w["position"] = position
    w["p_down"] = x.signal[0]
    w["strategy"] = p
    w["symbol"] = s
    w["p_flat"] = x.signal[1]
    w["code"] = code
    w["record"] = RECORD_SIGNAL
    w["p_up"] = x.signal[2]
    w["mode"] = x.strategies.mode[p]
    w["intents"] = wanted
    w["engine"] = engine


@kernel_internal
def record_intent(x, i):
    """Intent `i` of the scratch, with the reason that risk gave it."""
    slot = reserve(x.records, RECORD_INTENT)
    if slot >= 0:
        x.records.intents[slot] = x.scratch[i]
        x.records.intents[slot]["record"] = RECORD_INTENT


@kernel_internal
def record_order(x, i, ready, sent):
    """Intent `i` of the scratch went out: clocks of its batch's coming and of its going."""
    slot = reserve(x.records, RECORD_ORDER)
    if slot < 0:
        return
    intent = x.scratch[i]
    w = x.records.orders[slot]
    w["seq"] = intent["seq"]
    w["ts_ns"] = intent["ts_ns"]
    w["order_id"] = intent["order_id"]
    w["ready"] = ready
    w["sent"] = sent
    w["spare"] = 0
    w["strategy"] = intent["strategy"]
    w["symbol"] = intent["symbol"]
    w["kind"] = intent["kind"]
    w["side"] = intent["side"]
    w["tif"] = intent["tif"]
    w["mode"] = intent["mode"]
    w["spare_2"] = 0
    w["record"] = RECORD_ORDER
    w["px_tick"] = intent["px_tick"]


@kernel_internal
def record_report(x, report, ts_ns, code):
    """A report of the gateway, and what the order table made of it."""
    i = reserve(x.records, RECORD_REPORT)
    if i < 0:
        return
    x.records.reports[i] = report
    w = x.records.reports[i]
    w["ts_ns"] = ts_ns
    w["code"] = code
    w["spare"] = 0
    w["spare_2"] = 0
    w["spare_3"] = 0
    w["record"] = RECORD_REPORT


@kernel_internal
def record_fill(x, p, report, ts_ns, side, fee):
    """An execution, after the account of strategy `p` has it."""
    i = reserve(x.records, RECORD_FILL)
    if i < 0:
        return
    s = x.strategies.symbol[p]
    px, mid2 = int(report["px_tick"]), mid2_of(x.book, s)
    near = mid2 - 2 * px
    w = x.records.fills[i]
    w["position"] = x.strategies.position[p]
    w["ts_ns"] = ts_ns
    w["order_id"] = report["order_id"]
    w["px_tick"] = px
    w["qty_lots"] = report["qty_lots"]
    w["mid2_from_px"] = NO_MID if mid2 == 0 or abs(near) >= -NO_MID else near
    w["strategy"] = p
    w["symbol"] = s
    w["spare"] = 0
    w["side"] = side
    w["maker"] = report["maker"]
    w["record"] = RECORD_FILL
    w["fee"] = fee


@kernel_internal
def record_mode(x, p, before, code, seq, ts_ns):
    """Strategy `p` has changed its mode from `before`."""
    i = reserve(x.records, RECORD_MODE)
    if i < 0:
        return
    w = x.records.modes[i]
    w["seq"] = seq
    w["ts_ns"] = ts_ns
    w["healthy"] = x.strategies.healthy[p]
    w["spare"] = 0
    w["spare_2"] = 0
    w["code"] = code
    w["strategy"] = p
    w["symbol"] = x.strategies.symbol[p]
    w["before"] = before
    w["after"] = x.strategies.mode[p]
    w["spare_3"] = 0
    w["spare_4"] = 0
    w["record"] = RECORD_MODE
    w["spare_5"] = 0


@kernel
def record_clock(x, event, ts_ns):
    """The market's time and the machine's at one moment."""
    i = reserve(x.records, RECORD_CLOCK)
    if i < 0:
        return
    w = x.records.clocks[i]
    w["event"] = event
    w["ts_ns"] = ts_ns
    w["clock"] = clock()
    w["spare"] = 0
    w["spare_2"] = 0
    w["spare_3"] = 0
    w["strategy"] = -1
    w["symbol"] = -1
    w["spare_4"] = 0
    w["spare_5"] = 0
    w["record"] = RECORD_CLOCK
    w["spare_6"] = 0
