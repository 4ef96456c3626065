"""The same event file through hftbacktest and nautilus_trader, each in the way that suits it best.

Each function prepares what it may prepare ahead (arrays, message objects) and returns `run()`,
which replays the whole file once and returns (seconds, best bid in ticks, best ask in ticks).

hftbacktest: an idle strategy, one `elapse` over all of the data, so that no Python or Numba code
runs in between. It plays each event twice, at the exchange and at the trader, with its trade and
order machinery in place: it does more than a book.

nautilus_trader: its order book alone, message by message (`OrderBook.apply_deltas`); trades do not
touch a book and are left out. And its backtest engine with an idle strategy that subscribes to the
book and the trades.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from tickrt.compile.codes import BATCH_END, BUY, CLEAR, KIND_MASK, LOCAL, TRADE
from tickrt.market.instrument import Instrument

__all__ = ["Run", "hftbacktest_idle", "nautilus_book", "nautilus_engine"]

Run = Callable[[], tuple[float, int, int]]


def hftbacktest_idle(events: Any, instrument: Instrument, depth: str) -> Run:
    """An idle replay; `depth` is ``hash`` or ``roi`` (a dense ladder, ±10 % of the price)."""
    import hftbacktest as hbt

    prices = events["px"][events["px"] > 0]
    middle = float(np.median(prices))

    def run() -> tuple[float, int, int]:
        asset = (
            hbt.BacktestAsset()
            .data([events])
            .linear_asset(1.0)
            .constant_order_latency(0, 0)
            .risk_adverse_queue_model()
            .no_partial_fill_exchange()
            .trading_value_fee_model(0.0, 0.0)
            .tick_size(instrument.tick_size)
            .lot_size(instrument.lot_size)
        )
        if depth == "roi":
            asset.roi_lb(middle * 0.9).roi_ub(middle * 1.1)
            backtest = hbt.ROIVectorMarketDepthBacktest([asset])
        else:
            backtest = hbt.HashMapMarketDepthBacktest([asset])
        start = time.process_time()
        backtest.elapse(1 << 60)
        seconds = time.process_time() - start
        book = backtest.depth(0)
        result = seconds, int(book.best_bid_tick), int(book.best_ask_tick)
        backtest.close()
        return result

    return run


def _nautilus_instrument(instrument: Instrument) -> Any:
    """The contract as nautilus_trader describes it; what it costs does not matter here."""
    from decimal import Decimal

    from nautilus_trader.model.currencies import BTC, USD
    from nautilus_trader.model.identifiers import InstrumentId, Symbol
    from nautilus_trader.model.instruments import CryptoPerpetual
    from nautilus_trader.model.objects import Price, Quantity

    digits = max(0, -int(np.floor(np.log10(instrument.tick_size))))
    size_digits = max(0, -int(np.floor(np.log10(instrument.lot_size))))
    return CryptoPerpetual(
        instrument_id=InstrumentId.from_str(f"{instrument.symbol}.SIM"),
        raw_symbol=Symbol(instrument.symbol),
        base_currency=BTC,
        quote_currency=USD,
        settlement_currency=BTC if instrument.inverse else USD,
        is_inverse=instrument.inverse,
        price_precision=digits,
        size_precision=size_digits,
        price_increment=Price(instrument.tick_size, digits),
        size_increment=Quantity(instrument.lot_size, size_digits),
        multiplier=Quantity.from_str(f"{instrument.contract_size:.0f}"),
        margin_init=Decimal("0.05"),
        margin_maint=Decimal("0.02"),
        maker_fee=Decimal("0.0002"),
        taker_fee=Decimal("0.0005"),
        ts_event=0,
        ts_init=0,
    )


def _nautilus_messages(events: Any, contract: Any) -> list[Any]:
    """One `OrderBookDeltas` a depth message and one `TradeTick` a trade, in the file's order."""
    from nautilus_trader.model import data as model
    from nautilus_trader.model.enums import AggressorSide, BookAction, OrderSide
    from nautilus_trader.model.identifiers import TradeId
    from nautilus_trader.model.objects import Price, Quantity

    name = contract.id
    local = events[(events["ev"] & np.uint64(LOCAL)) != 0]
    ends = np.flatnonzero(local["ev"] & np.uint64(BATCH_END)) + 1
    messages: list[Any] = []
    for first, last in pairwise([0, *ends.tolist()]):
        deltas = []
        for event in local[first:last].tolist():
            ev, _, ts, px, qty = event[:5]
            kind = ev & KIND_MASK
            if kind == CLEAR:
                deltas.append(model.OrderBookDelta.clear(name, 0, ts, ts))
                continue
            price, size = (
                Price(px, contract.price_precision),
                Quantity(qty, contract.size_precision),
            )
            if kind == TRADE:
                side = AggressorSide.BUYER if ev & BUY else AggressorSide.SELLER
                number = TradeId(str(len(messages)))
                messages.append(model.TradeTick(name, price, size, side, number, ts, ts))
                continue
            order = model.BookOrder(OrderSide.BUY if ev & BUY else OrderSide.SELL, price, size, 0)
            action = BookAction.UPDATE if qty > 0 else BookAction.DELETE
            deltas.append(model.OrderBookDelta(name, action, order, 0, 0, ts, ts))
        if deltas:
            messages.append(model.OrderBookDeltas(name, deltas))
    return messages


def nautilus_book(events: Any, instrument: Instrument) -> tuple[Run, int]:
    """-> (replay of the depth messages through an `OrderBook`, how many events they hold)."""
    from nautilus_trader.model.book import OrderBook
    from nautilus_trader.model.data import OrderBookDeltas
    from nautilus_trader.model.enums import BookType

    contract = _nautilus_instrument(instrument)
    messages = _nautilus_messages(events, contract)
    depth = [message for message in messages if isinstance(message, OrderBookDeltas)]

    def run() -> tuple[float, int, int]:
        book = OrderBook(contract.id, BookType.L2_MBP)
        apply = book.apply_deltas
        start = time.process_time()
        for message in depth:
            apply(message)
        seconds = time.process_time() - start
        bid, ask = float(book.best_bid_price()), float(book.best_ask_price())
        return seconds, round(bid / instrument.tick_size), round(ask / instrument.tick_size)

    return run, sum(len(message.deltas) for message in depth)


def nautilus_engine(events: Any, instrument: Instrument) -> Run:
    """A backtest with an idle strategy; `engine.run` is timed, loading the data is not."""
    from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig
    from nautilus_trader.config import LoggingConfig
    from nautilus_trader.model.currencies import BTC, USD
    from nautilus_trader.model.enums import AccountType, BookType, OmsType
    from nautilus_trader.model.identifiers import Venue
    from nautilus_trader.model.objects import Money
    from nautilus_trader.trading.strategy import Strategy

    contract = _nautilus_instrument(instrument)
    messages = _nautilus_messages(events, contract)

    class Idle(Strategy):  # type: ignore[misc]
        def on_start(self) -> None:
            self.subscribe_order_book_deltas(contract.id, book_type=BookType.L2_MBP)
            self.subscribe_trade_ticks(contract.id)

    def run() -> tuple[float, int, int]:
        logging = LoggingConfig(bypass_logging=True)
        engine = BacktestEngine(BacktestEngineConfig(logging=logging, run_analysis=False))
        engine.add_venue(
            Venue("SIM"),
            oms_type=OmsType.NETTING,
            account_type=AccountType.MARGIN,
            starting_balances=[Money(10, BTC), Money(1_000_000, USD)],
            book_type=BookType.L2_MBP,
        )
        engine.add_instrument(contract)
        engine.add_data(messages)
        engine.add_strategy(Idle())
        start = time.process_time()
        engine.run()
        seconds = time.process_time() - start
        book = engine.cache.order_book(contract.id)
        bid, ask = float(book.best_bid_price()), float(book.best_ask_price())
        engine.dispose()
        return seconds, round(bid / instrument.tick_size), round(ask / instrument.tick_size)

    return run
