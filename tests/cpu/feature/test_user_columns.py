"""A user's own column: what it sees, its state, its errors before and during a session."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tickrt.compile.codes import BUY, DEPTH, SELL
from tickrt.errors import Code, SpecError, raise_code
from tickrt.feature.kernels import make_row, on_event, reset
from tickrt.feature.spec import FeatureSpec, load_spec
from tickrt.feature.streams import new_streams, window
from tickrt.market.book import new_book
from tickrt.market.kernels import apply_event

HEAD = "import numpy as np\nfrom numba import njit\n"
ARGS = "bid_ticks, bid_qtys, ask_ticks, ask_qtys, state, params"
COLUMN = f"""{HEAD}
@njit
def column({ARGS}):
    state[0] += 1.0
    if len(bid_qtys) == 1:
        return np.nan
    if len(bid_qtys) == 2:
        raise ValueError("two levels")
    return bid_qtys.sum() - params[1] * ask_ticks[0] + 100.0 * state[0] + 0.0 * ask_qtys[-1]
"""


def make_spec(folder: Path, source: str, extra: str = "", function: str = "column") -> FeatureSpec:
    (folder / "mine.py").write_text(source)
    text = "format = 1\nname = 'x'\nwindow = 2\n"
    text += "[[columns]]\nkind = 'spread'\n[[columns]]\nkind = 'user'\nfile = 'mine.py'\n"
    text += f"function = '{function}'\n{extra}\n"
    path = folder / "spec.toml"
    path.write_text(text)
    return load_spec(path)


def run(spec: FeatureSpec, levels: int, rows: int = 1, again: bool = False) -> tuple[int, list]:
    """Rows on a book of `levels` levels; -> the last `make_row` and the column's last value."""
    book, streams = new_book([1.0], 4096, 1024), new_streams([(0, spec, 1.0)])
    for i in range(levels):
        for ev, tick in ((DEPTH | BUY, 100 - i), (DEPTH | SELL, 102 + i)):
            apply_event(book, 0, ev, float(tick), 1.0 + i, 0)
            on_event(streams, 0, book, 0, ev, float(tick), 1.0 + i, 0)
    code = 0
    for _ in range(rows):
        code = int(make_row(streams, 0, book, 0, 0))
    if again:
        reset(streams, 0)
        code = int(make_row(streams, 0, book, 0, 0))
    return code, [*window(streams, 0)[-1].tolist(), int(streams.count[0])]


def test_it_sees_levels_state_and_params(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, COLUMN, "depth = 4\nparams = [0.0, 2.0]")
    assert spec.names == ("spread", "column")
    assert run(spec, 3, rows=2) == (2, [2.0, 6.0 - 2 * 102 + 200.0, 2])
    assert run(spec, 9, rows=3) == (3, [2.0, 10.0 - 2 * 102 + 300.0, 3])  # no more than its depth
    assert run(spec, 3, rows=3, again=True) == (4, [2.0, 6.0 - 2 * 102 + 100.0, 1])  # state zeroed


def test_two_streams_have_their_own_state(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, COLUMN)
    streams = new_streams([(0, spec, 1.0), (0, spec, 1.0)])
    assert streams.ops[1, 4] == streams.ops[3, 4] != 0
    assert streams.ops[1, 5] != streams.ops[3, 5]


def test_the_source_is_part_of_the_hash(tmp_path: Path) -> None:
    first = make_spec(tmp_path, COLUMN)
    assert make_spec(tmp_path, COLUMN).hash == first.hash
    assert make_spec(tmp_path, COLUMN + "\n# other\n").hash != first.hash


@pytest.mark.parametrize("levels", [1, 2], ids=["nan", "raises"])
def test_nan_or_an_exception_in_a_session(
    tmp_path: Path, levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    code, (*_, count) = run(make_spec(tmp_path, COLUMN), levels)
    assert code == Code.COLUMN_NOT_FINITE
    assert count == 0
    with pytest.raises(SpecError, match=r"row 1: a user's feature column raised"):
        raise_code(code, "row 1")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (HEAD, r"\$\.columns\[1\]\.function: .*mine\.py has no function 'column'"),
        ("1 / 0", r"\$\.columns\[1\]\.file: .*mine\.py: ZeroDivisionError"),
        ("def f(:", r"mine\.py: SyntaxError"),
        (f"def column({ARGS}): return 1.0", "is not compiled: put @numba.njit above it"),
        (f"{HEAD}column = 3", "is not compiled"),
        (f"{HEAD}@njit\ndef column(a, b): return 1.0", r"takes \(a, b\); expected the 6 arguments"),
        (f"{HEAD}@njit\ndef column({ARGS}): return 'text'", "Numba cannot compile it"),
        (f"{HEAD}@njit\ndef column({ARGS}): return bid_ticks.nothing", "Numba cannot compile it"),
        (f"{HEAD}@njit\ndef column({ARGS}): return np.inf", "returned inf; expected a finite"),
        (
            f"{HEAD}@njit\ndef column({ARGS}):\n    if len(bid_qtys) > 3:\n        "
            "raise ValueError('no')\n    return 1.0",
            "raised ValueError: no; expected a finite number",
        ),
    ],
)
def test_mistakes_are_found_before_the_session(tmp_path: Path, source: str, message: str) -> None:
    spec = make_spec(tmp_path, source)
    with pytest.raises(SpecError, match=message):
        new_streams([(0, spec, 1.0)])


@pytest.mark.parametrize(
    ("extra", "function", "message"),
    [
        ("depth = 0", "column", r"\$\.columns\[1\]\.depth: expected 1…100, got 0"),
        ("params = 'x'", "column", r"\$\.columns\[1\]\.params: expected at most 16 numbers"),
        ("params = [1, 'x']", "column", r"\$\.columns\[1\]\.params\[1\]: expected a finite number"),
        ("", "not a name", r"\$\.columns\[1\]\.function: expected a function's name"),
    ],
)
def test_spec_errors(tmp_path: Path, extra: str, function: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make_spec(tmp_path, COLUMN, extra, function)


def test_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    text = "format = 1\nname = 'x'\nwindow = 2\n[[columns]]\nkind = 'user'\nfunction = 'f'\n"
    path.write_text(text + "file = 'no.py'")
    with pytest.raises(SpecError, match=r"\$\.columns\[0\]\.file: no such file: .*no\.py"):
        load_spec(path)
    path.write_text(text)
    with pytest.raises(SpecError, match=r"\$\.columns\[0\]\.file: expected a Python file, got"):
        load_spec(path)


def last_row(folder: Path) -> str:
    """The row of a user column's spec, exactly."""
    spec = make_spec(folder, COLUMN, "depth = 4\nparams = [0.1, 0.7]")
    code, row = run(spec, 3, rows=4)
    return f"{code} {np.float32(row[1]).tobytes().hex()}"


def test_jit_off_gives_the_same_row(tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    code += "from pathlib import Path; from test_user_columns import last_row\n"
    code += f"print(last_row(Path({str(tmp_path)!r})))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == last_row(tmp_path)
