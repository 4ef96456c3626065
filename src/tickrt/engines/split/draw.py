"""A drawing of the model with the on-path part marked: one self-contained SVG, as text."""

from __future__ import annotations

from html import escape

from tickrt.engines.split.build import Operator, SplitResult

__all__ = ["draw"]

_WIDE, _HIGH, _GAP_X, _GAP_Y, _TOP = 150, 30, 16, 22, 64
_FILL = {"on": "#d1495b", "split": "#edae49", "off": "#c9d3da"}
_INK = {"on": "#ffffff", "split": "#222222", "off": "#444444"}
_MEANS = {
    "on": "on the path: the whole operator waits for the newest row",
    "split": "split: the share of its positions that is on the path is the red strip",
    "off": "off the path: done before the row arrives, or not needed",
}


def draw(result: SplitResult) -> str:
    """SVG of the model's operators, top to bottom, coloured by where they run.

    A model that was not split is drawn as one note that says why.
    """
    if not result.operators:
        return _page(640, 60, [_text(12, 34, result.why_not or "not split", "#222222", "start")])
    level = _levels(result.operators)
    places = _places(result.operators, level)
    columns = max(x for x, _ in places) + 1
    rows = max(y for _, y in places) + 1
    parts = _legend()
    producer = {o: i for i, op in enumerate(result.operators) for o in op.outputs}
    for index, op in enumerate(result.operators):
        for tensor in op.inputs:
            if tensor in producer:
                parts.append(_edge(places[producer[tensor]], places[index]))
    for place, op in zip(places, result.operators, strict=True):
        parts.append(_box(place, op))
    width = max(640, 24 + columns * (_WIDE + _GAP_X))
    return _page(width, _TOP + rows * (_HIGH + _GAP_Y) + 12, parts)


def _levels(operators: tuple[Operator, ...]) -> list[int]:
    depth: dict[str, int] = {}
    levels: list[int] = []
    for op in operators:
        levels.append(max((depth.get(i, 0) for i in op.inputs), default=0))
        depth.update(dict.fromkeys(op.outputs, levels[-1] + 1))
    return levels


def _places(operators: tuple[Operator, ...], levels: list[int]) -> list[tuple[int, int]]:
    used: dict[int, int] = {}
    places: list[tuple[int, int]] = []
    for level in levels:
        places.append((used.get(level, 0), level))
        used[level] = used.get(level, 0) + 1
    return places


def _corner(place: tuple[int, int]) -> tuple[int, int]:
    return 12 + place[0] * (_WIDE + _GAP_X), _TOP + place[1] * (_HIGH + _GAP_Y)


def _box(place: tuple[int, int], op: Operator) -> str:
    x, y = _corner(place)
    work = f" · {_short(op.macs)} MAC" if op.macs else ""
    label = f"{op.op}{work}"
    box = (
        f'<rect x="{x}" y="{y}" width="{_WIDE}" height="{_HIGH}" rx="5" fill="{_FILL[op.place]}"/>'
    )
    strip = ""
    if op.place == "split":
        wide = max(4, round(_WIDE * op.share))
        strip = f'<rect x="{x}" y="{y}" width="{wide}" height="4" fill="{_FILL["on"]}"/>'
    text = _text(x + _WIDE // 2, y + 19, label, _INK[op.place], "middle")
    return f"<g><title>{escape(op.name)}: {_MEANS[op.place]}</title>{box}{strip}{text}</g>"


def _edge(start: tuple[int, int], end: tuple[int, int]) -> str:
    (x1, y1), (x2, y2) = _corner(start), _corner(end)
    x1, x2, y1 = x1 + _WIDE // 2, x2 + _WIDE // 2, y1 + _HIGH
    bend = (y1 + y2) // 2
    return (
        f'<path d="M{x1} {y1}C{x1} {bend} {x2} {bend} {x2} {y2}" fill="none" '
        'stroke="#8a979f" stroke-width="1.2"/>'
    )


def _legend() -> list[str]:
    parts: list[str] = []
    for index, (place, means) in enumerate(_MEANS.items()):
        y = 8 + 17 * index
        parts.append(f'<rect x="12" y="{y}" width="12" height="12" rx="2" fill="{_FILL[place]}"/>')
        parts.append(_text(30, y + 11, means, "#222222", "start"))
    return parts


def _short(count: int) -> str:
    for limit, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= limit:
            return f"{count / limit:.3g}{unit}"
    return str(count)


def _text(x: int, y: int, text: str, colour: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" fill="{colour}" text-anchor="{anchor}">{escape(text)}</text>'


def _page(width: int, height: int, parts: list[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="system-ui, sans-serif" font-size="12">'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>{"".join(parts)}</svg>'
    )
