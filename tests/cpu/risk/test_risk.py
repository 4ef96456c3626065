"""Every reason of the pre-trade checks, their order, and the latch of a halt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from helpers.desk import INVERSE, Desk, desk, intent
from tickrt.compile.codes import CANCEL, SELL
from tickrt.errors import ConfigError
from tickrt.risk.kernels import check_intent, check_loss
from tickrt.risk.limits import RiskLimits, RiskReason, halt, kill, new_risk, rearm
from tickrt.strategy.state import Mode

LIMITS = RiskLimits(
    symbols=(0,),
    max_data_age_ns=1000,
    min_signal=0.1,
    max_order_lots=10,
    max_order_notional=4000.0,
    price_collar=0.01,
    max_position_lots=12,
    max_loss=100.0,
    duplicate_ns=1000,
    max_messages=5,
    message_window_ns=10_000,
    max_executions=3,
    execution_window_ns=50_000,
)


def check(made: Desk, wanted: Any, age_ns: int = 0) -> RiskReason:
    got = check_intent(
        made.risk, 0, wanted, 0, made.book, 0, made.st, made.orders, made.now, made.now - age_ns
    )
    assert wanted["reason"][0] == got
    return RiskReason(int(got))


def nothing(made: Desk) -> dict[str, Any]:
    return {}


def one_sided(made: Desk) -> dict[str, Any]:
    for tick in (1002, 1003, 1006):
        made.level(SELL, tick, 0.0)
    return {}


def crowded(made: Desk) -> dict[str, Any]:
    """Nine lots are open: four more would be thirteen."""
    made.send(intent(99, qty=9))
    return {"qty": 4, "order_id": 100}


def long(made: Desk) -> dict[str, Any]:
    made.st.position[0] = 12
    return {"qty": 1}


def losing(made: Desk) -> dict[str, Any]:
    made.st.cash[0] = -100.0
    return {}


def used_id(made: Desk) -> dict[str, Any]:
    made.risk.last_id[0] = 7
    return {"order_id": 7}


def repeated(made: Desk) -> dict[str, Any]:
    assert check(made, intent(1)) == RiskReason.PASS
    made.now += 999
    return {"order_id": 2}


def talkative(made: Desk) -> dict[str, Any]:
    for i in range(5):
        assert check(made, intent(i + 1, px=1000 - i)) == RiskReason.PASS
    made.now += 9_999
    return {"order_id": 6}


def busy(made: Desk) -> dict[str, Any]:
    check(made, intent(1))  # a window begins
    made.st.fills[0] = 3
    made.now += 49_999
    return {"order_id": 2}


def halted(made: Desk) -> dict[str, Any]:
    halt(made.risk, 0)
    return {}


def killed(made: Desk) -> dict[str, Any]:
    kill(made.risk)
    return {}


def mode_halted(made: Desk) -> dict[str, Any]:
    made.st.mode[0] = Mode.HALTED
    return {}


R = RiskReason
CASES: list[tuple[RiskReason, Callable[[Desk], dict[str, Any]], dict[str, Any]]] = [
    (R.PASS, nothing, {}),
    (R.INSTRUMENT, nothing, {"symbol": 1}),
    (R.INSTRUMENT, nothing, {"symbol": -1}),
    (R.INSTRUMENT, nothing, {"symbol": 500}),
    (R.STALE_DATA, nothing, {"age_ns": 1001}),
    (R.STALE_DATA, nothing, {"age_ns": -1001}),
    (R.PASS, nothing, {"age_ns": 1000}),
    (R.NOT_FINITE, nothing, {"signal": np.nan}),
    (R.NOT_FINITE, nothing, {"signal": np.inf}),
    (R.NOT_FINITE, nothing, {"signal": 1.5}),
    (R.CONFIDENCE, nothing, {"signal": -0.05}),
    (R.SIZE, nothing, {"qty": 0}),
    (R.SIZE, nothing, {"qty": -1}),
    (R.SIZE, nothing, {"qty": 11}),
    (R.NOTIONAL, nothing, {"qty": 9}),  # 9 · 500 = 4500
    (R.PRICE_COLLAR, nothing, {"px": 1012}),
    (R.PRICE_COLLAR, nothing, {"px": 990}),
    (R.PRICE_COLLAR, nothing, {"px": 0}),
    (R.PASS, nothing, {"px": 991}),
    (R.PRICE_COLLAR, one_sided, {}),
    (R.POSITION, crowded, {}),
    (R.POSITION, long, {}),
    (R.PASS, long, {"side": -1}),
    (R.LOSS_LIMIT, losing, {}),
    (R.DUPLICATE, used_id, {}),
    (R.DUPLICATE, repeated, {}),
    (R.PASS, repeated, {"px": 1001}),
    (R.MESSAGE_RATE, talkative, {}),
    (R.THROTTLE, busy, {}),
    (R.HALTED, halted, {}),
    (R.HALTED, killed, {}),
    (R.HALTED, mode_halted, {}),
]


@pytest.mark.parametrize(("reason", "prepare", "change"), CASES)
def test_each_reason_is_reached(
    reason: RiskReason, prepare: Callable[[Desk], dict[str, Any]], change: dict[str, Any]
) -> None:
    made = desk(limits=LIMITS)
    wanted = {**prepare(made), **change}
    age = wanted.pop("age_ns", 0)
    before = int(made.risk.rejects[0, reason])
    assert check(made, intent(**wanted), age) == reason
    assert made.risk.rejects[0, reason] == before + 1


def test_the_cases_cover_every_reason() -> None:
    assert {reason for reason, _, _ in CASES} == set(RiskReason)


def test_the_first_failing_check_gives_the_reason() -> None:
    """An intent that fails every check loses its faults one by one, in the order of the reasons."""
    made = desk(limits=LIMITS)
    wanted = {"symbol": 1, "signal": np.nan, "qty": 11, "px": 1500, "order_id": 5}
    age = 2000
    busy(made)
    made.risk.sent_ns[0, :5], made.risk.sent[0], made.risk.last_id[0] = made.now, 5, 5
    made.st.cash[0], made.st.position[0] = -1e6, 12
    kill(made.risk)

    def now() -> RiskReason:
        return check(made, intent(**wanted), age)

    seen = [now()]
    for fix in ({"symbol": 0}, {"age": 0}, {"signal": 0.01}, {"signal": 0.5}, {"qty": 8}):
        age = fix.pop("age", age)
        wanted.update(fix)
        seen.append(now())
    for fix in ({"qty": 2}, {"px": 995}):
        wanted.update(fix)
        seen.append(now())
    made.st.position[0] = 0
    seen.append(now())
    made.st.cash[0] = 0.0
    seen.append(now())
    wanted["order_id"] = 6
    seen.append(now())
    made.risk.sent_ns[0, :5] = 0
    seen.append(now())
    made.st.fills[0] = 0
    seen.append(now())
    kill(made.risk, False)
    rearm(made.risk, 0)
    seen.append(now())
    assert seen == [*list(RiskReason)[1:], R.PASS]


def test_cancels_always_pass_and_count_as_messages() -> None:
    made = desk(limits=LIMITS)
    kill(made.risk)
    halt(made.risk, 0)
    made.st.cash[0] = -1e9
    for _ in range(7):
        assert check(made, intent(kind=CANCEL, symbol=9, qty=0, signal=np.nan), 10**9) == R.PASS
    assert made.risk.sent[0] == 7
    kill(made.risk, False)
    made.st.cash[0] = 0.0
    rearm(made.risk, 0)
    assert check(made, intent()) == R.MESSAGE_RATE


def test_a_loss_halts_until_a_person_rearms_and_counts_anew_from_there() -> None:
    made = desk(limits=LIMITS)
    made.st.cash[0] = -100.0
    assert check(made, intent(1)) == R.LOSS_LIMIT
    made.st.cash[0] = 0.0
    assert check(made, intent(2)) == R.HALTED  # the loss is gone, the halt stays
    made.st.cash[0] = -150.0
    rearm(made.risk, 0)
    assert check(made, intent(3)) == R.PASS
    made.st.cash[0] = -249.0
    assert check(made, intent(4, px=999)) == R.PASS
    made.st.cash[0] = -250.0
    assert check(made, intent(5, px=998)) == R.LOSS_LIMIT
    assert made.risk.halted[0] == 1


def test_an_open_position_is_marked_for_the_loss_limit() -> None:
    made = desk(limits=LIMITS)
    made.st.position[0], made.st.cash[0] = 10, -10 * 510.5  # bought at 510.5, mid is 500.5
    assert check_loss(made.risk, 0, made.st, 1000, 1002) == R.LOSS_LIMIT
    assert made.risk.halted[0] == 1


def test_a_refused_order_is_not_remembered() -> None:
    made = desk(limits=LIMITS)
    assert check(made, intent(1, qty=11)) == R.SIZE
    assert check(made, intent(1)) == R.PASS
    assert made.risk.sent[0] == 1


def test_windows_slide() -> None:
    made = desk(limits=LIMITS)
    talkative(made)
    made.now += 1
    assert check(made, intent(6)) == R.PASS
    made = desk(limits=LIMITS)
    busy(made)
    made.now += 1
    assert check(made, intent(3)) == R.PASS


def test_the_value_of_an_inverse_order_is_in_quote_currency() -> None:
    limits = RiskLimits(max_order_notional=1000.0)
    made = desk(instrument=INVERSE, limits=limits)
    assert check(made, intent(1, qty=10, px=1001)) == R.PASS  # 10 contracts of 100 USD
    assert check(made, intent(2, qty=11, px=1001)) == R.NOTIONAL


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_order_lots": 0}, "RiskLimits.max_order_lots: expected more than 0, got 0"),
        ({"max_loss": float("nan")}, "max_loss"),
        ({"min_signal": 2}, "min_signal: expected 0…1"),
        ({"duplicate_ns": -1}, "duplicate_ns"),
        ({"max_messages": 5000}, "max_messages: expected at most 1024"),
        ({"symbols": (128,)}, "symbols: expected indices 0…127"),
    ],
)
def test_wrong_limits_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RiskLimits(**change)


def test_no_limits_is_an_error() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        new_risk([])
