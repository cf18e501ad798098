"""Requests of a recipe: files and templates become typed records with their folds, and nothing is lost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.nlu.corpora import (
    RequestCorpusSettings,
    check_requests,
    prepare_requests,
    split_requests,
    without_small_domains,
)
from gristmill.pipelines.run import Run
from gristmill.shards.audit import audit_below
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import SettingsError, UserError
from gristmill.shards.schema import REQUEST_FIELDS

Prepare = Callable[..., SealedSet]


@pytest.fixture
def prepare(tmp_path: Path) -> Prepare:
    """Make the requests of a run and audit all of it."""

    def prepared(seed: int = 0, split: bool = True, **settings: object) -> SealedSet:
        run = Run(str(tmp_path / "out"), InProcessRunner(), seed)
        corpus = RequestCorpusSettings(**settings)
        made = prepare_requests(run, corpus)
        folded = split_requests(run, corpus, made)
        assert not [gap for result in audit_below(run.out) for gap in result.gaps]
        listed = next(trace.records for trace in run.trace if trace.kind == "source")
        assert listed == made.seal["records_in"] == made.records + made.seal["rejected"]
        return folded if split else made

    return prepared


def rows(made: SealedSet) -> list[dict]:
    return [row for table in made.tables() for row in table.to_pylist()]


def jsonl(path: Path, records: list[dict]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def plays(number: int, **more: object) -> list[dict]:
    return [
        {"text": f"play song {n}", "domain": "music", "intent": "play", "slots": [{"name": "song", "value": str(n)}]}
        | {key: value[n % len(value)] if isinstance(value, list) else value for key, value in more.items()}
        for n in range(number)
    ]


def test_generated_requests_are_typed_and_in_folds(prepare: Prepare) -> None:
    made = prepare(records=400, lang=("en", "hi"), folds=3, test_share=0.25)
    assert made.records == 400
    assert made.schema.equals(pa.schema([*REQUEST_FIELDS, pa.field("fold", pa.int32())]))
    found = rows(made)
    counts = Counter(row["fold"] for row in found)
    assert set(counts) == {-1, 0, 1, 2}
    assert counts[-1] == pytest.approx(100, abs=35)
    assert {row["lang"] for row in found} == {"en", "hi"}
    by_text: dict[str, set[int]] = {}
    for row in found:
        by_text.setdefault(row["text"], set()).add(row["fold"])
    assert all(len(folds) == 1 for folds in by_text.values())


def test_the_cut_into_shards_and_the_seed(prepare: Prepare) -> None:
    whole = rows(prepare(records=90))
    pieces = prepare(records=90, shard={"rows": 20})
    assert [entry.rows for entry in pieces.shards] == [20, 20, 20, 20, 10]
    assert rows(pieces) == whole
    assert prepare(records=90).digest == prepare(records=90).digest != prepare(records=90, seed=1).digest


def test_files_with_context_and_rejects(tmp_path: Path, prepare: Prepare) -> None:
    records = plays(12, device=["tv", "phone", None], volume=[0.5, "3"])
    records[4] |= {"volume": "loud"}
    records[5] |= {"intent": ""}
    made = prepare(
        places=jsonl(tmp_path / "plays.jsonl", records), context={"volume": "number", "device": "string"}, split=False
    )
    assert made.seal["reasons"] == {"parse: annotation: no intent": 1, "parse: context: no number": 1}
    assert {"device", "volume"} < set(made.schema.names)
    assert made.schema.field("device").type == pa.string()
    assert made.schema.field("volume").type == pa.float64()
    first = rows(made)[:2]
    assert [(row["device"], row["volume"]) for row in first] == [("tv", 0.5), ("phone", 3.0)]
    assert first[1]["slots"] == [{"name": "song", "value": "1", "start": 2, "end": 3}]
    assert first[1]["id"] == "plays/plays.jsonl#2"


def test_a_place_for_test_is_all_for_test(tmp_path: Path, prepare: Prepare) -> None:
    places = tuple(jsonl(tmp_path / name / "part.jsonl", plays(6)) for name in ("a", "b", "c"))
    made = rows(prepare(places=places[:2], test=places[2], folds=2))
    assert [row["id"].split("/")[0] for row in made] == ["part-1"] * 6 + ["part-2"] * 6 + ["part-3"] * 6
    assert {row["fold"] for row in made[:12]} == {0, 1}
    assert {row["fold"] for row in made[12:]} == {-1}


def test_a_changed_file_is_seen_and_an_unchanged_one_kept(tmp_path: Path) -> None:
    place = jsonl(tmp_path / "plays.jsonl", plays(6))

    def run() -> tuple[str, list[bool]]:
        done = Run(str(tmp_path / "out"), InProcessRunner())
        made = prepare_requests(done, RequestCorpusSettings(places=place))
        return made.digest, [trace.kept for trace in done.trace]

    first, _ = run()
    assert run() == (first, [True, True])
    jsonl(tmp_path / "plays.jsonl", plays(6)[::-1])
    again, kept = run()
    assert again != first
    assert kept == [False, False]


def test_object_storage_gives_the_same_records(tmp_path: Path, prepare: Prepare) -> None:
    jsonl(tmp_path / "c/deep/plays.jsonl", plays(5))
    (tmp_path / "c/notes.txt").write_text("not a corpus")
    (tmp_path / "c/seq.in").write_text("turn it on\n")
    (tmp_path / "c/seq.out").write_text("O O O\n")
    (tmp_path / "c/label").write_text("on\n")
    memory = fsspec.filesystem("memory")
    memory.put(f"{tmp_path}/c", "/c", recursive=True)
    try:
        here, there = prepare(places=f"{tmp_path}/c"), prepare(places="memory://c")
        assert here.records == 6
        assert there.digest == here.digest
        assert prepare(places="memory://c/deep/*.jsonl").records == 5
    finally:
        memory.rm("/c", recursive=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"places": "gone"}, r"gone: no such file or folder; expected folders of seq\.in"),
        ({"kind": "files"}, "places: not given"),
        ({"test": "gone"}, "places: not given"),
        ({"places": "gone", "lang": ("en", "hi")}, r"lang: \['en', 'hi'\]; expected one"),
        ({"lang": "de"}, r"lang: \['de'\]; expected some of en, hi"),
        ({"lang": ()}, "lang: none given"),
        ({"context": {"device": "string"}}, "context: generated requests have none"),
        ({"kind": "assistant", "places": "x"}, "places: generated requests have none"),
    ],
)
def test_mistakes_are_errors_before_any_work(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_requests(RequestCorpusSettings(**settings))


def test_settings_are_typed() -> None:
    for settings in (
        {"folds": 1},
        {"test_share": 1.0},
        {"kind": "filse"},
        {"place": "x"},
        {"context": {"a": "text"}},
        {"context": {"text": "string"}},
    ):
        with pytest.raises(SettingsError):
            RequestCorpusSettings(**settings)


def test_a_corpus_of_which_nothing_is_left_is_refused(tmp_path: Path, prepare: Prepare) -> None:
    with pytest.raises(UserError, match="requests: no record is left \\(3 x parse: annotation: no intent\\)"):
        prepare(places=jsonl(tmp_path / "plays.jsonl", plays(3, intent="")))


@pytest.mark.parametrize(
    ("place", "records", "rejected", "domains", "intents"),
    [
        ("snips", 13784, 0, 7, 7),
        ("hwu64/train", 9684, 0, 18, 64),
        ("slurp", 2033, 0, 18, 59),
        ("hinglish-top", 4383, 0, 8, 60),
        ("clinc150", 18200, 200, 10, 150),
    ],
)
def test_real_corpora(
    data_dir: Path, prepare: Prepare, place: str, records: int, rejected: int, domains: int, intents: int
) -> None:
    made = prepare(places=f"{data_dir}/nlu/{place}", split=False)
    assert (made.seal["records_in"], made.seal["rejected"]) == (records, rejected)
    found = rows(made)
    assert len({row["domain"] for row in found}) == domains
    assert len({row["intent"] for row in found}) == intents
    for row in found:
        for slot in row["slots"]:
            assert slot["value"] == " ".join(row["tokens"][slot["start"] : slot["end"]])
    folds = [row["fold"] for row in rows(prepare(places=f"{data_dir}/nlu/{place}"))]
    share = folds.count(-1) / len(folds)
    assert share == pytest.approx(0.2, abs=0.02)


def test_nothing_is_held_out_beside_a_corpus_for_test() -> None:
    given = {"places": "a", "test": "b"}
    assert RequestCorpusSettings(places="a").test_share == 0.2
    assert RequestCorpusSettings(**given).test_share == RequestCorpusSettings(**given, test_share=None).test_share == 0
    assert RequestCorpusSettings(**given, test_share=0.1).test_share == 0.1


def test_domains_too_small_to_train_cost_their_own_requests(tmp_path: Path) -> None:
    good = plays(40) + [{**row, "domain": "video"} for row in plays(40)]
    odd = [{"text": "play it", "domain": "vidoe", "intent": "play"}]
    odd += [{"text": "stop now", "domain": "timer", "intent": "stop"}] * 12  # equal texts are in one fold
    run = Run(str(tmp_path / "out"), InProcessRunner(), 0)
    corpus = RequestCorpusSettings(places=jsonl(tmp_path / "a.jsonl", [*good, *odd]))
    made = prepare_requests(run, corpus)
    kept, small = without_small_domains(run, {seed: split_requests(run, corpus, made, seed) for seed in (0, 1)})
    assert small == {"vidoe", "timer"}
    for split in kept.values():
        assert {row["domain"] for row in rows(split)} == {"music", "video"}
        assert split.seal["reasons"] == {"small_domains: domain of too few requests": 13}
    whole = split_requests(run, corpus, made)
    fine = prepare_requests(run, RequestCorpusSettings(places=jsonl(tmp_path / "b.jsonl", good)))
    alone = {0: split_requests(run, corpus, fine)}
    assert without_small_domains(run, alone) == (alone, set())
    assert whole.records == 93


def test_requests_of_the_test_are_not_trained_on(tmp_path: Path) -> None:
    train, other = jsonl(tmp_path / "a" / "train.jsonl", plays(3)), jsonl(tmp_path / "b" / "more.jsonl", plays(3))
    (tmp_path / "link").symlink_to(tmp_path / "a")
    check_requests(RequestCorpusSettings(places=train, test=other))
    for test in (train, str(tmp_path / "a"), str(tmp_path / "link"), str(tmp_path), f"{tmp_path}/b/../a/*.jsonl"):
        with pytest.raises(
            UserError, match=r"corpus.places and corpus.test both hold .*train.jsonl.*: requests would be"
        ):
            check_requests(RequestCorpusSettings(places=train, test=test))
    with pytest.raises(UserError, match=r"corpus.places: two of its places hold .*train.jsonl"):
        check_requests(RequestCorpusSettings(places=(train, str(tmp_path / "link"))))


def test_a_test_of_which_nothing_is_left_is_refused(tmp_path: Path) -> None:
    train = jsonl(tmp_path / "train.jsonl", [*plays(6), *({**row, "domain": "x"} for row in plays(6))])
    settings = RequestCorpusSettings(places=train, test=jsonl(tmp_path / "test.jsonl", [{"text": ""}]))
    run = Run(str(tmp_path / "out"), InProcessRunner())
    split = split_requests(run, settings, prepare_requests(run, settings))
    with pytest.raises(
        UserError, match=r"no record is left for the test of the split of seed 0; expected .* corpus.test"
    ):
        without_small_domains(run, {0: split})


def split_by_hand(run: Run, folds: dict[str, list[int]], **more: list) -> SealedSet:
    rows = [{"domain": domain, "fold": fold} for domain, own in folds.items() for fold in own]
    columns = pa.Table.from_pylist(rows).to_pydict()
    return run.table("split", pa.table({"id": [f"r{n}" for n in range(len(rows))], **columns, **more}))


@pytest.mark.parametrize(
    ("folds", "said"),
    [
        ({"music": [0, 1]}, "no record is left for the test of the split of seed 3"),
        ({"music": [0, 1], "vidoe": [0, 0, -1]}, "no record is left for the test of the split of seed 3"),
        ({"music": [0, 0, -1], "video": [-1]}, "of 2 domains there are too few to train on, and there is no other"),
    ],
)
def test_a_split_that_cannot_be_trained_and_tested_is_refused(
    tmp_path: Path, folds: dict[str, list[int]], said: str
) -> None:
    run = Run(str(tmp_path / "out"), InProcessRunner())
    fine = split_by_hand(run, {"music": [0, 1, -1], "video": [0, 1, -1]})
    assert without_small_domains(run, {2: fine, 3: fine}) == ({2: fine, 3: fine}, set())
    with pytest.raises(UserError, match=said):
        without_small_domains(run, {2: fine, 3: split_by_hand(run, folds)})


def test_a_slice_without_a_request_in_the_test_is_refused(tmp_path: Path) -> None:
    run = Run(str(tmp_path / "out"), InProcessRunner())
    folds = {"music": [0, 1, -1], "vidoe": [0, -1]}
    splits = {
        seed: split_by_hand(run, folds, noisy=noisy)
        for seed, noisy in enumerate(([False, None, True, None, None], [True, None, False, False, True]))
    }
    assert without_small_domains(run, {0: splits[0]}, "noisy")[1] == {"vidoe"}
    with pytest.raises(UserError, match="slice: 'noisy' is true of no request in the test of the split of seed 1; exp"):
        without_small_domains(run, splits, "noisy")
