"""A plan as a graph: its results, what each is made of, how far it is and what it weighs; as text and as Mermaid.

:mod:`gristmill.pipelines.graph_picture` draws it.
"""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import takewhile

from gristmill.pipelines.pace import clock
from gristmill.pipelines.progress import told_size
from gristmill.shards.safe_text import escaped

DONE, UNDER_WAY, TO_DO, UNKNOWN = "done", "under way", "to do", "unknown yet"  # states of a result
MOST_BOXES = 80  # of a picture, above which results of one kind side by side are one box
_NUMBERED = re.compile(r"(_(seed)?(1-)?\d+)+$")  # the size, seed or round at the end of a name
_NEEDS = 24  # least characters of a line for what a result is made of


@dataclass(frozen=True)
class GraphNode:
    """One result in a graph, or several that are alike."""

    name: str
    kind: str  # source, step, artifact, training
    inputs: tuple[int, ...] = ()  # places in the graph, before its own
    state: str = DONE
    rows: float | None = None
    bytes: float | None = None
    seconds: float | None = None
    more: Mapping[str, str] = field(default_factory=dict)  # further columns of the text
    hours: Mapping[str, float] = field(default_factory=dict)  # further amounts, which add up: audio, CPUs, GPUs
    members: tuple[str, ...] = ()  # names of the results, if they are several
    done: int = 0  # of these

    @property
    def title(self) -> str:
        """Its name, and how many it stands for."""
        return f"{self.name} × {len(self.members)}" if self.members else self.name

    @property
    def progress(self) -> str:
        """How far it is."""
        whole = not self.members or self.done in (0, len(self.members))
        return self.state if whole else f"{self.done} of {len(self.members)} done"

    @property
    def amounts(self) -> str:
        """Its rows and bytes, in words; empty if neither is known.

        Example:
            >>> GraphNode("texts", "source", rows=1180, bytes=3.5 * 2**20).amounts
            '1,180 rows · 3.5 MiB'
        """
        rows = [] if self.rows is None else [f"{self.rows:,.0f} {'row' if round(self.rows) == 1 else 'rows'}"]
        return " · ".join([*rows, *([told_size(self.bytes)] if self.bytes is not None else [])])

    @property
    def work(self) -> str:
        """Its kind, its time, and its state if it is not done."""
        time = [clock(self.seconds)] if self.seconds is not None else []
        return " · ".join([self.kind, *time, *([self.progress] if self.progress != DONE else [])])


def base_name(name: str) -> str:
    """Return a name without the size, seed or round at its end.

    Example:
        >>> base_name("tested_raw_1-10_2"), base_name("labels_gold_seed0"), base_name("model 3f2a10")
        ('tested_raw', 'labels_gold', 'model')
    """
    return _NUMBERED.sub("", name.partition(" ")[0])


def layers(nodes: Sequence[GraphNode]) -> list[int]:
    """Return for each node the length of the longest way to it."""
    found: list[int] = []
    for node in nodes:
        found.append(1 + max((found[one] for one in node.inputs), default=-1))
    return found


def merged(nodes: Sequence[GraphNode], most: int = MOST_BOXES) -> list[GraphNode]:
    """Return the graph with results that are alike as one: names differ in numbers only, and inputs are the same.

    If more than ``most`` are left, those in one layer are one too whose names are alike, then those whose names begin
    with the same word, then all of a kind; no circle comes of that.

    Example:
        >>> models = [GraphNode(f"model_{seed}", "training", (0,), seconds=4.0) for seed in (0, 1)]
        >>> [(one.title, one.inputs, one.seconds) for one in merged([GraphNode("texts", "source"), *models])]
        [('texts', (), None), ('model × 2', (0,), 8.0)]
    """
    found = _merged(nodes, lambda place, inputs: (base_name(nodes[place].name), nodes[place].kind, inputs))
    depth = layers(nodes)
    for alike in (base_name, _first_word, lambda name: ""):
        if len(found) <= most:
            break
        keys = [(alike(node.name), node.kind, layer) for node, layer in zip(nodes, depth, strict=True)]
        found = _merged(nodes, partial(_of_place, keys))
    return found


def _of_place(keys: Sequence[Hashable], place: int, inputs: frozenset[int]) -> Hashable:
    return keys[place]


def _first_word(name: str) -> str:
    return base_name(name).partition("_")[0]


def _merged(nodes: Sequence[GraphNode], key: Callable[[int, frozenset[int]], Hashable]) -> list[GraphNode]:
    numbers: dict[Hashable, int] = {}
    members: list[list[int]] = []  # by the number of the group: places
    group_of: list[int] = []  # by place: the number of its group
    for place, node in enumerate(nodes):
        number = numbers.setdefault(key(place, frozenset(group_of[one] for one in node.inputs)), len(members))
        if number == len(members):
            members.append([])
        members[number].append(place)
        group_of.append(number)
    needs = [{group_of[one] for place in own for one in nodes[place].inputs} for own in members]
    order: list[int] = []  # groups behind what they need: that may come after the first member of a group
    waiting = list(range(len(members)))
    while waiting:
        ready = next(number for number in waiting if needs[number].issubset(order))
        order.append(ready)
        waiting.remove(ready)
    at = {number: place for place, number in enumerate(order)}
    return [
        _as_one([nodes[place] for place in members[number]], tuple(sorted(at[one] for one in needs[number])))
        for number in order
    ]


def _common(names: Sequence[Sequence[str]]) -> str:
    """Return the words that all names begin with."""
    same = takewhile(lambda words: len(set(words)) == 1, zip(*names, strict=False))
    return "_".join(words[0] for words in same)


def _as_one(nodes: Sequence[GraphNode], inputs: tuple[int, ...]) -> GraphNode:
    if len(nodes) == 1:
        return replace(nodes[0], inputs=inputs)
    first, states = nodes[0], {node.state for node in nodes}

    def total(amounts: Sequence[float | None]) -> float | None:
        known = [one for one in amounts if one is not None]
        return sum(known) if known else None

    names = {base_name(node.name) for node in nodes}
    begun = names.pop() if len(names) == 1 else _common([name.split("_") for name in names])
    return replace(
        first,
        name=begun or first.kind,
        inputs=inputs,
        state=states.pop() if len(states) == 1 else UNDER_WAY,
        rows=total([node.rows for node in nodes]),
        bytes=total([node.bytes for node in nodes]),
        seconds=total([node.seconds for node in nodes]),
        hours={name: sum(one.hours.get(name, 0.0) for one in nodes) for node in nodes for name in node.hours},
        members=tuple(node.name for node in nodes),
        done=sum(node.state == DONE for node in nodes),
    )


def text_lines(nodes: Sequence[GraphNode], width: int = 200) -> list[str]:
    """Return the graph as a table: a line each result, with its state and amounts, and what it is made of last.

    Example:
        >>> nodes = [GraphNode("texts", "source", rows=20, bytes=2048), GraphNode("kept", "step", (0,), "to do")]
        >>> print(*text_lines(nodes), sep="\\n")
        result  kind    state  rows     size  time  made of
        texts   source  done     20  2.0 KiB
        kept    step    to do                       texts
    """
    further = list(dict.fromkeys(name for node in nodes for name, told in node.more.items() if told))
    hours = list(dict.fromkeys(name for node in nodes for name in node.hours))
    left = {"result", "kind", "state"}
    rows = [["result", "kind", "state", "rows", "size", "time", *further, *(f"{name} h" for name in hours)]]
    for node in nodes:
        amounts = [
            f"{node.rows:,.0f}" if node.rows is not None else "",
            told_size(node.bytes) if node.bytes is not None else "",
            clock(node.seconds) if node.seconds is not None else "",
        ]
        given = [node.more.get(name, "") for name in further]
        given += [f"{node.hours[name]:.2f}" if name in node.hours else "" for name in hours]
        rows.append([escaped(node.title), node.kind, node.progress, *amounts, *given])
    wide = [max(_width(row[column]) for row in rows) for column in range(len(rows[0]))]
    made_of = ["made of", *(", ".join(escaped(nodes[one].title) for one in node.inputs) for node in nodes)]
    lines = []
    for row, needs in zip(rows, made_of, strict=True):
        cells = [
            cell + pad if name in left else pad + cell
            for name, cell, pad in zip(
                rows[0], row, (" " * (most - _width(cell)) for cell, most in zip(row, wide, strict=True)), strict=True
            )
        ]
        start = "  ".join(cells) + "  "
        folded = textwrap.wrap(needs, max(_NEEDS, width - len(start))) or [""]
        lines += [(start + folded[0]).rstrip(), *(" " * len(start) + one for one in folded[1:])]
    return lines


def _width(text: str) -> int:
    """Return the columns of a terminal that a text takes."""
    return sum(0 if unicodedata.combining(one) else 1 + (unicodedata.east_asian_width(one) in "WF") for one in text)


_CLASSES = {
    DONE: "stroke-width:1px",
    UNDER_WAY: "stroke-width:3px",
    TO_DO: "stroke-dasharray:6 3",
    UNKNOWN: "stroke-dasharray:2 3",
}


def mermaid(nodes: Sequence[GraphNode]) -> str:
    """Return the graph as the source of a Mermaid flowchart, which GitHub and many wikis draw.

    Example:
        >>> print(mermaid([GraphNode("texts", "source", rows=20), GraphNode("kept", "step", (0,), "to do")]))
        flowchart TD
            n0["texts<br/>20 rows<br/>source"]:::done
            n1["kept<br/>step · to do"]:::to_do
            n0 --> n1
            classDef done stroke-width:1px
            classDef to_do stroke-dasharray:6 3
        <BLANKLINE>
    """
    lines = ["flowchart TD"]
    for place, node in enumerate(nodes):
        told = "<br/>".join(_entity(one) for one in (node.title, node.amounts, node.work) if one)
        lines.append(f'    n{place}["{told}"]:::{node.state.replace(" ", "_")}')
    lines += [f"    n{one} --> n{place}" for place, node in enumerate(nodes) for one in node.inputs]
    shown = {node.state for node in nodes}
    lines += [f"    classDef {state.replace(' ', '_')} {css}" for state, css in _CLASSES.items() if state in shown]
    return "\n".join(lines) + "\n"


def _entity(text: str) -> str:
    """Return a text in which nothing is Mermaid's or HTML's: all but letters, digits and plain signs as numbers."""
    return "".join(one if one.isalnum() or one in " _-.,·×()" else f"#{ord(one)};" for one in escaped(text))
