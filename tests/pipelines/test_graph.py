"""A plan as a graph: as text, as Mermaid and as a picture."""

from __future__ import annotations

import random
import re
from xml.etree import ElementTree

import pytest

from gristmill.pipelines.graph import DONE, TO_DO, UNDER_WAY, UNKNOWN, GraphNode, layers, merged, mermaid, text_lines
from gristmill.pipelines.graph_picture import WIDEST, to_svg

SVG = "{http://www.w3.org/2000/svg}"
SMALL = [
    GraphNode("texts", "source", (), DONE, 1200, 3.5 * 2**20, 1.5),
    GraphNode("kept", "step", (0,), UNDER_WAY, 1100, 3e6, 90.0, {"shards": "2/5"}),
    GraphNode("model_seed0", "training", (0, 1), TO_DO, None, None, 5000.0),
    GraphNode("model_seed1", "training", (0, 1), DONE, None, 2048, 5000.0),
    GraphNode("scored", "step", (1, 2, 3), UNKNOWN),
]


def large(size: int = 60, seed: int = 0) -> list[GraphNode]:
    """A graph with up to four inputs a node, most of them near."""
    draw = random.Random(seed)
    nodes = []
    for number in range(size):
        near = [max(0, number - draw.randint(1, 12)) for _ in range(draw.randint(0, 4))] if number else []
        kind = ("step", "training", "artifact")[number % 3] if near else "source"
        inputs = tuple(sorted(set(near)))
        nodes.append(GraphNode(f"result_of_{'abcdefgh'[number % 8]}{number}x", kind, inputs, DONE, number, 1e6, 2.0))
    return nodes


def test_the_text_of_a_small_graph() -> None:
    assert text_lines(merged(SMALL), 100) == [
        "result     kind      state         rows     size        time  shards  made of",
        "texts      source    done         1,200  3.5 MiB       1.5 s",
        "kept       step      under way    1,100  2.9 MiB  1 min 30 s     2/5  texts",
        "model × 2  training  1 of 2 done         2.0 KiB  2 h 46 min          texts, kept",
        "scored     step      unknown yet                                      kept, model × 2",
    ]
    folded = text_lines([*SMALL[:4], GraphNode("scored", "step", (0, 1, 2, 3))], 60)
    assert folded[-2:] == [
        "scored       step      done                                           texts, kept,",
        "                                                                      model_seed0, model_seed1",
    ]


def test_what_a_terminal_would_obey_is_not_in_the_text() -> None:
    (_, line) = text_lines([GraphNode("a\x1b[2Jb", "step")])
    assert "\x1b" not in line


def test_results_that_are_alike_are_one() -> None:
    found = merged(SMALL)
    assert [(one.title, one.inputs) for one in found] == [
        ("texts", ()),
        ("kept", (0,)),
        ("model × 2", (0, 1)),
        ("scored", (1, 2)),
    ]
    assert (found[2].bytes, found[2].seconds, found[2].progress) == (2048, 10000.0, "1 of 2 done")
    other = [GraphNode("texts_0", "source"), GraphNode("texts_1", "source"), GraphNode("kept_0", "step", (1,))]
    assert [one.title for one in merged(other)] == ["texts × 2", "kept_0"]


@pytest.mark.parametrize("seed", range(3))
def test_a_graph_that_is_too_large_is_merged_without_circles(seed: int) -> None:
    nodes = [GraphNode(f"{one.kind}_{i}", one.kind, one.inputs) for i, one in enumerate(large(300, seed))]
    found = merged(nodes, 60)
    assert len(found) < 200
    assert all(one < place for place, node in enumerate(found) for one in node.inputs)
    assert sum(max(1, len(one.members)) for one in found) == 300
    whole = {(a, b) for b, node in enumerate(nodes) for a in node.inputs}
    at = {name: place for place, node in enumerate(found) for name in (node.members or (node.name,))}
    assert {(at[nodes[a].name], at[nodes[b].name]) for a, b in whole} == {
        (a, b) for b, node in enumerate(found) for a in node.inputs
    }, "no edge is lost"


def test_mermaid_is_written_as_it_is_read() -> None:
    made = mermaid(merged(SMALL))
    assert made.splitlines() == [
        "flowchart TD",
        '    n0["texts<br/>1,200 rows · 3.5 MiB<br/>source · 1.5 s"]:::done',
        '    n1["kept<br/>1,100 rows · 2.9 MiB<br/>step · 1 min 30 s · under way"]:::under_way',
        '    n2["model × 2<br/>2.0 KiB<br/>training · 2 h 46 min · 1 of 2 done"]:::under_way',
        '    n3["scored<br/>step · unknown yet"]:::unknown_yet',
        "    n0 --> n1",
        "    n0 --> n2",
        "    n1 --> n2",
        "    n1 --> n3",
        "    n2 --> n3",
        "    classDef done stroke-width:1px",
        "    classDef under_way stroke-width:3px",
        "    classDef unknown_yet stroke-dasharray:2 3",
    ]


def test_names_are_text_everywhere() -> None:
    evil = GraphNode('<script>"a" & b;]\x07', "step", rows=1)
    assert 'n0["#60;script#62;#34;a#34; #38; b#59;#93;#92;u0007<br/>1 row<br/>step"]' in mermaid([evil])
    svg = to_svg([evil], 'a "run" <of> mine')
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == 'a "run" <of> mine'
    assert '<script>"a" & b;]\\u0007' in {one.text for one in root.iter(f"{SVG}text")}
    assert "<script" not in svg


@pytest.mark.parametrize("size", [0, 1, 60])
def test_a_picture_has_every_text_and_edge(size: int) -> None:
    nodes = large(size)
    root = ElementTree.fromstring(to_svg(nodes, "Lineage"))
    texts = [one.text for one in root.iter(f"{SVG}text")]
    assert sorted(texts) == sorted(text for one in nodes for text in (one.title, one.amounts, one.work))
    told = root.findtext(f"{SVG}desc") or ""
    assert all(one.title in told for one in nodes)
    assert len(list(root.iter(f"{SVG}path"))) >= sum(bool(one.inputs) for one in nodes)
    assert to_svg(nodes, "Lineage") == to_svg(nodes, "Lineage")


def boxes(svg: str) -> dict[str, tuple[float, float, float, float]]:
    """The boxes of a picture, by their first texts: left, top, right, bottom."""
    found = {}
    for group in ElementTree.fromstring(svg).iter(f"{SVG}g"):
        x, y, width, height = (float(group.find(f"{SVG}rect").get(name)) for name in ("x", "y", "width", "height"))
        found[group.findtext(f"{SVG}text")] = (x, y, x + width, y + height)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_a_large_picture_can_be_read(seed: int) -> None:
    nodes = large(60, seed)
    svg = to_svg(nodes, "Lineage")
    found = boxes(svg)
    width, height = (float(one) for one in re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())
    assert width < 2 * WIDEST, "no wider than can be scrolled"
    for box in found.values():
        assert 0 <= box[0] < box[2] <= width
        assert 0 <= box[1] < box[3] <= height
    places = list(found.values())
    for number, (left, top, right, bottom) in enumerate(places):
        for other in places[:number]:
            beside = right <= other[0] or other[2] <= left
            assert beside or bottom <= other[1] or other[3] <= top, "boxes lie apart"
    for node in nodes:
        for one in node.inputs:
            assert found[nodes[one].title][3] < found[node.title][1], "below what it is made of"
    assert max(layers(nodes)) < 60


def test_results_of_many_functions_are_merged_by_what_they_begin_with() -> None:
    nodes = [GraphNode("corpus", "source")]
    for function in range(40):
        name = "abcdefghij"[function // 4] + "klmn"[function % 4]
        first = len(nodes)
        nodes += [GraphNode(f"kept_{name}", "step", (0,)), GraphNode(f"model_own_{name}", "training", (first,))]
    titles = [one.title for one in merged(nodes, 80)]
    assert titles == ["corpus", "kept × 40", "model_own × 40"]
    others = [GraphNode(f"{place:x}", "step", (place - 1,) if place % 9 else ()) for place in range(500)]
    assert len(merged([GraphNode(f"z{i}" * 3, "step") for i in range(200)], 80)) == 1
    assert len(merged(others, 80)) <= 9
