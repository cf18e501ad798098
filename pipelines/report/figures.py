"""Figures as inline SVG and images as PNG: plain functions from numbers to markup, without dependencies.

Colours are CSS variables of the page (``--s0`` .. ``--s7`` for systems), so that one figure works in light, dark and
print styles. Each figure is drawn about 340 units wide and scales with its column.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from gristmill.models.measures.calibration import Bin

WIDTH = 340
# Viridis at nine points (Smith and van der Walt, matplotlib, CC0): perceptually uniform, safe for the colour-blind.
_VIRIDIS = np.array(
    [
        (68, 1, 84), (71, 45, 123), (59, 82, 139), (44, 114, 142), (33, 145, 140),
        (40, 174, 128), (94, 201, 98), (173, 220, 48), (253, 231, 37),
    ]
)  # fmt: skip


class Point(NamedTuple):
    """One row of a point chart."""

    label: str
    colour: int  # which --s variable
    value: float
    low: float | None
    high: float | None
    each: Sequence[float] = ()  # the values of single seeds


def number(value: float) -> str:
    """Return a coordinate rounded to what a screen can show."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers from ``low`` to at least ``high``."""
    if high <= low:
        high = low + 1
    raw = (high - low) / count
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _svg(height: float, body: Sequence[str], label: str, width: float = WIDTH) -> str:
    return (
        f'<svg viewBox="0 0 {number(width)} {number(height)}" role="img" aria-label="{escape(label)}">'
        f"{''.join(body)}</svg>"
    )


def _text(x: float, y: float, content: str, css: str = "", anchor: str = "start") -> str:
    return f'<text x="{number(x)}" y="{number(y)}" class="{css}" text-anchor="{anchor}">{escape(content)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, css: str, colour: int | None = None) -> str:
    style = f' style="stroke:var(--s{colour})"' if colour is not None else ""
    ends = f'x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}"'
    return f'<line {ends} class="{css}"{style}/>'


def points(
    lines: Sequence[Point],
    show: Callable[[float], str],
    show_tick: Callable[[float], str],
    label: str,
    reference: int | None = None,
) -> str:
    """Draw values with their intervals, one per row, on an axis with zero, and a dashed rule at the reference's
    value."""
    left, right, top, pitch = 8, 10, 8, 44
    known = [v for p in lines for v in (p.value, p.low, p.high, *p.each) if v is not None]
    marks = ticks(min(0.0, *known, 0.0), max(0.0, *known) or 1.0, 4)
    span = WIDTH - left - right

    def at(value: float) -> float:
        return left + span * (value - marks[0]) / (marks[-1] - marks[0])

    bottom = top + pitch * len(lines)
    body = []
    for mark in marks:
        body.append(_line(at(mark), top, at(mark), bottom, "grid"))
        anchor = "start" if mark == marks[0] else "end" if mark == marks[-1] else "middle"
        body.append(_text(at(mark), bottom + 15, show_tick(mark), "tick", anchor))
    if reference is not None:
        base = at(lines[reference].value)
        body.append(_line(base, top, base, bottom, "rule", lines[reference].colour))
    for i, p in enumerate(lines):
        y = top + pitch * i + 27
        body.append(_text(left, y - 14, p.label, "name"))
        body.append(_text(WIDTH - right, y - 14, show(p.value), "value", "end"))
        for value in p.each:
            body.append(
                f'<circle cx="{number(at(value))}" cy="{y + 9}" r="2" class="seed" style="fill:var(--s{p.colour})"/>'
            )
        if p.low is not None and p.high is not None:
            body.append(_line(at(p.low), y, at(p.high), y, "whisker", p.colour))
            for end in (p.low, p.high):
                body.append(_line(at(end), y - 4, at(end), y + 4, "cap", p.colour))
        body.append(f'<circle cx="{number(at(p.value))}" cy="{y}" r="5" class="dot" style="fill:var(--s{p.colour})"/>')
    return _svg(bottom + 20, body, label)


def curves(
    series: Sequence[tuple[int, Sequence[float], Sequence[float]]],
    label: str,
    show: Callable[[float], str] = "{:g}".format,
    marks: Sequence[tuple[int, int, str]] = (),
    zero: bool = True,
) -> str:
    """Draw lines ``(colour, steps, values)`` over steps; long ones are subsampled to 200 points.

    ``marks`` are dashed rules ``(colour, step, name)``. The axis of values that are not negative begins at ``zero``, or
    else near the least one.
    """
    left, right, top, height = 44, 10, 8, 150
    kept = []
    for colour, steps, values in series:
        pairs = [(s, v) for s, v in zip(steps, values, strict=True) if v is not None and math.isfinite(v)]
        stride = max(1, math.ceil(len(pairs) / 200))
        if pairs:
            kept.append((colour, pairs[::stride] + (pairs[-1:] if (len(pairs) - 1) % stride else [])))
    if not kept:
        return ""
    heights = [v for _, pairs in kept for _, v in pairs]
    floor = 0.0 if zero and min(heights) >= 0 else min(heights)
    # An outlier at the first step must not flatten the rest: the axis ends slightly above the 98th percentile.
    ceiling = min(max(heights), 1.15 * float(np.percentile(heights, 98)))
    levels = ticks(floor, ceiling if ceiling > floor else floor + 1, 4)
    furthest = max(s for _, pairs in kept for s, _ in pairs) or 1
    bottom = top + height
    body = []
    for level in levels:
        y = bottom - height * (level - levels[0]) / (levels[-1] - levels[0])
        body += [_line(left, y, WIDTH - right, y, "grid"), _text(left - 6, y + 4, show(level), "tick", "end")]
    for mark in ticks(0, furthest, 4):
        if mark <= furthest:
            x = left + (WIDTH - left - right) * mark / furthest
            body.append(_text(x, bottom + 15, f"{mark:,.0f}", "tick", "middle" if mark else "start"))
    for colour, pairs in kept:
        path = []
        for step, value in pairs:
            x = left + (WIDTH - left - right) * step / furthest
            y = bottom - height * (min(value, levels[-1]) - levels[0]) / (levels[-1] - levels[0])
            path.append(f"{number(x)},{number(y)}")
        body.append(f'<polyline points="{" ".join(path)}" class="curve" style="stroke:var(--s{colour})"/>')
    for place, (colour, step, name) in enumerate(marks):
        x = left + (WIDTH - left - right) * step / furthest
        y = top + 10 + 13 * (place % 3)
        anchor = "end" if x > WIDTH / 2 else "start"
        body.append(_line(x, top, x, bottom, "rule", colour))
        body.append(_text(x + (-4 if anchor == "end" else 4), y, name, "tick", anchor))
    return _svg(bottom + 20, body, label)


def reliability(bins: Sequence[Bin], colour: int, label: str, scored: str) -> str:
    """Draw accuracy over mean score of each bin, with its interval; a dot's area is the bin's count.

    ``scored`` names the scored items; scores are calibrated where dots lie on the dashed diagonal.
    """
    left, right, top, side = 34, 12, 10, 270
    most = max((b.n for b in bins), default=1)

    def at(score: float, share: float) -> tuple[float, float]:
        return left + side * score, top + side * (1 - share)

    body = []
    for mark in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = at(mark, mark)
        body += [_line(left, y, left + side, y, "grid"), _line(x, top, x, top + side, "grid")]
        body += [
            _text(left - 6, y + 4, f"{mark:g}", "tick", "end"),
            _text(x, top + side + 15, f"{mark:g}", "tick", "middle"),
        ]
    body.append(_line(*at(0, 0), *at(1, 1), "rule", colour))
    for b in bins:
        x, y = at(b.score, b.accuracy)
        body.append(_line(x, at(0, b.accuracy_low)[1], x, at(0, b.accuracy_high)[1], "whisker", colour))
        radius = 2.5 + 5.5 * math.sqrt(b.n / most)
        body.append(
            f'<circle cx="{number(x)}" cy="{number(y)}" r="{number(radius)}" class="dot" '
            f'style="fill:var(--s{colour})"><title>{b.n:,} {escape(scored)}, score {b.score:.3f}, '
            f"right {b.accuracy:.3f}</title></circle>"
        )
    return _svg(top + side + 20, body, label, left + side + right)


def named(place: float | str) -> str:
    """Return a position on an axis as text."""
    return place if isinstance(place, str) else f"{place:g}"


def heat_map(
    cells: Mapping[tuple[Any, Any], float],
    rows: Sequence[Any],
    columns: Sequence[Any],
    show: Callable[[float], str],
    names: tuple[str, str],
    label: str,
    best: tuple[Any, Any],
    chosen: tuple[Any, Any] | None = None,
) -> str:
    """Draw cells by (row, column), lighter the nearer to the best value; the best is ringed, the chosen one dotted."""
    left, top, pitch = 52, 36, 38
    width = (WIDTH - left - 4) / max(1, len(columns))
    values = list(cells.values())
    low, high = min(values), max(values)
    body = [_text(left + width * len(columns) / 2, 12, names[1], "tick", "middle")]
    body += [
        _text(left + width * (j + 0.5), top - 8, named(column), "name", "middle")
        for j, column in enumerate(columns)
    ]  # fmt: skip
    rings = []
    for i, row in enumerate(rows):
        y = top + pitch * i
        body.append(_text(left - 8, y + pitch / 2 + 4, f"{names[0]} = {named(row)}", "name", "end"))
        for j, column in enumerate(columns):
            if (row, column) not in cells:
                continue
            value = cells[row, column]
            part = abs(value - cells[best]) / (high - low) if high > low else 0.0
            red, green, blue = colour_map(1 - 0.85 * part)
            x = left + width * j
            ink = "#111" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#fff"
            body.append(
                f'<rect x="{number(x + 1)}" y="{number(y + 1)}" width="{number(width - 2)}" '
                f'height="{pitch - 2}" rx="3" fill="#{red:02x}{green:02x}{blue:02x}"/>'
                f'<text x="{number(x + width / 2)}" y="{number(y + pitch / 2 + 4)}" class="cell" '
                f'text-anchor="middle" style="fill:{ink}">{escape(show(value))}</text>'
            )
            for cell, css in ((best, "best"), (chosen, "chosen")):
                if cell == (row, column) and (css == "best" or cell != best):
                    rings.append(
                        f'<rect x="{number(x + 4)}" y="{number(y + 4)}" rx="3" class="{css}" '
                        f'width="{number(width - 8)}" height="{pitch - 8}" stroke="{ink}"/>'
                    )
    return _svg(top + pitch * len(rows) + 4, body + rings, label)


def colour_map(values: Any) -> Any:
    """Return viridis colours of values in [0, 1]: uint8 (..., 3), or a tuple of three ints for a single number."""
    at = np.clip(np.asarray(values, float), 0, 1)
    places = np.linspace(0, 1, len(_VIRIDIS))
    out = np.stack([np.interp(at, places, _VIRIDIS[:, c]) for c in range(3)], -1).round().astype(np.uint8)
    return tuple(int(c) for c in out) if at.ndim == 0 else out


def png(levels: np.ndarray) -> bytes:
    """Encode uint8 levels (height, width) as a PNG with a viridis palette."""
    height, width = levels.shape
    raw = np.concatenate([np.zeros((height, 1), np.uint8), levels.astype(np.uint8)], axis=1).tobytes()

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0))
        + chunk(b"PLTE", colour_map(np.linspace(0, 1, 256)).tobytes())
        + chunk(b"IDAT", zlib.compress(raw, 9))
        + chunk(b"IEND", b"")
    )


def spectrogram(values: np.ndarray, low: float, high: float) -> str:
    """Return (frames, bins) as a PNG data URI, time to the right, low bins at the bottom."""
    part = (np.asarray(values, float).T[::-1] - low) / max(high - low, 1e-9)
    data = png((np.clip(part, 0, 1) * 255).round().astype(np.uint8))
    return "data:image/png;base64," + base64.b64encode(data).decode()
