"""Text of a recipe: files become pairs and texts without duplicates, and every record is accounted for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.run import Run
from gristmill.pipelines.text.corpora import PairSettings, TextSettings, check_apart, check_places, prepare_text
from gristmill.shards.audit import audit_below
from gristmill.shards.dataset import SealedSet, open_sealed, seal_tables
from gristmill.shards.errors import SettingsError, UserError
from gristmill.shards.schema import PAIRS, TEXTS

Prepare = Callable[..., SealedSet]
LONG = "please turn on the small light beside the old window in the kitchen"
LONG_HI = "कृपया रसोई में पुरानी खिड़की के पास की छोटी बत्ती चालू कर दीजिए"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(str(tmp_path / "out"), InProcessRunner())


@pytest.fixture
def prepare(run: Run) -> Prepare:
    """Prepare the pairs of a run, and audit everything."""

    def prepared(without: SealedSet | None = None, **settings: object) -> SealedSet:
        made = prepare_text(run, PairSettings(**settings), without=without)
        assert not [gap for result in audit_below(run.out) for gap in result.gaps]
        assert made.schema.equals(PAIRS)
        return made

    return prepared


def tsv(path: Path, *pairs: tuple[str, str]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{source}\t{target}\n" for source, target in pairs))
    return str(path)


def many(number: int) -> list[tuple[str, str]]:
    digits = str.maketrans("0123456789", "कखगघचछजझटठ")
    latin = str.maketrans("0123456789", "abcdefghij")
    whole = [f"{n * 7919:06d}"[::-1] for n in range(number)]
    return [(f"x{key} y{key}".translate(latin), f"{key} {key}".translate(digits)) for key in whole]


def rows(made: SealedSet) -> list[dict]:
    return [row for table in made.tables() for row in table.to_pylist()]


def sources(made: SealedSet) -> list[str]:
    return [row["source"] for row in rows(made)]


def test_duplicates_are_rejected_and_the_first_is_kept(tmp_path: Path, prepare: Prepare, run: Run) -> None:
    place = tsv(
        tmp_path / "a.tsv",
        ("Yes", "हाँ"),
        (LONG, LONG_HI),
        ("no", "नहीं"),
        ("yes!", "हाँ।"),
        (LONG.replace("old", "oldest"), LONG_HI),
        ("yes", "जी"),
    )
    made = prepare(places=place)
    assert sources(made) == ["Yes", LONG, "no", "yes"]
    assert made.seal["reasons"] == {"repeated: duplicate": 1, "repeated: near duplicate": 1}
    (found,) = [open_sealed(trace.url) for trace in run.trace if trace.name == "repeated_pairs"]
    duplicates = {(row["record"], row["first"], row["near"]) for row in rows(found)}
    yes, long = ("a.tsv/a.tsv#4", "a.tsv/a.tsv#1"), ("a.tsv/a.tsv#5", "a.tsv/a.tsv#2")
    assert duplicates == {(*yes, False), (*yes, True), (*long, True)}  # equal words have equal bands too
    assert sources(prepare(places=place, near=None)) == ["Yes", LONG, "no", LONG.replace("old", "oldest"), "yes"]


def test_duplicates_do_not_depend_on_parts_and_shards(tmp_path: Path, prepare: Prepare) -> None:
    pairs = many(150)
    copies = [(f"{source.upper()}!", target) for source, target in pairs[::3]]
    near = [(LONG, LONG_HI), *[(LONG.replace("the", the, 1), LONG_HI) for the in ("this", "that")]]
    place = tsv(tmp_path / "a.tsv", *pairs, near[0], *copies, *near[1:], ("last", "अंत"))
    whole = prepare(places=place, language_odds=None)  # its words are of no language
    assert sources(whole) == [source for source, _ in [*pairs, near[0], ("last", "अंत")]]
    for settings in ({"memory": 20000}, {"shard": {"rows": 40}}, {"memory": 20000, "shard": {"rows": 7}}):
        assert sources(prepare(places=place, language_odds=None, **settings)) == sources(whole)


def test_test_text_is_rejected(tmp_path: Path, prepare: Prepare, run: Run) -> None:
    place = tsv(tmp_path / "a.tsv", ("Turn it on.", "इसे चालू करो।"), ("no", "नहीं"))
    test = pa.Table.from_pylist([{"id": "t", "text": "इसे चालू करो", "lang": "hi", "label_source": "gold"}], TEXTS)
    without = seal_tables(str(tmp_path / "test"), "test", [test])
    made = prepare(without, places=place)
    assert sources(made) == ["no"]
    reasons = [trace.summary.get("reasons") for trace in run.trace]
    assert {"parse: in the test text": 1} in reasons
    texts = prepare_text(run, TextSettings(places=place, text=2), without=without)
    assert [row["text"] for row in rows(texts)] == ["नहीं"]


def test_text_of_one_language(tmp_path: Path, run: Run) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c/a.hi").write_text("एक दो\n\nएक दो।\nthree\n")
    (tmp_path / "c/b.jsonl").write_text('{"text": "तीन"}\n')
    made = prepare_text(run, TextSettings(places=str(tmp_path / "c"), label_source="synthetic"))
    assert made.schema.equals(TEXTS)
    assert [(row["id"], row["text"], row["label_source"]) for row in rows(made)] == [
        ("c/a.hi#1", "एक दो", "synthetic"),
        ("c/b.jsonl#1", "तीन", "synthetic"),
    ]


def test_places_and_a_second_run(tmp_path: Path, prepare: Prepare, run: Run) -> None:
    places = tuple(tsv(tmp_path / name / "part.tsv", *many(4)) for name in ("a", "b"))
    made = prepare(places=places)
    assert [row["id"] for row in rows(made)] == [f"part.tsv-1/part.tsv#{n}" for n in (1, 2, 3, 4)]
    before = len(run.trace)
    assert prepare(places=places).digest == made.digest
    assert all(trace.kept for trace in run.trace[before:])
    assert len(run.trace) == 2 * before


def test_object_storage_gives_the_same_records(tmp_path: Path, prepare: Prepare) -> None:
    tsv(tmp_path / "c/deep/a.tsv", *many(5))
    (tmp_path / "c/b.en").write_text("one\ntwo\n")
    (tmp_path / "c/b.hi").write_text("एक\nदो\n")
    memory = fsspec.filesystem("memory")
    memory.put(f"{tmp_path}/c", "/c", recursive=True)
    try:
        here, there = prepare(places=f"{tmp_path}/c"), prepare(places="memory://c")
        assert here.records == 7
        assert there.digest == here.digest
        assert sources(prepare(places="memory://c/b")) == ["one", "two"]
    finally:
        memory.rm("/c", recursive=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"places": "gone"}, "gone: no such file or folder"),
        ({"places": ()}, "places: none given"),
    ],
)
def test_mistakes_are_reported_before_any_work(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_places(PairSettings(**settings))


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(SettingsError, match="there is no such setting"):
        PairSettings(places="x", tagret="y")
    with pytest.raises(SettingsError, match="there is no such setting"):
        TextSettings(places="x", max_ratio=2)


def test_pairs_of_one_language_are_refused() -> None:
    with pytest.raises(SettingsError, match="target_lang: 'en', as the source's; expected another language"):
        PairSettings(places="x", target_lang="en")


def test_a_wrong_encoding_and_unequal_files_are_reported(tmp_path: Path, prepare: Prepare) -> None:
    (tmp_path / "latin.tsv").write_bytes("é\tü\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"pairs: no record is left \(1 x parse: not UTF-8\)"):
        prepare(places=str(tmp_path / "latin.tsv"))
    (tmp_path / "x.en").write_text("one\ntwo\n")
    (tmp_path / "x.hi").write_text("एक\n")
    with pytest.raises(UserError, match=r"x\.en has 2 lines and .*x\.hi has 1"):
        prepare(places=str(tmp_path / "x"))
    assert not (tmp_path / "out/listed_x").exists()
    (tmp_path / "empty.tsv").write_text("")
    with pytest.raises(UserError, match=r"empty\.tsv: holds no text"):
        prepare(places=str(tmp_path / "empty.tsv"))


def test_references_are_in_no_other_text(tmp_path: Path) -> None:
    (tmp_path / "t.en").write_text("turn it on\n")
    (tmp_path / "t.hi").write_text("बत्ती जलाओ\n")
    (tmp_path / "link.hi").symlink_to(tmp_path / "t.hi")
    (tmp_path / "own.hi").write_text("बत्ती\n")
    references = PairSettings(places=str(tmp_path / "t"))
    for target in (str(tmp_path / "link.hi"), str(tmp_path / "t.hi")):
        with pytest.raises(UserError, match=r"references and target both hold .*hi: why; expected other text"):
            check_apart({"references": references, "target": TextSettings(places=target)}, "why")
    check_apart({"references": references, "target": TextSettings(places=str(tmp_path / "own.hi"))}, "why")
    with pytest.raises(UserError, match=r"references and pairs both hold .*t.en and 1 more"):
        check_apart({"references": references, "pairs": PairSettings(places=str(tmp_path))}, "why")
