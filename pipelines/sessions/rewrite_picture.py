"""A picture of one component of interpretations: SVG without scripts, to be read in light and dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.pipelines.sessions.rewrites import MinedRewrites
from gristmill.shards.dataset import SealedSet
from gristmill.shards.safe_text import escaped
from gristmill.shards.stage import GROUP

MOST = 40  # nodes drawn
_LINE, _TOP, _LABEL, _MIDDLE, _PAD = 30.0, 20.0, 300.0, 300.0, 18.0
_LEAST, _LARGEST = 3.0, 13.0  # radii
_CUT = 44  # letters of a label
_COLOURS = {"ink": "#1c1d21", "soft": "#5d606a", "accent": "#0b5d8f", "s2": "#d55e00", "s3": "#009e73"}


@dataclass(frozen=True)
class PictureNode:
    """One interpretation."""

    number: int
    text: str
    turns: int
    success: float  # the share of its turns that succeed at once
    rewritten_to: int | None = None


def rewrite_picture(mined: MinedRewrites) -> str:
    """Return the picture of the largest component with a rewrite that has at most 40 nodes or, if there is none, of 40
    nodes of the smallest; "" where there is no rewrite."""
    sizes: dict[int, int] = {}
    for table in mined.rewrites.tables(["component", "nodes"]):
        sizes |= dict(zip(table["component"].to_pylist(), table["nodes"].to_pylist(), strict=True))
    if not sizes:
        return ""
    fitting = {one: size for one, size in sizes.items() if size <= MOST}
    chosen = (
        min(fitting, key=lambda one: (-sizes[one], one)) if fitting else min(sizes, key=lambda one: (sizes[one], one))
    )
    to: dict[int, int] = {}
    for table in _of(mined.rewrites, ["source", "target"], "component", chosen):
        to |= dict(zip(table["source"].to_pylist(), table["target"].to_pylist(), strict=True))
    columns = ["node", "utterance", "turns", "total", "succeeded", "targets", "steps"]
    rows = [row for table in _of(mined.connected, columns, GROUP.name, str(chosen)) for row in table.to_pylist()]
    sought = set(to) | set(to.values())
    rows.sort(key=lambda row: (row["node"] not in sought, -row["turns"], row["node"]))
    nodes = [
        PictureNode(
            row["node"], row["utterance"], row["turns"], row["succeeded"] / max(1, row["total"]), to.get(row["node"])
        )
        for row in rows[:MOST]
    ]
    steps = {(row["node"], other): n for row in rows for other, n in zip(row["targets"], row["steps"], strict=True)}
    return draw(nodes, steps, f"A component of {sizes[chosen]} interpretations")


def _of(made: SealedSet, columns: Sequence[str], key: str, value: int | str) -> list[pa.Table]:
    return [table.filter(pc.field(key) == value) for table in made.tables([*columns, key])]


def draw(nodes: Sequence[PictureNode], steps: Mapping[tuple[int, int], int], label: str) -> str:
    """Return the picture of nodes and of how often users went from one to another.

    What is rewritten is on the left, what it is rewritten to on the right. A node's area is its turns, the green part
    of it those that succeed at once; rewrites are bold.

    Example:
        >>> nodes = [PictureNode(2, "play maj", 30, 0.1, 3), PictureNode(3, "play imagine", 90, 0.9)]
        >>> svg = draw(nodes, {(2, 3): 12}, "Two interpretations")
        >>> svg.count("<circle"), svg.count("stroke-width=\\"3\\""), "play maj" in svg
        (2, 1, True)
    """
    by_turns = sorted(nodes, key=lambda node: (-node.turns, node.number))
    there = {node.number for node in nodes}
    wanted = [node.rewritten_to for node in by_turns if node.rewritten_to in there]
    right = [node for node in by_turns if node.number in wanted]
    places = {node.number: place for place, node in enumerate(right)}
    others = [node for node in by_turns if node.number not in places]
    left = sorted(others, key=lambda node: places.get(node.rewritten_to or 0, len(places)))  # by what they become
    widest = _LABEL + 2 * _PAD
    at = {node.number: (widest, _TOP + _LINE * (place + 0.5)) for place, node in enumerate(left)}
    scale = max(1.0, len(left) / max(1, len(right)))
    at |= {node.number: (widest + _MIDDLE, _TOP + _LINE * scale * (place + 0.5)) for place, node in enumerate(right)}
    most = max((node.turns for node in nodes), default=1)
    radius = {node.number: max(_LEAST, _LARGEST * math.sqrt(node.turns / most)) for node in nodes}
    rewrites = {(node.number, node.rewritten_to) for node in nodes if node.rewritten_to in there}
    drawn = sorted(pair for pair in {*steps, *rewrites} if set(pair) <= there and pair[0] != pair[1])
    body = [_edge(at[a], at[b], (a, b) in rewrites, steps.get((a, b), 0)) for a, b in drawn if (a, b) not in rewrites]
    body += [_edge(at[a], at[b], True, steps.get((a, b), 0)) for a, b in drawn if (a, b) in rewrites]
    body += [_node(node, *at[node.number], radius[node.number], node.number in places) for node in by_turns]
    width, height = 2 * widest + _MIDDLE, 2 * _TOP + _LINE * max(len(left), len(right) * scale)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_n(width)} {_n(height)}" width="{_n(width)}" '
        f'height="{_n(height)}" role="img" aria-label="{_plain(label)}" font-size="12">{"".join(body)}</svg>'
    )


def _edge(begin: tuple[float, float], end: tuple[float, float], bold: bool, steps: int) -> str:
    (x1, y1), (x2, y2) = begin, end
    if x1 == x2:  # in one column: around, on the inside
        inside = x1 + (_MIDDLE / 4 if x1 < _LABEL + _MIDDLE else -_MIDDLE / 4)
        curve = f"C{_n(inside)} {_n(y1)} {_n(inside)} {_n(y2)} {_n(x2)} {_n(y2)}"
    else:
        middle = (x1 + x2) / 2
        curve = f"C{_n(middle)} {_n(y1)} {_n(middle)} {_n(y2)} {_n(x2)} {_n(y2)}"
    look = f'stroke="{_colour("accent")}" stroke-width="3"' if bold else f'stroke="{_colour("soft")}" opacity=".4"'
    told = f"<title>{steps} turns{' · rewrite' if bold else ''}</title>"
    return f'<path d="M{_n(x1)} {_n(y1)}{curve}" fill="none" {look}>{told}</path>'


def _node(node: PictureNode, x: float, y: float, radius: float, on_right: bool) -> str:
    share = min(max(node.success, 0.0), 1.0)
    circle = f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}" fill="{_colour("s3" if share == 1 else "s2")}"/>'
    wedge = ""
    if 0 < share < 1:  # clockwise from the top
        turn = 2 * math.pi * share
        to_x, to_y = x + radius * math.sin(turn), y - radius * math.cos(turn)
        arc = f"A{_n(radius)} {_n(radius)} 0 {int(share > 0.5)} 1 {_n(to_x)} {_n(to_y)}"
        wedge = f'<path d="M{_n(x)} {_n(y)}V{_n(y - radius)}{arc}Z" fill="{_colour("s3")}"/>'
    text = node.text if len(node.text) <= _CUT else node.text[: _CUT - 1] + "…"
    beside = x + (_PAD if on_right else -_PAD)
    anchor = "" if on_right else ' text-anchor="end"'
    told = f"{node.text} · {node.turns:,} turns · {share:.0%} succeed at once"
    return (
        f"<g><title>{_plain(told)}</title>{circle}{wedge}"
        f'<text x="{_n(beside)}" y="{_n(y + 4)}"{anchor} fill="{_colour("ink")}">{_plain(text)}</text></g>'
    )


def _colour(name: str) -> str:
    return f"var(--{name}, {_COLOURS[name]})"


def _plain(text: str) -> str:
    return escape(escaped(text))


def _n(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")
