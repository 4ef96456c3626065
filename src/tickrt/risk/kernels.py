"""Pre-trade risk checks: one small pure kernel per check; `check_intent` runs them in order.

Entry points: `check_intent` (before every send), `check_loss` (also between orders).

Invariants: the first check that fails gives the reason, which is also written into the intent and
counted; a cancel passes always and counts as a message; only a new order that passed every check is
remembered by the duplicate and rate checks; a loss halts the strategy, and nothing here ends a
halt.
"""

import math

from tickrt.compile.codes import (
    CANCEL,
    CONTRACT,
    INVERSE,
    LOT,
    MODE_HALTED,
    REASON_CONFIDENCE,
    REASON_DUPLICATE,
    REASON_HALTED,
    REASON_INSTRUMENT,
    REASON_LOSS_LIMIT,
    REASON_MESSAGE_RATE,
    REASON_NOT_FINITE,
    REASON_NOTIONAL,
    REASON_PASS,
    REASON_POSITION,
    REASON_PRICE_COLLAR,
    REASON_SIZE,
    REASON_STALE_DATA,
    REASON_THROTTLE,
    TICK,
)
from tickrt.compile.jit import kernel, kernel_internal
from tickrt.market.kernels import NO_ASK, NO_BID, best
from tickrt.strategy.kernels import equity

# Limits: the fields of RiskLimits after `symbols`, in order.
L_AGE, L_SIGNAL, L_LOTS, L_NOTIONAL, L_COLLAR, L_POSITION, L_LOSS, L_DUPLICATE = (
    0, 1, 2, 3, 4, 5, 6, 7,
)  # fmt: skip
L_MESSAGES, L_MESSAGE_NS, L_EXECUTIONS, L_EXECUTION_NS = 8, 9, 10, 11


@kernel_internal
def check_instrument(risk, p, intent, st):
    """The symbol is one that the strategy may trade."""
    symbol = int(intent["symbol"])
    if symbol < 0 or symbol >= risk.allowed.shape[1] or risk.allowed[p, symbol] == 0:
        return REASON_INSTRUMENT
    return REASON_PASS if symbol == st.symbol[p] else REASON_INSTRUMENT


@kernel_internal
def check_age(risk, p, ts_ns, event_ts_ns):
    """The newest event is not too old (nor from a clock that is that far ahead)."""
    return REASON_STALE_DATA if abs(ts_ns - event_ts_ns) > risk.limits[p, L_AGE] else REASON_PASS


@kernel_internal
def check_signal(risk, p, intent):
    """The signal is a number in −1…1 (to float rounding) and strong enough."""
    signal = float(intent["signal"])
    if not math.isfinite(signal) or abs(signal) > 1.001:
        return REASON_NOT_FINITE
    return REASON_CONFIDENCE if abs(signal) < risk.limits[p, L_SIGNAL] else REASON_PASS


@kernel_internal
def check_size(risk, p, intent, st):
    """Lots and value: linear lots · lot · contract · price, inverse lots · lot · contract."""
    lots = int(intent["qty_lots"])
    if lots <= 0 or lots > risk.limits[p, L_LOTS]:
        return REASON_SIZE
    value = lots * st.instrument[p, LOT] * st.instrument[p, CONTRACT]
    if st.instrument[p, INVERSE] == 0.0:
        value *= abs(int(intent["px_tick"]) * st.instrument[p, TICK])
    return REASON_NOTIONAL if value > risk.limits[p, L_NOTIONAL] else REASON_PASS


@kernel_internal
def check_price(risk, p, intent, bid, ask):
    """The price is positive and near the mid."""
    if bid == NO_BID or ask == NO_ASK:
        return REASON_PRICE_COLLAR
    px, mid = int(intent["px_tick"]), 0.5 * (bid + ask)
    if px <= 0 or abs(px - mid) > risk.limits[p, L_COLLAR] * mid:
        return REASON_PRICE_COLLAR
    return REASON_PASS


@kernel_internal
def check_position(risk, p, intent, st, orders):
    """The position if this and every open order of its side were filled."""
    side = int(intent["side"])
    open_lots = orders.open_lots[p, 0] if side > 0 else orders.open_lots[p, 1]
    worst = side * st.position[p] + open_lots + int(intent["qty_lots"])
    return REASON_POSITION if worst > risk.limits[p, L_POSITION] else REASON_PASS


@kernel
def check_loss(risk, p, st, bid, ask):
    """The loss since arming; too large a one halts the strategy. `bid`, `ask` in ticks."""
    value = equity(st, p, 0.5 * (bid + ask) * st.instrument[p, TICK])
    if math.isnan(risk.base[p]):
        risk.base[p] = value
    if value - risk.base[p] <= -risk.limits[p, L_LOSS]:
        risk.halted[p] = 1
        return REASON_LOSS_LIMIT
    return REASON_PASS


@kernel_internal
def check_duplicate(risk, p, intent, ts_ns):
    """Neither a used order id nor the same order a moment ago."""
    if int(intent["order_id"]) <= risk.last_id[p]:
        return REASON_DUPLICATE
    window, remembered = risk.limits[p, L_DUPLICATE], risk.recent.shape[1]
    for back in range(1, remembered + 1):  # the newest first: those before one too old are older
        i = (risk.passed[p] - back) % remembered
        if ts_ns - risk.recent[p, i, 4] >= window:
            return REASON_PASS
        if (
            risk.recent[p, i, 1] == int(intent["px_tick"])
            and risk.recent[p, i, 0] == int(intent["side"])
            and risk.recent[p, i, 2] == int(intent["qty_lots"])
            and risk.recent[p, i, 3] == int(intent["tif"])
        ):
            return REASON_DUPLICATE
    return REASON_PASS


@kernel_internal
def check_rate(risk, p, ts_ns):
    """Messages within the window before `ts_ns`."""
    most = int(risk.limits[p, L_MESSAGES])
    if risk.sent[p] < most:
        return REASON_PASS
    oldest = risk.sent_ns[p, (risk.sent[p] - most) % risk.sent_ns.shape[1]]
    return REASON_MESSAGE_RATE if ts_ns - oldest < risk.limits[p, L_MESSAGE_NS] else REASON_PASS


@kernel_internal
def check_throttle(risk, p, st, ts_ns):
    """Executions within the present window."""
    if ts_ns - risk.window_ns[p] >= risk.limits[p, L_EXECUTION_NS]:
        risk.window_ns[p] = ts_ns
        risk.window_fills[p] = st.fills[p]
    executed = st.fills[p] - risk.window_fills[p]
    return REASON_THROTTLE if executed >= risk.limits[p, L_EXECUTIONS] else REASON_PASS


@kernel_internal
def check_halt(risk, p, st):
    """Neither halted nor killed."""
    if risk.halted[p] != 0 or risk.killed[0] != 0 or st.mode[p] == MODE_HALTED:
        return REASON_HALTED
    return REASON_PASS


@kernel_internal
def first_reason(risk, p, intent, book, s, st, orders, ts_ns, event_ts_ns):
    """The first check that fails, or REASON_PASS."""
    reason = check_instrument(risk, p, intent, st)
    if reason == REASON_PASS:
        reason = check_age(risk, p, ts_ns, event_ts_ns)
    if reason == REASON_PASS:
        reason = check_signal(risk, p, intent)
    if reason == REASON_PASS:
        reason = check_size(risk, p, intent, st)
    bid, _, ask, _ = best(book, s)
    if reason == REASON_PASS:
        reason = check_price(risk, p, intent, bid, ask)
    if reason == REASON_PASS:
        reason = check_position(risk, p, intent, st, orders)
    if reason == REASON_PASS:
        reason = check_loss(risk, p, st, bid, ask)
    if reason == REASON_PASS:
        reason = check_duplicate(risk, p, intent, ts_ns)
    if reason == REASON_PASS:
        reason = check_rate(risk, p, ts_ns)
    if reason == REASON_PASS:
        reason = check_throttle(risk, p, st, ts_ns)
    if reason == REASON_PASS:
        reason = check_halt(risk, p, st)
    return reason


@kernel_internal
def remember_message(risk, p, ts_ns):
    """Count a message that goes out."""
    risk.sent_ns[p, risk.sent[p] % risk.sent_ns.shape[1]] = ts_ns
    risk.sent[p] += 1


@kernel_internal
def remember_order(risk, p, intent, ts_ns):
    """Remember a new order that goes out."""
    i = risk.passed[p] % risk.recent.shape[1]
    risk.recent[p, i, 0] = int(intent["side"])
    risk.recent[p, i, 1] = int(intent["px_tick"])
    risk.recent[p, i, 2] = int(intent["qty_lots"])
    risk.recent[p, i, 3] = int(intent["tif"])
    risk.recent[p, i, 4] = ts_ns
    risk.passed[p] += 1
    risk.last_id[p] = int(intent["order_id"])


@kernel
def check_intent(risk, p, out, i, book, s, st, orders, ts_ns, event_ts_ns):
    """Check intent out[i] of strategy `p`; its reason is returned, written into it and counted."""
    intent = out[i]
    reason = REASON_PASS
    if int(intent["kind"]) != CANCEL:
        reason = first_reason(risk, p, intent, book, s, st, orders, ts_ns, event_ts_ns)
    intent["reason"] = reason
    risk.rejects[p, reason] += 1
    if reason == REASON_PASS:
        remember_message(risk, p, ts_ns)
        if int(intent["kind"]) != CANCEL:
            remember_order(risk, p, intent, ts_ns)
    return reason
