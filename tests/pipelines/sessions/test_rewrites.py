"""Rewrites over all steps: equal to a dense solution, whatever the shards, within guardrails; scores and lookup."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest

from gristmill.actors.sessions.components import PERSONAL, ComponentSettings
from gristmill.actors.sessions.nodes import NodeSettings
from gristmill.actors.sessions.rewriting import GuardSettings, SolveSettings
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.models.sessions.interpretations import FAILURE, SUCCESS, interpretation, number
from gristmill.pipelines.run import Run
from gristmill.pipelines.sessions import rewrite_scores as scores
from gristmill.pipelines.sessions.rewrite_picture import MOST, PictureNode, draw, rewrite_picture
from gristmill.pipelines.sessions.rewriter import Rewriter
from gristmill.pipelines.sessions.rewrites import MinedRewrites, RewriteSettings, mine_rewrites
from gristmill.shards.dataset import SealedSet, seal_tables
from gristmill.shards.errors import UserError
from tests.pipelines.sessions.rephrasing import SCHEMA, sessions, table, turn

SETTINGS = RewriteSettings(parts=3, nodes=NodeSettings(followed=1))  # one component


def node_of(song: str) -> int:
    return number(interpretation("music", "play", [{"name": "song", "value": song}]))


def sealed(folder: Path, rows: list[dict[str, Any]], shards: int = 2) -> SealedSet:
    size = -(-len(rows) // shards)
    return seal_tables(str(folder), "turns", [table(rows[at : at + size]) for at in range(0, len(rows), size)])


def mine(folder: Path, rows: list[dict[str, Any]], settings: RewriteSettings = SETTINGS, **given: int) -> MinedRewrites:
    run = Run(str(folder / "out"), InProcessRunner())
    mined = mine_rewrites(run, settings, sealed(folder / "turns", rows, **given))
    run.finish()
    return mined


def rows_of(made: SealedSet) -> list[dict[str, Any]]:
    return [row for one in made.tables() for row in one.to_pylist()]


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory) -> MinedRewrites:
    return mine(tmp_path_factory.mktemp("rewrites"), sessions(400))


def test_candidates_are_those_of_a_dense_solution(mined: MinedRewrites) -> None:
    transitions = rows_of(mined.transitions)
    users = {node: set() for node in (row["source"] for row in transitions)}
    for row in transitions:
        users[row["source"]].add(row["person"])
    nodes = [node for node in sorted(users) if len(users[node]) >= 3]
    place = {node: n for n, node in enumerate(nodes)}
    counts = np.zeros((len(nodes), len(nodes)))
    success, total = np.zeros(len(nodes)), np.zeros(len(nodes))
    won: Counter[tuple[int, int]] = Counter()
    for row in transitions:
        at = place.get(row["source"])
        if at is None:
            continue
        total[at] += row["target"] is not None
        success[at] += row["target"] == SUCCESS
        if row["target"] in place:
            counts[at, place[row["target"]]] += 1
        if row["won"] and row["end"] is not None:
            won[row["source"], row["end"]] += 1
    through = np.linalg.inv(np.eye(len(nodes)) - counts / total[:, None]) * (success / total)
    found = {row["source"]: row for row in rows_of(mined.candidates)}
    assert found.keys() == {source for source, end in won if source != end and source in place and end in place}
    assert len(found) > 10
    for source, row in found.items():
        own = through[place[source]].copy()
        itself, own[place[source]] = own[place[source]], -1
        assert row["target"] == nodes[own.argmax()]
        assert row["confidence"] == pytest.approx(own.max(), abs=1e-6)
        assert row["margin"] == pytest.approx(own.max() - itself, abs=1e-6)
        assert row["wins"] == won[source, row["target"]]
        assert row["losses"] == success[place[source]]


def test_corruptions_are_rewritten_to_their_songs(mined: MinedRewrites) -> None:
    found = {row["source_text"]: row["target_text"] for row in rows_of(mined.rewrites)}
    assert found == {f"play sung {song} {n}": f"play song {song}" for song in range(6) for n in range(2)}


@pytest.mark.parametrize("shards", [1, 5])
def test_shards_do_not_matter(mined: MinedRewrites, tmp_path: Path, shards: int) -> None:
    rows = sessions(400)
    np.random.default_rng(1).shuffle(rows)
    again = mine(tmp_path, rows, shards=shards)
    for name in ("transitions", "nodes", "candidates", "rewrites"):
        assert getattr(again, name).digest == getattr(mined, name).digest, name
    assert again.components.read("components.safetensors") == mined.components.read("components.safetensors")


def test_a_second_run_does_nothing(mined: MinedRewrites, tmp_path: Path) -> None:
    turns = sealed(tmp_path / "turns", sessions(60))
    for kept in (False, True):
        run = Run(str(tmp_path / "out"), InProcessRunner())
        mine_rewrites(run, SETTINGS, turns)
        run.finish()
        assert {one.kept for one in run.trace} == {kept}


def test_large_components_are_followed(mined: MinedRewrites, tmp_path: Path) -> None:
    followed = mine(tmp_path, sessions(400), SETTINGS.but(solve=SolveSettings(exact=0, pruned=1e-6)))
    found, wanted = ({row["source"]: row for row in rows_of(one.rewrites)} for one in (followed, mined))
    assert found.keys() == wanted.keys()
    for source, row in found.items():
        assert row["confidence"] == pytest.approx(wanted[source]["confidence"], abs=row["dropped"] + 1e-6)
        assert row["target"] == wanted[source]["target"]


def test_too_large_components_are_cut_to_their_heaviest_nodes(mined: MinedRewrites, tmp_path: Path) -> None:
    cut = mine(tmp_path, sessions(400), SETTINGS.but(solve=SolveSettings(largest=10)))
    whole = next(row["nodes"] for row in rows_of(mined.candidates))
    assert {(row["nodes"], row["left_out"]) for row in rows_of(cut.candidates)} == {(whole, whole - 10)}
    assert 0 < cut.candidates.records < mined.candidates.records


def asked(count: int, first: str, then: str, begin: int = 0, **given: Any) -> list[dict[str, Any]]:
    """Return sessions of users who ask for one thing, which fails, and then for another."""
    rows = []
    for n in range(begin, begin + count):
        rows.append(turn(f"u{n}", 0, first, then, succeeded=False))
        rows.append(turn(f"u{n}", 1, then, then, succeeded=True, **given))
    return rows


def test_what_few_users_ask_is_not_pooled(tmp_path: Path) -> None:
    rows = asked(4, "a", "b") + asked(2, "c", "b", 10) + asked(2, "a", "d", 20)
    rows += [turn("one", n, ["e", "b"][n % 2], "b", succeeded=n % 2 == 1) for n in range(40)]  # one user, often
    found = mine(tmp_path, rows, SETTINGS.but(guard=GuardSettings(support=1)))
    assert [(row["source_text"], row["target_text"]) for row in rows_of(found.candidates)] == [("play a", "play b")]
    assert found.connected.seal["reasons"] == {f"place: {PERSONAL}": 3}
    pooled = SETTINGS.but(guard=GuardSettings(support=1), pooled=ComponentSettings(least_users=1))
    found = mine(tmp_path / "all", rows, pooled)
    assert {row["source_text"] for row in rows_of(found.candidates)} == {"play a", "play c", "play e"}


def test_what_few_users_went_on_to_is_not_followed(tmp_path: Path) -> None:
    rows = asked(4, "a", "b") + asked(1, "a", "c", 10) + asked(4, "c", "d", 20)
    found = mine(tmp_path, rows, SETTINGS.but(nodes=NodeSettings(followed=2)))
    assert len({row["group"] for row in rows_of(found.connected)}) == 2
    row = next(row for row in rows_of(found.candidates) if row["source_text"] == "play a")
    assert row["confidence"] == pytest.approx(4 / 5)  # the other turn counts


def test_rewrites_of_ours_do_not_feed_themselves(tmp_path: Path) -> None:
    rows = asked(4, "a", "b")
    ours = asked(50, "a", "x", 100, rewritten=True)
    found = rows_of(mine(tmp_path / "both", rows + ours).rewrites)
    assert [(row["source_text"], row["target_text"], row["wins"]) for row in found] == [("play a", "play b", 4)]
    taken = asked(50, "a", "x", 100)
    found = rows_of(mine(tmp_path / "taken", rows + taken).rewrites)
    assert [row["target_text"] for row in found] == ["play x"]


def test_ends_of_unknown_outcome_are_shared_out(tmp_path: Path) -> None:
    rows = asked(4, "a", "b") + [turn(f"a{n}", 0, "a", "a", succeeded=None) for n in range(12)]
    rows += [turn(f"b{n}", 0, "b", "b", succeeded=None) for n in range(99)]
    (row,) = rows_of(mine(tmp_path, rows).candidates)
    assert row["success"] == pytest.approx(12 / 16 / 2)  # half of the ends of which nothing is known
    assert row["confidence"] == pytest.approx(4 / 16 * (4 + 99 * 4.5 / 5) / 103)
    assert (row["losses"], row["wins"]) == (0, 4)


def test_sessions_without_any_chain_are_no_error(tmp_path: Path) -> None:
    found = mine(tmp_path, [turn("s", 0, "a", "a", succeeded=True)])
    assert found.rewrites.records == 0
    assert rewrite_picture(found) == ""
    assert scores.emitted(found.rewrites).source.tolist() == []


def test_scores_are_those_of_a_count_by_hand(tmp_path: Path) -> None:
    # "a" means b, and is rewritten to it; "c" means d, and so it is rewritten by 5 users; 4 meant e.
    rows = asked(6, "a", "b") + asked(5, "c", "d", 10) + asked(4, "c", "e", 20)
    rows += asked(3, "f", "g", 30)  # f succeeds too often to be rewritten
    rows += [turn(f"f{n}", 0, "f", "f", succeeded=True) for n in range(2)]
    rows += [turn("a", 0, "a", "b", succeeded=True)]  # a loss, though it should not be
    found = mine(tmp_path, rows)
    truth = scores.read_truth(found, sealed(tmp_path / "again", rows), SETTINGS)
    rewrites = scores.emitted(found.rewrites)
    assert dict(zip(rewrites.source.tolist(), rewrites.target.tolist(), strict=True)) == {
        node_of("a"): node_of("b"),
        node_of("c"): node_of("d"),
    }
    made = scores.score(rewrites, found, truth, 3)
    assert made["precision_at_1"].value == 1
    table = scores.rewritten_table(found, truth)
    assert [(row["is said"], row["truth"]) for row in table.rows] == [("play a", ""), ("play c", "")]
    assert made["recall"].value == pytest.approx(2 / 3)  # of a, c and f
    assert made["precision_traffic"].value == pytest.approx((7 + 5) / (7 + 9))
    assert made["win_loss"].value == 6 + 5  # by one loss
    last = scores.last_reformulations(found.nodes)
    assert last.found(np.array([node_of("f")])).tolist() == [node_of("g")]
    base = scores.score(last, found, truth, 3)
    assert base["recall"].value == 1
    assert base["win_loss"].value == pytest.approx((6 + 5 + 3) / 3)
    rows_made = scores.metric_rows("chain", {name: {0: one, 1: one} for name, one in made.items()})
    assert [(row.metric, row.n) for row in rows_made][:2] == [("precision_at_1", 4), ("recall", 6)]
    assert all(row.low <= row.value <= row.high for row in rows_made)


def test_wrong_rewrites_are_marked_where_the_truth_is_known(tmp_path: Path) -> None:
    rows = [row for n in range(11) for row in asked(6, f"a{n}", f"b{n}", 10 * n)]
    taken = [turn(f"c{n}", 0, "c", "e", succeeded=False) for n in range(4)]
    taken += [turn(f"c{n}", 1, "d", "d", succeeded=True) for n in range(4)]  # users took what they had not meant
    found = mine(tmp_path, rows + taken)
    truth = scores.read_truth(found, sealed(tmp_path / "again", rows + taken), SETTINGS)
    table = scores.rewritten_table(found, truth)
    assert [row["truth"] for row in table.rows] == [""] * 10 + ["wrong"]
    assert table.rows[-1]["is said"] == "play c"
    assert table.note == "12 in all; wrong: 1, the first of which end the table."
    assert "truth" not in scores.rewritten_table(found, None).rows[0]


def test_wins_are_counted_in_other_sessions(mined: MinedRewrites, tmp_path: Path) -> None:
    other = mine(tmp_path, sessions(200, seed=5))
    own = scores.wins_losses(scores.emitted(mined.rewrites), mined.nodes)
    held_out = scores.wins_losses(scores.emitted(mined.rewrites), other.nodes)
    assert own.counts.sum() == sum(row["wins"] for row in rows_of(mined.rewrites))
    assert 0 < held_out.counts.sum() < own.counts.sum()


def test_an_interval_covers_the_seeds() -> None:
    ones = np.ones(50, np.int64)
    runs = {0: scores.SourceCounts(ones, 2 * ones), 1: scores.SourceCounts(ones, ones)}
    found = scores.interval(runs)
    assert (found.value, found.low, found.high) == (0.75, 0.5, 1.0)
    assert np.isnan(scores.interval({0: scores.SourceCounts(ones[:0], ones[:0])}).value)


def test_the_lookup_knows_interpretations_and_texts(mined: MinedRewrites) -> None:
    rewriter = Rewriter(mined.rewrites.url)
    assert len(rewriter) == 12
    row = rows_of(mined.rewrites)[0]
    for request in (row["source_interpretation"], row["source_text"], row["source_text"].upper() + "!"):
        found = rewriter.rewrite(request)
        assert found is not None
        assert (found.text, found.support) == (row["target_text"], row["support"])
    assert rewriter.rewrite(row["target_text"]) is None
    out = str(Path(mined.rewrites.url).parents[1])
    assert rewriter.rewrite(row["source_text"]) == Rewriter(out).rewrite(row["source_text"])


def test_the_lookup_says_what_is_missing(mined: MinedRewrites, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no set of rewrites is here or below; expected"):
        Rewriter(mined.nodes.url)
    mine(tmp_path / "a", asked(4, "a", "b"))
    mine(tmp_path / "b", asked(4, "a", "b"))
    with pytest.raises(UserError, match="2 sets of rewrites are here or below"):
        Rewriter(str(tmp_path))


@pytest.mark.parametrize("request_", ["", " ", "?!", "...", "?"])
def test_what_has_no_word_has_no_rewrite(tmp_path: Path, request_: str) -> None:
    row = {"source_text": "", "target_text": "t", "source_interpretation": "?", "support": 1, "margin": 0.5, "turns": 1}
    seal_tables(str(tmp_path / "made"), "rewrites", [pa.Table.from_pylist([{"id": "1", **row}])])
    assert Rewriter(str(tmp_path / "made")).rewrite(request_) is None


@pytest.mark.parametrize("wrong", [None, 7, b"play", ["play"]])
def test_what_is_no_text_is_refused(mined: MinedRewrites, wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"request is .*; expected a string"):
        Rewriter(mined.rewrites.url).rewrite(wrong)


def test_of_two_rewrites_of_a_text_the_commoner_is_found(tmp_path: Path) -> None:
    row = {"source_text": "a", "support": 1, "margin": 0.5}
    rows = [
        {"id": f"{n}", "turns": n, "target_text": f"t{n}", "source_interpretation": f"i{n}", **row} for n in (3, 9, 5)
    ]
    seal_tables(str(tmp_path / "made"), "rewrites", [pa.Table.from_pylist(rows[:1]), pa.Table.from_pylist(rows[1:])])
    rewriter = Rewriter(str(tmp_path / "made"))
    found = rewriter.rewrite("a")
    assert found is not None
    assert found.text == "t9"
    assert [rewriter.rewrite(f"i{n}").text for n in (3, 9, 5)] == ["t3", "t9", "t5"]  # type: ignore[union-attr]


def test_the_picture_shows_a_component(mined: MinedRewrites) -> None:
    svg = ElementTree.fromstring(rewrite_picture(mined))
    space = "{http://www.w3.org/2000/svg}"
    nodes = next(row["nodes"] for row in rows_of(mined.rewrites))
    assert len(svg.findall(f".//{space}circle")) == min(nodes, MOST)
    assert len([one for one in svg.iter(f"{space}path") if one.get("stroke-width") == "3"]) == 12


def test_a_picture_is_drawn_of_any_text() -> None:
    nodes = [PictureNode(9, "a <b> & " + "c" * 99, 5, 0.0, 8), PictureNode(8, "\x1b[0m", 7, 1.0, 9)]
    drawn = draw(nodes, {(9, 8): 3, (8, 7): 1}, "<")
    assert ElementTree.fromstring(drawn) is not None
    assert drawn == draw(nodes[::-1], {(8, 7): 1, (9, 8): 3}, "<")


def test_turns_have_the_records_columns() -> None:
    assert table([]).schema.equals(SCHEMA)
    assert FAILURE < SUCCESS < node_of("a")
