"""``tickrt doctor`` as typed, on this machine."""

from __future__ import annotations

from collections.abc import Callable

from helpers.commands import Result

Tickrt = Callable[..., Result]
VERDICTS = {"ok", "costs latency", "not readable here"}


def test_a_program_gets_every_finding(tickrt: Tickrt) -> None:
    found = tickrt("doctor", "--json").json()
    assert {f["group"] for f in found["findings"]} >= {"core", "memory", "system", "tools"}
    for finding in found["findings"]:
        assert set(finding) == {"group", "what", "verdict", "read", "why", "fix"}
        assert finding["verdict"] in VERDICTS
        assert finding["read"] or finding["why"]
        assert not finding["fix"].count("\n")
        if finding["verdict"] == "costs latency":
            assert finding["fix"], finding["what"]
    assert sum(found["counts"].values()) == len(found["findings"])
    assert found["machine"]["cores"] > 0


def test_a_person_gets_the_same(tickrt: Tickrt) -> None:
    found = tickrt("doctor", "--json", "--pin", 0).json()
    shown = tickrt("doctor", "--pin", 0)
    assert shown.code == 0
    assert shown.err == ""
    assert "core 0 (given)" in shown.out
    for finding in found["findings"]:
        assert finding["what"] in shown.out
    counts = ", ".join(f"{n} {v}" for v, n in found["counts"].items())
    assert f"{counts}. Nothing was changed." in shown.out


def test_a_core_that_is_not_there_is_a_finding_and_no_error(tickrt: Tickrt) -> None:
    found = tickrt("doctor", "--json", "--pin", 9999).json()
    (isolation,) = [f for f in found["findings"] if f["what"] == "isolation"]
    assert isolation["why"] == "the hot thread cannot be pinned to core 9999"
    assert tickrt("doctor", "--pin", -1).code == 2
