"""What commands print on stdout and write: JSON or tables, and where the results go.

Entry points: `emit` (JSON or what a person reads), `print_table`, `print_facts`; `check_free` and
`RunFolder` for what is written; `print_result` for the report of a run.

Invariants: nothing that exists is replaced without --force; whether it would be is known before the
work begins.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tickrt.errors import ConfigError

if TYPE_CHECKING:
    from tickrt.runtime.report_types import Report

__all__ = [
    "REPORT_FILES",
    "RunFolder",
    "check_free",
    "emit",
    "print_facts",
    "print_json",
    "print_result",
    "print_table",
]

REPORT_FILES = ("report.json", "report.html")
_LONG = ("series", "fill_list", "latency_cdf")
_RUNS = Path("out")
_LOG = logging.getLogger("tickrt.cli")


def emit(
    value: Any,
    as_json: bool,
    *,
    title: str = "",
    show: Callable[[], object] | None = None,
) -> None:
    """Print `value`: as JSON, or as `show` does it, or as facts under `title`."""
    if as_json:
        print_json(value)
    elif show is not None:
        show()
    else:
        print_facts(title, value)


def print_json(value: Any) -> None:
    """`value` as strict JSON."""
    from tickrt.report.report import plain

    typer.echo(json.dumps(plain(value), indent=2, allow_nan=False, ensure_ascii=False))


def _lines(value: Any, path: str) -> list[tuple[str, str]]:
    """Nested mappings as (dotted name, value)."""
    from tickrt.report.format import number

    if isinstance(value, Mapping):
        items = value.items()
        return [line for key, item in items for line in _lines(item, f"{path}.{key}".strip("."))]
    if isinstance(value, (list, tuple)):
        return [(path, ", ".join(number(v) for v in value) if value else "none")]
    return [(path, number(value))]


def print_facts(title: str, facts: Mapping[str, Any]) -> None:
    """A titled list of names and values; nested mappings become dotted names."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 2))
    table.add_column(style="dim")
    table.add_column()
    for name, value in _lines(facts, ""):
        table.add_row(Text(name), Text(value))
    console = Console()
    console.print(Text(title, style="bold"))
    console.print(table)


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    right: Sequence[str] = (),
    fixed: Sequence[str] = (),
    indent: int = 0,
) -> None:
    """A plain table.

    Args:
        rows: cells are texts (never read as markup), or what rich can show.
        right: columns of numbers.
        fixed: columns that are never wrapped.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, indent), header_style="dim")
    for column in columns:
        justify: Any = "right" if column in right else "left"
        table.add_column(column, justify=justify, no_wrap=column in fixed, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    Console(highlight=False, soft_wrap=False).print(table)


def check_free(out: Path, force: bool, names: Sequence[str] = ()) -> None:
    """Before the work: refuse to replace what is there, and what cannot be written.

    Args:
        out: what --out names: a file, or with `names` a folder in which these would be written.

    Raises:
        ConfigError: something of it exists, and not `force`; or its folder cannot be written to.
    """
    there = [out / name for name in names] if names else [out]
    taken = [path for path in there if path.exists() or path.is_symlink()]
    if taken and not force:
        raise ConfigError(
            f"--out {taken[0]}: it exists: name another place, or replace it with --force"
        )
    place = out.absolute() if names else out.absolute().parent
    while not place.exists():  # what is missing will be made
        place = place.parent
    problem = None if place.is_dir() else f"{place} is a file"
    if problem is None and not os.access(place, os.W_OK | os.X_OK):
        problem = f"{place} is not writable"
    if problem is not None:
        raise ConfigError(f"--out {out}: cannot write there ({problem}): name another place")


@dataclass(frozen=True)
class RunFolder:
    """Where a run's results go: the folder that was named, or a new ``out/<command>-<time>``.

    Attributes:
        command: its name.
        named: what --out says; None: nothing.
        force: replace what lies there.
        names: what would be written.
    """

    command: str
    named: Path | None
    force: bool
    names: Sequence[str] = REPORT_FILES

    def check(self) -> None:
        """Before any work: refuse where results would be lost, or could not be written.

        Raises:
            ConfigError: as `check_free` says.
        """
        if self.named is not None:
            check_free(self.named, self.force, self.names)
        else:
            check_free(_RUNS, force=True, names=("latest",))

    def make(self) -> Path:
        """The folder, made; a new one becomes ``out/latest`` and ``out/<command>-latest``."""
        if self.named is not None:
            self.named.mkdir(parents=True, exist_ok=True)
            return self.named
        _RUNS.mkdir(exist_ok=True)
        name = f"{self.command}-{time.strftime('%Y%m%d-%H%M%S')}"
        folder, again = _RUNS / name, 1
        while True:
            try:
                folder.mkdir()
                break
            except FileExistsError:  # two of them in one second
                again += 1
                folder = _RUNS / f"{name}-{again}"
        for link in (_RUNS / "latest", _RUNS / f"{self.command}-latest"):
            _link(link, folder.name)
        _LOG.info("results go to %s", folder)
        return folder


def _link(link: Path, target: str) -> None:
    """Point a link at a folder beside it, in one step. What is no link of ours is left alone."""
    if link.exists() and not link.is_symlink():
        _LOG.warning("%s is not a link: left as it is", link)
        return
    temporary = link.with_name(f".{link.name}-{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    temporary.symlink_to(target)
    temporary.replace(link)


def print_result(report: Report, out: Path, as_json: bool) -> None:
    """Write `report` to `out` and print it: the table, or without its long lists as JSON.

    Raises:
        OSError: it could not be written, which names the file; it is printed all the same.
    """
    from tickrt.report.report import write_report

    try:
        paths = write_report(report, out)
    except OSError:
        _print_result(report, None, as_json)
        raise
    _LOG.info("wrote %s and %s", *paths)
    _print_result(report, paths, as_json)


def _print_result(report: Report, paths: tuple[Path, Path] | None, as_json: bool) -> None:
    from tickrt.report.report import to_json

    if as_json:
        short = {key: value for key, value in to_json(report).items() if key not in _LONG}
        json_path, html_path = map(str, paths) if paths else (None, None)
        print_json({**short, "report": json_path, "html": html_path})
        return
    from rich.console import Console
    from rich.text import Text

    from tickrt.report.table import print_report

    console = Console(highlight=False)
    print_report(report, console)
    if paths is not None:
        console.print(Text(f"\n  report: {paths[1]}", style="bold"), soft_wrap=True)
