"""In sentences: what a report's figures assume, and what went wrong.

Entry points: `assumed(report)`, `went_wrong(report)`. Each sentence stands for itself.
"""

from __future__ import annotations

from typing import Any

from tickrt.report.format import money_unit, number, share
from tickrt.report.svg import duration
from tickrt.runtime.report_types import Report

__all__ = ["assumed", "reason_name", "went_wrong"]

_FILLED = {"whole": "whole or not at all, at the best price", "partial": "also in part"}
_QUEUE = {"risk_adverse": "only trades move our place in a queue (fewest fills)"}


def assumed(report: Report) -> list[str]:
    """What must hold for the figures to mean anything outside this run."""
    sentences = _backtest(report) if report.kind == "backtest" else _run(report)
    if any(engine.backend == "null" for engine in report.engines):
        sentences.append("No model: the null engine answers at once, always the same.")
    for figures in report.backtest_by_strategy or []:
        if figures.turnover > 0:
            paid = share(figures.fees / figures.turnover)
            unit = money_unit(figures.currency)
            sentences.append(
                f"{figures.strategy}: fees of {paid} of the traded value; money is counted in "
                f"{unit}."
            )
        if figures.final_position:
            sentences.append(
                f"{figures.strategy}: the position of {number(figures.final_position)} lots that "
                "was open at the end counts at the mid price."
            )
    return sentences


def _run(report: Report) -> list[str]:
    sentences = []
    gateway = report.config.get("gateway")
    if gateway and gateway.get("kind") == "null":
        sentences.append("No venue: the null gateway takes orders, and nobody answers them.")
    else:
        sentences.append(
            "Orders are answered by the paper gateway: at once, at the displayed prices, without "
            "impact. For a result in money: tickrt backtest."
        )
    done = [one.detail for one in report.hot_thread or [] if one.done and one.what != "lock_memory"]
    if done:
        sentences.append(f"The hot thread had {' and '.join(done)}.")
    if any(one.done and one.what == "lock_memory" for one in report.hot_thread or []):
        sentences.append("All memory was locked: nothing of the process could be swapped out.")
    if report.pace != "max":
        sentences.append(f"Events became readable at their recorded times, pace {report.pace}.")
    queued = report.latency_us.get("queued")
    if queued is not None and queued.max > 0:
        sentences.append("Latencies hold the time that events queued.")
    elif report.pace == "max":
        sentences.append(
            "Events were read as fast as the loop could take them: latencies hold no queueing."
        )
    return sentences


def _backtest(report: Report) -> list[str]:
    sentences = ["Recorded data does not react to our orders: no market impact."]
    figures = report.backtest
    if figures is not None and figures.inference_latency_us.p50 is not None:
        charged = figures.inference_latency_us
        one = charged.p50 == charged.p99
        median = f"{duration(charged.p50)} for each inference"
        source = str(report.config.get("inference_latency", ""))
        told = "" if one or not source else f" at the median ({source})"
        sentences.append(f"Charged {median}{told}.")
    venue = report.config.get("venue")
    return sentences + _venue(venue) if isinstance(venue, dict) else sentences


def _venue(venue: dict[str, Any]) -> list[str]:
    """What `VenueConfig` says, as far as the settings that the report keeps have it."""
    sentences = []
    there, back = (venue.get(f"{way}_latency_ns") for way in ("entry", "response"))
    if venue.get("latency_file"):
        sentences.append(f"Order latencies are those recorded in {venue['latency_file']}.")
    elif there is not None and back is not None:
        times = f"{duration(there / 1e3)} to the venue and {duration(back / 1e3)} back"
        sentences.append(f"An order takes {times}.")
    queue, exchange = venue.get("queue_model"), venue.get("exchange")
    if queue and exchange:
        moved = _QUEUE.get(queue, f"cancels before us move our place in a queue (model {queue})")
        filled = _FILLED.get(exchange, exchange)
        sentences.append(f"At the venue {moved}; orders fill {filled}.")
    return sentences


def reason_name(reason: str) -> str:
    """``stale_data`` as people write it."""
    return reason.replace("_", " ").lower()


def went_wrong(report: Report) -> list[str]:
    """What the reader must know before trusting the figures; empty where all went well."""
    sentences = [str(note) for note in report.notes]
    sentences += [
        f"{one.what} was not permitted: {one.detail}; to permit it: {one.fix}"
        for one in report.hot_thread or []
        if not one.done
    ]
    sentences += _engine_troubles(report)
    rejects = sorted(report.risk_rejects.items(), key=lambda item: -item[1])
    refused = [f"{reason_name(reason)} {number(count)}" for reason, count in rejects if count]
    if refused:
        total = sum(report.risk_rejects.values())
        of = f"{number(total)} of {number(report.intents)} intents"
        sentences.append(f"refused by risk: {of} ({', '.join(refused)})")
    if report.lost_records:
        kinds = ", ".join(f"{k} {number(n)}" for k, n in report.lost_records_by_kind.items())
        sentences.append(
            f"{number(report.lost_records)} records found no room and are missing here ({kinds}); "
            "no order was lost"
        )
    return sentences


def _engine_troubles(report: Report) -> list[str]:
    sentences = []
    if report.faults:
        tried = report.faults + report.signals
        sentences.append(
            f"{number(report.faults)} of {number(tried)} engine results were missing, late, stale "
            f"or not finite ({share(report.faults / tried)})"
        )
    if report.fallback_decisions:
        sentences.append(
            f"{number(report.fallback_decisions)} decisions were made on the rule-based signal"
        )
    if report.waited:
        sentences.append(f"{number(report.waited)} ticks waited for work on ticks before them")
    for name, mode in report.modes.items():
        if mode in ("fallback", "shadow"):
            what = "on its fallback" if mode == "fallback" else "in shadow: it sent nothing"
            sentences.append(f"{name} ended {what}")
    return sentences
