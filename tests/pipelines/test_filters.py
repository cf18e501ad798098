"""Filters of the user's own are applied to their parts, and without any nothing changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gristmill.actors.records import filter_records, map_records
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.filters import ActorSettings
from gristmill.pipelines.nlu.corpora import RequestCorpusSettings, check_requests
from gristmill.pipelines.run import Run
from gristmill.pipelines.speech.corpora import CorpusSettings, prepare_corpora
from gristmill.pipelines.speech.preflight import check_corpus
from gristmill.pipelines.text.domain_texts import (
    GeneralSettings,
    InDomainSettings,
    check_domain_texts,
    prepare_domain_texts,
)
from gristmill.shards.errors import UserError

NUMBERS = {"labelled_records": 8, "unlabelled_records": 2, "test_records": 4, "sampling_rate": 8000}


@filter_records
def wordy(text: str, *, most: int) -> str | None:
    return "wordy" if len(text.split()) > most else None


@filter_records
def long_pair(source: str, target: str, *, most: int = 3) -> str | None:
    return "long" if max(len(source.split()), len(target.split())) > most else None


@filter_records
def short(duration: float, *, least: float) -> str | None:
    return "short" if duration < least else None


@map_records
def words(text: str) -> int:
    return len(text.split())


def own(most: int, **more: object) -> dict[str, object]:
    return {"actor": f"{__name__}:wordy", "settings": {"most": most}, **more}


def test_speech_is_filtered_by_part(tmp_path: Path) -> None:
    run = Run(str(tmp_path), InProcessRunner())
    plain = prepare_corpora(run, CorpusSettings(**NUMBERS))
    run.finish()
    assert [entry.name for entry in run.trace if entry.kind == "step"] == ["labelled", "unlabelled", "test"]
    texts = [text for table in plain.labelled.tables(["text"]) for text in table["text"].to_pylist()]
    most = min(len(text.split()) for text in texts)
    kept = prepare_corpora(run, CorpusSettings(**NUMBERS, filters=[own(most)]))
    assert kept.labelled.name == "labelled_kept"
    assert kept.labelled.seal["input_digests"] == [plain.labelled.digest]
    left = [text for table in kept.labelled.tables(["text"]) for text in table["text"].to_pylist()]
    assert left == [text for text in texts if len(text.split()) <= most]
    assert kept.labelled.seal["reasons"] == {f"{__name__}:wordy: wordy": len(texts) - len(left)}
    assert (kept.unlabelled.digest, kept.test.digest) == (plain.unlabelled.digest, plain.test.digest)
    short = {"actor": f"{__name__}:short", "settings": {"least": 0.1}}
    made = prepare_corpora(run, CorpusSettings(**NUMBERS, filters=[short]))
    assert [made.labelled.name, made.unlabelled.name, made.test.name] == ["labelled_kept", "unlabelled_kept", "test"]
    of_another = {"actor": f"{__name__}:long_pair"}
    with pytest.raises(UserError, match=r"long_pair reads \['source', 'target'\], which its input lacks"):
        _ = prepare_corpora(run, CorpusSettings(**NUMBERS, filters=[of_another])).labelled.digest
    with pytest.raises(UserError, match=r"^test_kept: no record is left"):
        _ = prepare_corpora(run, CorpusSettings(**NUMBERS, filters=[own(0, parts=["test"])])).test.digest


def test_pairs_and_texts_of_the_domain_are_filtered(tmp_path: Path) -> None:
    pairs = GeneralSettings(records=200, filters=[{"actor": f"{__name__}:long_pair", "settings": {"most": 6}}])
    domain = InDomainSettings(target_records=200, source_records=60, reference_records=8, sizes=[1])
    run = Run(str(tmp_path), InProcessRunner())
    plain = prepare_domain_texts(run, pairs.but(filters=()), domain)
    made = prepare_domain_texts(run, pairs, domain.but(filters=[own(6, parts=["source"])]))
    assert (made.pairs.name, made.source.name) == ("pairs_kept", "in_domain_source_kept")
    assert 0 < made.pairs.records < plain.pairs.records
    assert 0 < made.source.records < plain.source.records
    assert made.parts.digest == plain.parts.digest


@pytest.mark.parametrize("name", [f"{__name__}:words", f"{__name__}:own", "gristmill.actors.records:PerRecord"])
def test_what_filters_nothing_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is not a filter; expected a class such as"):
        ActorSettings(actor=name)


def test_an_actor_is_given_once() -> None:
    stage = ActorSettings(**own(3)).stage()
    assert (stage.name, stage.params.most, stage.columns) == (f"{__name__}:wordy", 3, ("text",))


def test_a_column_that_is_not_there_is_told_before_any_work() -> None:
    of_pairs = ({"actor": f"{__name__}:long_pair"},)
    checks: list[Callable[[], None]] = [
        lambda: check_corpus(CorpusSettings(filters=of_pairs, labelled="/no", unlabelled="/no"), "trained"),
        lambda: check_requests(RequestCorpusSettings(filters=of_pairs)),
        lambda: check_domain_texts(GeneralSettings(), InDomainSettings(filters=of_pairs)),
    ]
    for check in checks:
        with pytest.raises(UserError, match=r"long_pair reads \['source', 'target'\], which its input lacks"):
            check()
    of_texts = ({"actor": f"{__name__}:wordy", "settings": {"most": 3}},)
    check_domain_texts(GeneralSettings(filters=of_pairs), InDomainSettings(filters=of_texts))
    with pytest.raises(UserError, match=r"wordy reads \['text'\], which its input lacks"):
        check_domain_texts(GeneralSettings(filters=of_texts), InDomainSettings())
