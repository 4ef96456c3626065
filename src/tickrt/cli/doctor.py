"""``tickrt doctor``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tickrt.cli.common import Json

if TYPE_CHECKING:
    from tickrt.observe.doctor.examine import Examination
    from tickrt.observe.doctor.finding import Finding

__all__ = ["doctor"]

_STYLES = {"ok": "green", "costs latency": "yellow", "not readable here": "dim"}


def doctor(
    pin: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="The core that the hot thread will be pinned to (tickrt run --pin).",
            show_default="the first isolated core, else the last",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what on this machine costs latency, and what to do about it.

    Looks at the core that the hot thread runs on (clock, sleep, isolation, interrupts), at memory,
    schedule, hypervisor, GPU and tools. Each finding says what was read, whether it is ok, costs
    latency or is not readable here, and its fix. It reads and changes nothing, and needs no
    rights; a little more is readable as root. The exit code says nothing about the machine.

    [bold]Examples[/bold]

    \b
      tickrt doctor
      tickrt doctor --pin 3
      tickrt doctor --json
    """
    from tickrt.cli.output import emit
    from tickrt.environment import variable
    from tickrt.observe.doctor.examine import examine
    from tickrt.observe.doctor.tree import Tree
    from tickrt.observe.nvml import read_gpus

    folders = tuple(folder for folder in variable("PATH").split(":") if folder.startswith("/"))
    found = examine(Tree(programs=folders), read_gpus(), pin=pin)
    emit(_facts(found), as_json, show=lambda: _show(found))


def _facts(found: Examination) -> dict[str, Any]:
    from dataclasses import asdict

    from tickrt.observe.machine import machine_info

    return {
        "core": found.core,
        "chosen": found.chosen,
        "place": found.place,
        "machine": machine_info(),
        "counts": {v: n for v, n in _counts(found.findings).items() if n},
        "findings": [asdict(finding) for finding in found.findings],
    }


def _counts(findings: Sequence[Finding]) -> dict[str, int]:
    counts = Counter(finding.verdict for finding in findings)
    return {verdict: counts[verdict] for verdict in _STYLES}  # type: ignore[index]


def _show(found: Examination) -> None:
    from rich.console import Console
    from rich.text import Text

    from tickrt.cli.output import print_table

    console = Console(highlight=False)
    console.print(Text(f"{found.place}; core {found.core} ({found.chosen})\n", style="bold"))
    rows: list[Sequence[Any]] = []
    for group in dict.fromkeys(finding.group for finding in found.findings):
        rows += [("", "", "")] * bool(rows) + [(Text(group, "bold"), "", "")]
        rows += [
            (f"  {f.what}", Text(f.verdict, _STYLES[f.verdict]), _told(f))
            for f in found.findings
            if f.group == group
        ]
    print_table(("what", "verdict", "what was read, why it matters, → what to do"), rows)
    counts = [f"{count} {verdict}" for verdict, count in _counts(found.findings).items() if count]
    console.print(Text(f"\n{', '.join(counts)}. Nothing was changed.", style="bold"))


def _told(finding: Finding) -> Any:
    """What was read, why it matters and what to do, each on its line."""
    from rich.text import Text

    lines = [Text(finding.read)] if finding.read else []
    if finding.why:
        lines.append(Text(finding.why, style="dim"))
    if finding.fix:
        lines.append(Text(f"→ {finding.fix}", style="cyan"))
    return Text("\n").join(lines)
