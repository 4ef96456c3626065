"""Where results go: nothing is overwritten silently, and a new folder is linked as the latest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.commands import Result
from helpers.full_disk import room
from helpers.sessions import config, from_memory, market_file
from tickrt.cli import output
from tickrt.errors import ConfigError
from tickrt.report.report import load_report, write_report

Tickrt = Callable[..., Result]


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_without_out_makes_a_folder_and_links_it(in_folder: Path) -> None:
    first = output.RunFolder("run", None, force=False).make()
    second = output.RunFolder("backtest", None, force=False).make()
    third = output.RunFolder("run", None, force=False).make()
    assert len({first, second, third}) == 3
    assert first.name.startswith("run-")
    assert Path("out/latest").resolve() == third.resolve()
    assert Path("out/run-latest").resolve() == third.resolve()
    assert Path("out/backtest-latest").resolve() == second.resolve()
    assert Path("out/latest").readlink() == Path(third.name)  # out/ can be moved


def test_what_is_no_link_is_left_alone(in_folder: Path) -> None:
    (in_folder / "out" / "latest").mkdir(parents=True)
    (in_folder / "out" / "latest" / "mine").touch()
    output.RunFolder("run", None, force=False).make()
    assert (in_folder / "out" / "latest" / "mine").exists()


def test_a_named_folder_is_refused_only_where_results_would_be_lost(in_folder: Path) -> None:
    named = in_folder / "here"
    named.mkdir()
    (named / "notes.txt").touch()
    output.RunFolder("run", named, force=False).check()
    (named / "report.json").touch()
    with pytest.raises(ConfigError, match=r"report\.json: it exists.*--force"):
        output.RunFolder("run", named, force=False).check()
    output.RunFolder("run", named, force=True).check()
    assert output.RunFolder("run", named, force=True).make() == named


def test_a_dangling_link_is_not_written_through(in_folder: Path) -> None:
    (in_folder / "x.npz").symlink_to("elsewhere.npz")
    with pytest.raises(ConfigError, match="exists"):
        output.check_free(in_folder / "x.npz", force=False)


@pytest.mark.parametrize(
    "command",
    [
        ["run", "--data", "btc.npz", "--backend", "null", "--spec", "light"],
        ["data", "simulate", "--events", "2000"],
        ["data", "rows", "btc.npz", "--spec", "tiny4.toml"],
        ["build", "tiny.onnx", "--backend", "onnxruntime"],
        ["split", "tiny.onnx", "--seconds", "0"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_commands_overwrite_only_when_told(
    tickrt: Tickrt, session: Path, tmp_path: Path, command: list[str]
) -> None:
    for name in ("btc.npz", "tiny.onnx", "tiny4.toml"):
        (tmp_path / name).write_bytes((session / name).read_bytes())
    market_file(tmp_path / "x.npz", 10)
    out = tmp_path / "out.npz"
    assert tickrt(*command, "-o", out, "--json").code == 0
    files = [out] if out.is_file() else sorted(out.iterdir())
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
    refused = tickrt(*command, "-o", out, "--json")
    assert refused.code == 2
    assert "--force" in refused.err
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in files} == before
    assert tickrt(*command, "-o", out, "--json", "--force").code == 0
    assert any(p.stat().st_mtime_ns != before[p][1] for p in files)


def test_refusal_comes_before_the_work(
    tickrt: Tickrt, session: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tickrt.runtime.session.Session.__init__", pytest.fail)
    (tmp_path / "report.html").touch()
    result = tickrt("run", "--data", session / "btc.npz", "--out", tmp_path)
    assert result.code == 2
    assert "report.html: it exists" in result.err


@pytest.mark.parametrize("command", ["build", "data rows", "data simulate"])
def test_a_folder_that_is_missing_is_made(
    tickrt: Tickrt, session: Path, tmp_path: Path, command: str
) -> None:
    given = {
        "build": [session / "tiny.onnx", "--backend", "onnxruntime"],
        "data rows": [session / "btc.npz", "--spec", session / "tiny4.toml"],
        "data simulate": ["--events", "100"],
    }
    out = tmp_path / "a" / "b" / "x.npz"
    assert tickrt(*command.split(), *given[command], "-o", out).code == 0
    assert out.is_file()
    blocked = tickrt(*command.split(), *given[command], "-o", out / "below.npz")
    assert blocked.code == 2
    assert "cannot write there" in blocked.err


def test_emit_prints_json_or_what_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit({"a": float("nan")}, True, show=pytest.fail)
    assert json.loads(capsys.readouterr().out) == {"a": None}
    output.emit({"a": 1}, False, show=lambda: print("shown"))
    assert capsys.readouterr().out == "shown\n"
    output.emit({"a": {"b": 1}}, False, title="facts")
    assert capsys.readouterr().out.split() == ["facts", "a.b", "1"]


def test_cells_of_a_table_are_never_markup(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(("name", "n"), [("[bold]x[/bold]", "1")], right=("n",))
    assert "[bold]x[/bold]" in capsys.readouterr().out


@pytest.mark.parametrize("as_json", [False, True])
def test_a_full_disk_is_named_and_the_result_is_printed_all_the_same(
    as_json: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with from_memory(config(tmp_path, market_file(tmp_path / "m.npz", 60))) as session:
        report = session.run()
    out = tmp_path / "out"
    with room(1000), pytest.raises(OSError, match="File too large") as caught:
        output.print_result(report, out, as_json)
    assert caught.value.filename == str(out / "report.json")
    assert list(out.iterdir()) == []
    printed = capsys.readouterr().out
    if as_json:
        found = json.loads(printed)
        assert (found["report"], found["html"], found["rows"]) == (None, None, 60)
    else:
        assert "tick-to-order" in printed.lower().replace("_", "-").replace(" to ", "-to-")


def test_a_report_that_is_there_stays_when_its_page_finds_no_room(tmp_path: Path) -> None:
    with from_memory(config(tmp_path, market_file(tmp_path / "m.npz", 60))) as session:
        report = session.run()
    json_path, html_path = write_report(report, tmp_path / "whole")
    sizes = json_path.stat().st_size, html_path.stat().st_size
    assert sizes[0] < sizes[1]
    with room(sizes[0]), pytest.raises(OSError, match="File too large") as caught:
        output.print_result(report, tmp_path / "part", as_json=True)
    assert caught.value.filename == str(tmp_path / "part" / "report.html")
    assert load_report(tmp_path / "part").rows == 60
