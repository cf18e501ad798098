"""Transitions are those of a loop over each session; large sessions and nodes give what small ones do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from gristmill.actors.sessions.components import ALONE, FILE, PERSONAL, ComponentSettings, Place, fit
from gristmill.actors.sessions.nodes import CountNodes, NodeSettings
from gristmill.actors.sessions.rewriting import LOSSES, MARGIN, SAME, SUPPORT, GuardSettings, KeepRewrites
from gristmill.actors.sessions.transitions import OURS, ChainSettings, Interpret, InterpretSettings, Transitions
from gristmill.models.sessions.interpretations import FAILURE, SUCCESS, UNKNOWN, interpretation, number
from gristmill.shards.artifact import put_artifact
from gristmill.shards.dataset import seal_tables
from gristmill.shards.runs import LargeGroup
from gristmill.shards.schema import TURNS

TURN = pa.schema(
    [
        ("group", pa.string()),
        ("turn", pa.int32()),
        ("time", pa.float64()),
        ("rewritten", pa.bool_()),
        ("node", pa.int64()),
        ("person", pa.int64()),
        ("outcome", pa.bool_()),
        ("interpretation", pa.string()),
        ("utterance", pa.string()),
    ]
)


def session(name: str, nodes: list[int], outcomes: list[bool | None], **given: list[Any]) -> pa.Table:
    """Return the sorted turns of a session."""
    size = len(nodes)
    rows: dict[str, Any] = {"group": [name] * size, "turn": range(size), "time": [10.0 * n for n in range(size)]}
    rows |= {"rewritten": [None] * size, "node": nodes, "person": [1] * size, "outcome": outcomes}
    rows |= {"interpretation": [f"i{n}" for n in nodes], "utterance": [f"u{n}" for n in nodes]}
    return pa.table({name: pa.array(list(values), TURN.field(name).type) for name, values in (rows | given).items()})


def drawn(number: int, turns: int, seed: int = 0) -> pa.Table:
    """Return random sessions, with gaps, unknown outcomes and rewrites of ours."""
    rng = np.random.default_rng(seed)
    found = []
    for n in range(number):
        size = int(rng.integers(1, turns + 1))
        outcomes = [[None, True, False, False][i] for i in rng.integers(0, 4, size)]
        given = {"time": np.cumsum(rng.choice([5.0, 20.0, 100.0], size)).tolist()}
        given["rewritten"] = (rng.random(size) < 0.1).tolist()
        found.append(session(f"s{n:03d}", rng.integers(10, 14, size).tolist(), outcomes, **given))
    return pa.concat_tables(found)


def looped(turns: pa.Table, settings: ChainSettings) -> list[tuple[Any, ...]]:
    """Return source, target, end and won of each turn, by a loop."""
    found: list[tuple[Any, ...]] = []
    rows = turns.to_pylist()
    chain: list[dict[str, Any]] = []
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        follows = (
            after is not None and after["group"] == row["group"] and after["time"] - row["time"] <= settings.window
        )
        follows = follows and (settings.after_success or not row["outcome"])
        if row["rewritten"]:
            continue
        chain.append(row)
        cut = follows and (after["rewritten"] or len(chain) == settings.longest)
        if follows and not cut:
            continue
        last = None if cut else {None: UNKNOWN, True: SUCCESS, False: FAILURE}[row["outcome"]]
        nodes = [one["node"] for one in chain]
        for place, target in enumerate([*nodes[1:], last]):
            end = None if cut or nodes[place] in nodes[:place] else nodes[-1]
            found.append((row["group"], nodes[place], target, end, bool(row["outcome"]) and not cut))
        chain = []
    return found


def made(table: pa.Table) -> list[tuple[Any, ...]]:
    rows = [row for row in table.to_pylist() if not row["reject_reason"]]
    return [tuple(row[name] for name in ("parent_id", "source", "target", "end", "won")) for row in rows]


@pytest.mark.parametrize("given", [{}, {"after_success": True}, {"longest": 3}, {"window": 10.0}])
def test_transitions_are_those_of_a_loop(given: dict[str, Any]) -> None:
    settings = ChainSettings(**given)
    turns = drawn(200, 9)
    found = Transitions(settings)(turns)
    assert made(found) == looped(turns, settings)
    assert {one.as_py() for one in found["parent_id"].unique()} == {one.as_py() for one in turns["group"].unique()}
    reasons = found.filter(found["reject_reason"].is_valid())
    assert set(reasons["reject_reason"].to_pylist()) == {OURS}
    assert len(set(found["id"].to_pylist())) == found.num_rows


@pytest.mark.parametrize("rows", [1, 2, 7, 1000])
@pytest.mark.parametrize("seed", range(4))
def test_a_large_session_gives_what_a_small_one_does(seed: int, rows: int) -> None:
    actor = Transitions(ChainSettings(longest=4, after_success=bool(seed % 2)))
    turns = drawn(1, 400, seed)
    pieces = [turns.slice(start, rows) for start in range(0, turns.num_rows, rows)]
    found = pa.concat_tables(list(actor.large(LargeGroup(pieces[0], iter(pieces[1:])))))
    assert found.equals(pa.concat_tables([actor(turns)]).combine_chunks().cast(found.schema))


def test_outcomes_are_read_where_they_are_known() -> None:
    slots = [{"name": "song", "value": "Dragons", "start": 1, "end": 2}]
    rows = [
        {"id": "a", "session": "s", "turn": 0, "user": "u", "text": "play dragons", "succeeded": True},
        {"id": "b", "session": "s", "turn": 1, "text": "no", "succeeded": None},
        {"id": "c", "session": "s", "turn": 2, "text": "no", "succeeded": None},
    ]
    rows[0] |= {"domain": "music", "intent": "play", "slots": slots}
    turns = pa.Table.from_pylist(rows, TURNS).append_column("fails", pa.array([0.9, 0.9, None]))
    found = Interpret(InterpretSettings(failure="fails"))(turns).to_pylist()
    assert [row["outcome"] for row in found] == [True, False, None]
    assert [row["interpretation"] for row in found] == ["music/play(song=dragons)", "?no", "?no"]
    assert found[0]["node"] == number(interpretation("music", "play", slots))
    assert found[1]["node"] == found[2]["node"]
    assert found[0]["person"] != found[1]["person"] == found[2]["person"]  # unknown users are those of sessions
    apart = Interpret(InterpretSettings(nodes="utterance"))(turns)["node"].to_pylist()
    assert apart[0] != found[0]["node"]


def counted(transitions: pa.Table) -> list[dict[str, Any]]:
    """Return what CountNodes should, by loops."""
    found = []
    rows = transitions.to_pylist()
    for node in sorted({row["group"] for row in rows}):
        own = [row for row in rows if row["group"] == node]
        targets = sorted({row["target"] for row in own} - {None, SUCCESS, FAILURE, UNKNOWN})
        walkers = {one: {row["person"] for row in own if row["target"] == one} for one in targets}
        targets = [one for one in targets if len(walkers[one]) >= 2]
        ends = sorted({row["end"] for row in own} - {None})
        found.append(
            {
                "id": node,
                "turns": len(own),
                "users": len({row["person"] for row in own}),
                "total": sum(row["target"] is not None for row in own),
                "succeeded": sum(row["target"] == SUCCESS for row in own),
                "failed": sum(row["target"] == FAILURE for row in own),
                "unknown": sum(row["target"] == UNKNOWN for row in own),
                "targets": targets,
                "steps": [sum(row["target"] == one for row in own) for one in targets],
                "ends": ends,
                "ended": [sum(row["end"] == one for row in own) for one in ends],
                "won": [sum(row["end"] == one and row["won"] for row in own) for one in ends],
                "support": [len({row["person"] for row in own if row["end"] == one and row["won"]}) for one in ends],
            }
        )
    return found


def by_source(seed: int = 0) -> pa.Table:
    """Return random transitions, sorted by their source."""
    rng = np.random.default_rng(seed)
    size = 500
    source = rng.integers(10, 15, size)
    texts = pa.array([f"u{s}-{n}" for s, n in zip(source, rng.integers(0, 3, size), strict=True)])
    target = rng.choice([SUCCESS, FAILURE, UNKNOWN, 10, 11, *range(20, 60)], size)
    rows = {
        "group": source.astype(str),
        "source": source,
        "target": pa.array(target, mask=rng.random(size) < 0.1),
        "end": pa.array(rng.integers(10, 15, size), mask=rng.random(size) < 0.2),
        "won": rng.random(size) < 0.5,
        "person": rng.integers(0, 30, size),
        "interpretation": [f"i{s}" for s in source],
        "utterance": texts,
    }
    return pa.table(rows).sort_by("group")


def test_nodes_are_counted() -> None:
    rows = by_source()
    found = CountNodes(NodeSettings())(rows)
    wanted = counted(rows)
    assert found.select(list(wanted[0])).to_pylist() == wanted
    for node, text in zip(found["id"].to_pylist(), found["utterance"].to_pylist(), strict=True):
        own = [row for row in rows.to_pylist() if row["group"] == node]
        best = max(sum(r["target"] == SUCCESS for r in own if r["utterance"] == one["utterance"]) for one in own)
        assert sum(r["target"] == SUCCESS for r in own if r["utterance"] == text) == best


def test_a_large_node_is_counted_as_a_small_one() -> None:
    rows = by_source()
    own = rows.filter(pc.equal(rows["group"], "12"))
    actor = CountNodes(NodeSettings())
    pieces = [own.slice(start, 7) for start in range(0, own.num_rows, 7)]
    (found,) = actor.large(LargeGroup(pieces[0], iter(pieces[1:])))
    assert found.equals(actor(own))


class _Context:
    def report(self, told: dict[str, float]) -> None:
        self.told = told


def test_components_are_found_over_all_shards(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gristmill.actors.sessions.components._EDGES", 1)
    schema = pa.schema([("id", pa.string()), ("node", pa.int64()), ("users", pa.int64())])
    schema = schema.append(pa.field("targets", pa.list_(pa.int64())))
    # 20 is joined to 10 by 30, of another shard; 40 and 50 by 60, which is personal: so they are alone; 70 to itself.
    given = [[(10, 9, [30]), (40, 9, [60])], [(20, 9, [30]), (30, 3, []), (60, 2, [50])], [(50, 9, []), (70, 9, [70])]]
    shards = []
    for rows in given:
        columns = [[str(n) for n, _, _ in rows], *(list(one) for one in zip(*rows, strict=True))]
        shards.append(pa.table(columns, schema=schema))
    data = seal_tables(str(tmp_path / "nodes"), "nodes", shards)
    settings = ComponentSettings()
    made = fit(settings, _Context(), data=data.url)  # type: ignore[arg-type]
    assert {name: made[name] for name in ("nodes", "edges", "components", "largest")} == {
        "nodes": 6,
        "edges": 2,
        "components": 1,
        "largest": 3,
    }
    put_artifact(str(tmp_path / "made"), {FILE: made["files"][FILE]}, {})
    found = Place(settings, str(tmp_path / "made"))(pa.concat_tables(shards)).to_pylist()
    assert {row["node"]: row["component"] for row in found} == dict.fromkeys((10, 20, 30), 10) | dict.fromkeys(
        (40, 50, 60, 70)
    )
    reasons = {row["node"]: row["reject_reason"] for row in found}
    assert reasons == dict.fromkeys((10, 20, 30)) | {40: ALONE, 50: ALONE, 60: PERSONAL, 70: ALONE}


def test_guardrails_say_why() -> None:
    rows = [
        {"margin": 0.5, "dropped": 0.0, "support": 3, "wins": 9, "losses": 3, "source_text": "a", "target_text": "b"},
        {"margin": 0.1},
        {"margin": 0.5, "dropped": 0.45},
        {"support": 2},
        {"wins": 8},
        {"target_text": "a"},
    ]
    batch = pa.Table.from_pylist([rows[0] | row for row in rows])
    assert KeepRewrites(GuardSettings())(batch)["reject_reason"].to_pylist() == [
        None,
        MARGIN,
        MARGIN,
        SUPPORT,
        LOSSES,
        SAME,
    ]
