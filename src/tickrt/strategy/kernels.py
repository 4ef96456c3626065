"""Policies: from a signal, the book and the account to intents. And the rule-based fallback.

Entry points: `decide` (dispatches on the strategy's policy), `fallback_signal`, `equity`.

Invariants: at most MAX_INTENTS records are written; a decision depends on its arguments alone; a
strategy that is halted, or whose signal is not finite, writes cancels only. Every field of a
written record is set, so equal decisions are equal bytes.

Known limits: one symbol per strategy; a taker waits for its IOC order to be answered before the
next.
"""

import math

from tickrt.compile.codes import (
    CANCEL,
    CONTRACT,
    GTX,
    INVERSE,
    IOC,
    LOT,
    MODE_HALTED,
    NEW,
    PENDING_CANCEL,
    PENDING_NEW,
    POLICY_TAKER,
)
from tickrt.compile.jit import kernel, kernel_internal
from tickrt.market.kernels import NO_ASK, NO_BID, best
from tickrt.memory.records import MAX_INTENTS

# Parameter numbers: the order of the fields of TakerParams, MakerParams, FallbackParams.
T_ENTER, T_EXIT, T_QTY, T_MAX, T_COOLDOWN, T_SPREAD, T_THROUGH = 0, 1, 2, 3, 4, 5, 6
M_QTY, M_MAX, M_HALF, M_SIGNAL, M_POSITION, M_REQUOTE, M_REST = 0, 1, 2, 3, 4, 5, 6
F_IMBALANCE, F_MICROPRICE = 12, 13


@kernel
def equity(st, p, mid):
    """Cash + position marked at `mid` (a price) − fees, in the account's currency.

    Linear: + contract · quantity · mid, in the quote currency. Inverse: − contract · quantity /
    mid, in the coin (hftbacktest's asset models). With no position `mid` is not read.
    """
    money = st.cash[p] - st.fees[p]
    if st.position[p] == 0:
        return money
    amount = st.position[p] * st.instrument[p, LOT] * st.instrument[p, CONTRACT]
    if st.instrument[p, INVERSE] != 0.0:
        return money - amount / mid
    return money + amount * mid


@kernel
def fallback_signal(st, p, book, s, out):
    """Write (p_down, p_flat, p_up) from the touch alone: queue imbalance and microprice.

    signal = w_i · I + w_m · (microprice − mid) / spread · 2, both terms in −1…1, where
    I = (q_bid − q_ask) / (q_bid + q_ask); with one level a side the second term equals I.
    (0, 1, 0) without a two-sided book.
    """
    bid, bid_qty, ask, ask_qty = best(book, s)
    total = bid_qty + ask_qty
    out[0], out[1], out[2] = 0.0, 1.0, 0.0
    if bid == NO_BID or ask == NO_ASK or not total > 0.0:
        return
    imbalance = (bid_qty - ask_qty) / total
    micro = (bid * ask_qty + ask * bid_qty) / total
    lean = 0.0
    if ask > bid:
        lean = 2.0 * (micro - 0.5 * (bid + ask)) / (ask - bid)
    signal = st.params[p, F_IMBALANCE] * imbalance + st.params[p, F_MICROPRICE] * lean
    signal = min(max(signal, -1.0), 1.0)
    out[0], out[1], out[2] = max(-signal, 0.0), 1.0 - abs(signal), max(signal, 0.0)


@kernel_internal
def write_intent(st, p, out, n, kind, order_id, side, px_tick, qty_lots, tif):
    """Set every field of out[n]; the moment is that of `st` (see `decide`)."""
    record = out[n]
    record["seq"] = st.seq[p]
    record["ts_ns"] = st.now_ns[p]
    record["order_id"] = order_id
    record["px_tick"] = px_tick
    record["qty_lots"] = qty_lots
    record["signal"] = st.signal[p]
    record["strategy"] = p
    record["symbol"] = st.symbol[p]
    record["kind"] = kind
    record["side"] = side
    record["tif"] = tif
    record["mode"] = st.mode[p]
    record["reason"] = 0
    record["record"] = 0
    record["mid2_tick"] = st.mid2[p]
    return n + 1


@kernel_internal
def write_cancel(st, p, orders, c, out, n):
    """A cancel of the order in slot `c`."""
    return write_intent(
        st, p, out, n, CANCEL, orders.order_id[p, c], orders.side[p, c], orders.px_tick[p, c],
        orders.qty_lots[p, c] - orders.filled[p, c], orders.tif[p, c],
    )  # fmt: skip


@kernel_internal
def cancel_all(st, p, orders, out):
    """Cancels for every live order that has none under way, as many as fit."""
    n = 0
    if orders.live[p] == 0:
        return n
    for c in range(orders.state.shape[1]):
        state = orders.state[p, c]
        if PENDING_NEW <= state < PENDING_CANCEL and n < MAX_INTENTS:
            n = write_cancel(st, p, orders, c, out, n)
    return n


@kernel_internal
def taker_lots(st, p, signal, spread):
    """Signed lots that the taker wants to trade now."""
    params = st.params[p]
    position = st.position[p]
    qty, most = int(params[T_QTY]), int(params[T_MAX])
    if abs(signal) >= params[T_ENTER] and spread <= params[T_SPREAD]:
        side = 1 if signal > 0.0 else -1
        held = position * side
        if held < 0:
            return side * (-held + min(qty, most))
        return side * max(min(qty, most - held), 0)
    if position > 0 and signal <= -params[T_EXIT]:
        return -position
    if position < 0 and signal >= params[T_EXIT]:
        return -position
    return 0


@kernel_internal
def take(st, p, orders, bid, ask, out):
    """The taker: one IOC order at the touch, or none."""
    params = st.params[p]
    if orders.live[p] != 0 or st.now_ns[p] - st.last_ns[p] < int(params[T_COOLDOWN]):
        return 0
    lots = taker_lots(st, p, st.signal[p], ask - bid)
    if lots == 0:
        return 0
    through = int(params[T_THROUGH])
    side, px = (1, ask + through) if lots > 0 else (-1, bid - through)
    order_id = st.next_id[p]
    st.next_id[p] += 1
    st.last_ns[p] = st.now_ns[p]
    return write_intent(st, p, out, 0, NEW, order_id, side, px, abs(lots), IOC)


@kernel_internal
def quote_side(st, p, orders, side, px, out, n):
    """Keep, pull or replace the quote of one side so that it stands near `px`."""
    params = st.params[p]
    requote, rest = int(params[M_REQUOTE]), int(params[M_REST])
    room = int(params[M_MAX]) - side * st.position[p]
    kept = 0
    if orders.live[p] != 0:
        for c in range(orders.state.shape[1]):
            state = orders.state[p, c]
            if not PENDING_NEW <= state <= PENDING_CANCEL or orders.side[p, c] != side:
                continue
            leaves = orders.qty_lots[p, c] - orders.filled[p, c]
            room -= leaves
            if state == PENDING_CANCEL:
                continue
            near = abs(orders.px_tick[p, c] - px) <= requote
            fresh = st.now_ns[p] - orders.sent_ns[p, c] < rest
            if kept == 0 and (near or fresh) and room >= 0:
                kept = 1
            elif n < MAX_INTENTS:
                n = write_cancel(st, p, orders, c, out, n)
    lots = min(int(params[M_QTY]), room)
    if kept == 1 or lots <= 0 or n >= MAX_INTENTS:
        return n
    order_id = st.next_id[p]
    st.next_id[p] += 1
    st.last_ns[p] = st.now_ns[p]
    return write_intent(st, p, out, n, NEW, order_id, side, px, lots, GTX)


@kernel_internal
def make(st, p, orders, bid, ask, out):
    """The maker: a post-only quote a side around the skewed price."""
    params = st.params[p]
    lean = st.position[p] / params[M_MAX] * params[M_POSITION]
    price = 0.5 * (bid + ask) + st.signal[p] * params[M_SIGNAL] - lean
    buy = min(math.floor(price - params[M_HALF]), ask - 1)
    sell = max(math.ceil(price + params[M_HALF]), bid + 1)
    n = quote_side(st, p, orders, 1, buy, out, 0)
    return quote_side(st, p, orders, -1, sell, out, n)


@kernel
def decide(st, p, book, s, orders, probabilities, seq, ts_ns, out):
    """What strategy `p` wants after a new signal: writes n ≤ MAX_INTENTS intents, returns n.

    `probabilities`: (down, flat, up). The moment of the decision is noted in `st`: the row, the
    time, the signal p(up) − p(down), and twice the mid.
    """
    signal = float(probabilities[2]) - float(probabilities[0])
    bid, _, ask, _ = best(book, s)
    st.seq[p], st.now_ns[p], st.signal[p], st.mid2[p] = seq, ts_ns, signal, 0
    if bid == NO_BID or ask == NO_ASK or ask <= bid:
        return cancel_all(st, p, orders, out)
    st.mid2[p] = bid + ask
    if st.mode[p] == MODE_HALTED or not math.isfinite(signal + float(probabilities[1])):
        return cancel_all(st, p, orders, out)
    if st.policy[p] == POLICY_TAKER:
        return take(st, p, orders, bid, ask, out)
    return make(st, p, orders, bid, ask, out)
