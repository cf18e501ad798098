"""A graph as a picture: SVG in layers from top to bottom, without scripts or packages, to be read in light and dark.

A box lies below all that it is made of (layers after Coffman & Graham 1972, no wider than a page; order in a layer by
barycentres after Sugiyama et al. 1981), and an edge that passes layers runs between their boxes.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from gristmill.pipelines.graph import DONE, TO_DO, UNDER_WAY, UNKNOWN, GraphNode
from gristmill.shards.safe_text import escaped

WIDEST = 1040.0  # of a layer, if no single box is wider
_LINE, _PAD, _GAP, _BETWEEN, _EDGE = 16.0, 11.0, 14.0, 36.0, 12.0  # heights and distances; width of an edge that passes
_LETTER, _WIDE, _BOLD = 6.9, 13.0, 1.09  # widths at 12 px, generous: a text is not cut
_SWEEPS = 12
_NAMED = 40  # of the results of one box in its tooltip

STYLE = """
svg.graph .box { fill: var(--card); stroke: var(--soft); stroke-width: 1; }
svg.graph .under_way .box { stroke: var(--accent); stroke-width: 3; }
svg.graph .to_do .box { stroke-dasharray: 6 3; }
svg.graph .unknown_yet .box { stroke-dasharray: 2 3; }
svg.graph .source .kind { fill: var(--s3); } svg.graph .step .kind { fill: var(--s1); }
svg.graph .artifact .kind { fill: var(--s2); } svg.graph .training .kind { fill: var(--s4); }
svg.graph .edge { fill: none; stroke: var(--soft); stroke-width: 1.2; opacity: .55; }
svg.graph g:hover > .box { stroke: var(--ink); }
svg.graph text { font-size: 12px; fill: var(--ink); }
svg.graph text.title { font-weight: 650; }
svg.graph text.work { fill: var(--soft); }
"""
_ALONE = (
    """
svg.graph {
  color-scheme: light dark; background: var(--paper);
  font-family: system-ui, "Noto Sans", "Liberation Sans", sans-serif;
  --paper: #fbfaf7; --card: #ffffff; --ink: #1c1d21; --soft: #5d606a; --accent: #0b5d8f;
  --s1: #0072b2; --s2: #d55e00; --s3: #009e73; --s4: #b0619a;
}
@media (prefers-color-scheme: dark) {
  svg.graph {
    --paper: #14161a; --card: #1c1f25; --ink: #eceae5; --soft: #a3a7b2; --accent: #7cc4f0;
    --s1: #4aa8e0; --s2: #f0864a; --s3: #34c79b; --s4: #d999c4;
  }
}"""
    + STYLE
)
_STATES = (DONE, UNDER_WAY, TO_DO, UNKNOWN)


@dataclass(eq=False)
class _Place:
    """A box in its layer, or an edge that passes the layer."""

    layer: int
    width: float
    node: int | None = None
    above: list[_Place] = field(default_factory=list)
    below: list[_Place] = field(default_factory=list)
    x: float = 0.0  # of its middle


def to_svg(nodes: Sequence[GraphNode], label: str, *, alone: bool = True) -> str:
    """Return the picture of a graph; ``alone`` as a file by itself, otherwise for a page with :data:`STYLE`.

    Example:
        >>> svg = to_svg([GraphNode("texts", "source", rows=20), GraphNode("kept", "step", (0,))], "A run")
        >>> svg.count('class="box"'), svg.count('class="edge"'), "20 rows" in svg
        (2, 1, True)
    """
    texts = [_texts(node) for node in nodes]
    widths = [max(_width(text, bold=not i) for i, text in enumerate(own)) + 2 * _PAD for own in texts]
    rows = _arranged(nodes, widths)
    _set_across(rows)
    heights = [max((len(texts[p.node]) for p in row if p.node is not None), default=0) * _LINE + _PAD for row in rows]
    tops = [_GAP + sum(heights[:layer]) + _BETWEEN * layer for layer in range(len(rows))]
    left = min((p.x - p.width / 2 for row in rows for p in row), default=0.0) - _GAP
    right = max((p.x + p.width / 2 for row in rows for p in row), default=0.0) + _GAP
    body = []
    for row in rows:
        for place in row:
            top, height = tops[place.layer], heights[place.layer]
            if place.node is None:
                body.append(f'<path d="M{_n(place.x - left)} {_n(top)}v{_n(height)}" class="edge"/>')
            end = top + (height if place.node is None else len(texts[place.node]) * _LINE + _PAD)
            for other in place.below:
                body.append(_edge(place.x - left, end, other.x - left, tops[other.layer]))
    for row in rows:
        for place in row:
            if place.node is not None:
                node, x = nodes[place.node], place.x - place.width / 2 - left
                body.append(_box(node, texts[place.node], x, tops[place.layer], place.width))
    width, height = right - left, (tops[-1] + heights[-1] + _GAP) if rows else 0.0
    told = "; ".join(_told(nodes, node) for node in nodes)
    namespace = ' xmlns="http://www.w3.org/2000/svg"' if alone else ""
    return (
        f'<svg{namespace} class="graph" viewBox="0 0 {_n(width)} {_n(height)}" width="{_n(width)}" '
        f'height="{_n(height)}" role="img" aria-label="{_plain(label)}"><desc>{_plain(told)}</desc>'
        f"{f'<style>{_ALONE}</style>' if alone else ''}{''.join(body)}</svg>"
    )


def _texts(node: GraphNode) -> list[str]:
    return [text for text in (node.title, node.amounts, node.work) if text]


def _told(nodes: Sequence[GraphNode], node: GraphNode) -> str:
    needs = ", ".join(nodes[one].title for one in node.inputs)
    return " · ".join(_texts(node)) + (f", made of {needs}" if needs else "")


def _plain(text: str) -> str:
    return escape(escaped(text))


def _n(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")


def _width(text: str, *, bold: bool) -> float:
    wide = sum(_WIDE if unicodedata.east_asian_width(one) in "WF" else _LETTER for one in escaped(text))
    return wide * (_BOLD if bold else 1.0)


def _edge(x1: float, y1: float, x2: float, y2: float) -> str:
    middle = (y1 + y2) / 2
    curve = f"C{_n(x1)} {_n(middle)} {_n(x2)} {_n(middle)} {_n(x2)} {_n(y2)}"
    return f'<path d="M{_n(x1)} {_n(y1)}{curve}" class="edge"/>'


def _box(node: GraphNode, texts: Sequence[str], x: float, y: float, width: float) -> str:
    height = len(texts) * _LINE + _PAD
    css = (f"{node.state.replace(' ', '_')} " if node.state in _STATES else "") + (
        node.kind if node.kind in ("source", "step", "artifact", "training") else ""
    )
    of = node.members[:_NAMED]
    more = [f"and {len(node.members) - _NAMED} more"] if len(node.members) > _NAMED else []
    tip = "\n".join([*map(escaped, texts), ", ".join([*map(escaped, of), *more])]).strip()
    lines = "".join(
        f'<text x="{_n(x + _PAD)}" y="{_n(y + _LINE * (i + 1) + 1)}" class="{css_of}">{_plain(text)}</text>'
        for i, (text, css_of) in enumerate(zip(texts, _classes(texts), strict=True))
    )
    at = f'x="{_n(x)}" y="{_n(y)}"'
    return (
        f'<g class="{css.strip()}"><title>{escape(tip)}</title>'
        f'<rect {at} width="{_n(width)}" height="{_n(height)}" rx="5" class="box"/>'
        f'<rect {at} width="4" height="{_n(height)}" rx="2" class="kind"/>{lines}</g>'
    )


def _classes(texts: Sequence[str]) -> list[str]:
    return ["title", *["amounts"] * (len(texts) - 2), "work"]


def _arranged(nodes: Sequence[GraphNode], widths: Sequence[float]) -> list[list[_Place]]:
    """Return the boxes and passing edges of each layer, in an order with few crossings."""
    layer_of = _layers(nodes, widths)
    rows: list[list[_Place]] = [[] for _ in range(max(layer_of, default=-1) + 1)]
    places = [_Place(layer_of[number], widths[number], number) for number in range(len(nodes))]
    for place in places:
        rows[place.layer].append(place)
    passing: dict[tuple[int, int], _Place] = {}  # by node and layer: all edges of a node run together
    for number, node in enumerate(nodes):
        for one in node.inputs:
            before = places[one]
            for layer in range(layer_of[one] + 1, layer_of[number]):
                if (one, layer) not in passing:
                    passing[one, layer] = made = _Place(layer, _EDGE)
                    rows[layer].append(made)
                    _join(before, made)
                before = passing[one, layer]
            _join(before, places[number])
    best, fewest = [list(row) for row in rows], _crossings(rows)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for row in rows if down else reversed(rows):
            _sort(rows, row, down=down)
        if (found := _crossings(rows)) < fewest:
            best, fewest = [list(row) for row in rows], found
    return best


def _join(above: _Place, below: _Place) -> None:
    above.below.append(below)
    below.above.append(above)


def _layers(nodes: Sequence[GraphNode], widths: Sequence[float]) -> list[int]:
    """Return the layer of each node, below those of its inputs; what has most behind it comes first."""
    users: list[list[int]] = [[] for _ in nodes]
    for number, node in enumerate(nodes):
        for one in node.inputs:
            users[one].append(number)
    behind = [0] * len(nodes)
    for number in reversed(range(len(nodes))):
        behind[number] = 1 + max((behind[one] for one in users[number]), default=-1)
    found: dict[int, int] = {}
    taken: list[float] = []
    while len(found) < len(nodes):
        ready = [n for n in range(len(nodes)) if n not in found and all(one in found for one in nodes[n].inputs)]
        wide, layer = 0.0, len(taken)
        for number in sorted(ready, key=lambda number: (-behind[number], number)):
            if wide and wide + widths[number] + _GAP > WIDEST:
                continue
            found[number] = layer
            wide += widths[number] + _GAP
        taken.append(wide)
    for number in sorted(found, key=lambda number: -found[number]):
        if not nodes[number].inputs and users[number]:  # a source lies near to what uses it
            for layer in range(min(found[one] for one in users[number]) - 1, found[number], -1):
                if taken[layer] + widths[number] + _GAP <= WIDEST:
                    taken[found[number]] -= widths[number] + _GAP
                    taken[layer] += widths[number] + _GAP
                    found[number] = layer
                    break
    used = {layer: place for place, layer in enumerate(sorted(set(found.values())))}
    return [used[found[number]] for number in range(len(nodes))]


def _sort(rows: Sequence[Sequence[_Place]], row: list[_Place], *, down: bool) -> None:
    """Order a layer by the mean places of what its boxes are joined to, above or below."""
    at = {place: number for one in rows for number, place in enumerate(one)}

    def mean(place: _Place) -> float:
        joined = place.above if down else place.below
        return sum(at[one] for one in joined) / len(joined) if joined else float(at[place])

    row.sort(key=mean)


def _crossings(rows: Sequence[Sequence[_Place]]) -> int:
    found = 0
    for row, below in itertools.pairwise(rows):
        at = {place: number for number, place in enumerate(below)}
        ends = [at[one] for place in row for one in sorted(place.below, key=lambda one: at[one])]
        found += sum(end < before for number, end in enumerate(ends) for before in ends[:number])
    return found


def _set_across(rows: Sequence[Sequence[_Place]]) -> None:
    """Give each box its place across: as near to what it is joined to as its neighbours allow."""
    whole = max((sum(place.width + _GAP for place in row) for row in rows), default=0.0)
    for row in rows:
        _spread(row, [whole / 2] * len(row), whole)
    for sweep in range(_SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            wanted = []
            for place in row:
                joined = (place.above if sweep % 2 == 0 else place.below) or [*place.above, *place.below]
                wanted.append(sum(one.x for one in joined) / len(joined) if joined else place.x)
            _spread(row, wanted, whole)


def _spread(row: Sequence[_Place], wanted: Sequence[float], whole: float) -> None:
    """Set the boxes of a layer nearest to where they are wanted, in their order, without overlap, from 0 to ``whole``.

    The least squares under these bounds: neighbours that would overlap go together to the mean of what they want.
    """
    starts, at = [], 0.0
    for place in row:
        starts.append(at + place.width / 2)
        at += place.width + _GAP
    blocks: list[tuple[float, int]] = []  # means, and numbers of boxes
    for want, start in zip(wanted, starts, strict=True):
        mean, size = want - start, 1
        while blocks and blocks[-1][0] > mean:
            before, number = blocks.pop()
            mean, size = (before * number + mean * size) / (number + size), size + number
        blocks.append((mean, size))
    shifts = [min(max(mean, 0.0), whole - at) for mean, size in blocks for _ in range(size)]
    for place, start, shift in zip(row, starts, shifts, strict=True):
        place.x = start + shift
