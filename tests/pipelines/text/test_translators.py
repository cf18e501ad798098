"""Translators in a recipe: trained, used, kept and tuned, and errors."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

pytest.importorskip("transformers")
pytest.importorskip("ctranslate2")

from gristmill.actors.text.translator_files import FAST
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.models.text.translator import TranslatorSizes
from gristmill.pipelines.run import Run
from gristmill.pipelines.text.translators import (
    TranslateSettings,
    TranslatorSettings,
    TuneSettings,
    own_translator,
    translate,
    translator_job,
)
from gristmill.shards.artifact import Artifact
from gristmill.shards.audit import audit_below
from gristmill.shards.dataset import SealedSet, seal_tables
from gristmill.shards.errors import SettingsError, UserError
from gristmill.shards.plan import resolved
from gristmill.shards.schema import PAIRS
from tests.actors.text.translators import sealed, sentences

SETTINGS = TranslatorSettings(
    model=TranslatorSizes(dim=32, encoder_layers=1, decoder_layers=1, ff=64, heads=2),
    units=120,
    epochs=4,
    lr=4e-3,
    batch_units=200,
    tune=TuneSettings(epochs=1, lr=1e-3),
)
HOW = TranslateSettings(n=2, rows=7, shard={"rows": 16})
LANGUAGES = {"source_lang": "en", "target_lang": "hi"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sets")


@pytest.fixture(scope="module")
def pairs(folder: Path) -> SealedSet:
    return sealed(folder, "pairs", sentences(150))


@pytest.fixture(scope="module")
def texts(folder: Path) -> SealedSet:
    rows = sentences(40, seed=1)
    return sealed(folder, "texts", [*rows[:20], ("", "x"), *rows[20:]])


def work(run: Run, pairs: SealedSet, texts: SealedSet) -> tuple[Artifact, SealedSet]:
    translator = run.train(translator_job("translator", [pairs], SETTINGS, catalogue={"fan": "पंखा"}))
    return translator, translate(run, "translations", texts, translator, HOW, **LANGUAGES)


@pytest.fixture(scope="module")
def made(folder: Path, pairs: SealedSet, texts: SealedSet) -> tuple[Artifact, SealedSet]:
    return work(Run(str(folder / "out"), InProcessRunner()), pairs, texts)


def test_texts_are_translated_and_counted(folder: Path, made: tuple[Artifact, SealedSet], texts: SealedSet) -> None:
    translator, found = made
    assert found.records + found.seal["rejected"] == 41
    assert found.records > 30
    assert found.seal["reasons"]["translate: no text"] == 1
    assert not [gap for audit in audit_below(str(folder / "out")) for gap in audit.gaps]
    rows = pa.concat_tables(found.tables()).to_pylist()
    assert all(1 <= len(row["translations"]) <= 2 for row in rows)
    assert "source_units" not in found.schema.names
    assert json.loads(translator.read("training.json"))["model"]["pairs"] == 150


def test_run_again_nothing_is_done(
    folder: Path, made: tuple[Artifact, SealedSet], pairs: SealedSet, texts: SealedSet
) -> None:
    run = Run(str(folder / "out"), InProcessRunner())
    assert [one.digest for one in work(run, pairs, texts)] == [one.digest for one in made]
    assert all(trace.kept for trace in run.trace)


def test_a_round_of_self_training(
    folder: Path, made: tuple[Artifact, SealedSet], pairs: SealedSet, tmp_path: Path
) -> None:
    """Translations become pairs, beside the real ones, on which the translator is fine-tuned."""
    translator, found = made
    table = pa.concat_tables(found.tables())
    rows = [{**row, "target": row["translations"][0]["text"], "label_source": "synthetic"} for row in table.to_pylist()]
    synthetic = seal_tables(str(tmp_path / "synthetic"), "synthetic", [pa.Table.from_pylist(rows, schema=PAIRS)])
    job = translator_job("tuned", [synthetic, pairs], SETTINGS, init=translator, weights=[1.0, 0.5])
    assert {one.digest for one in resolved(job).made_of()} == {synthetic.digest, pairs.digest, translator.digest}
    assert job.settings is not None
    assert job.settings.identity() == {
        "epochs": 1.0,
        "lr": 1e-3,
        "batch_units": 200,
    }  # no settings of training from scratch
    tuned = Run(str(folder / "out"), InProcessRunner()).train(job)
    assert tuned.digest != translator.digest
    assert tuned.read("vocab.json") == translator.read("vocab.json")


def test_a_checkpoint_of_the_users_translates_as_it_is(
    folder: Path, made: tuple[Artifact, SealedSet], texts: SealedSet, tmp_path: Path
) -> None:
    translator, found = made
    user = tmp_path / "user"
    user.mkdir()
    for name in translator.files:
        if not name.startswith(FAST):
            (user / name).write_bytes(translator.read(name))
    run = Run(str(tmp_path / "out"), InProcessRunner())
    settings = SETTINGS.but(checkpoint=str(user))
    own = own_translator(run, "own", settings)
    again = translate(run, "translations", texts, own, HOW, **LANGUAGES)
    assert pa.concat_tables(again.tables()).equals(pa.concat_tables(found.tables()))
    marathi = settings.but(target_lang="mr")
    with pytest.raises(UserError, match="from 'en' into 'hi'; expected from 'en' into 'mr'"):
        own_translator(run, "own", marathi)
    with pytest.raises(UserError, match="no checkpoint is given"):
        own_translator(run, "own", SETTINGS)


def test_invalid_inputs_are_rejected(made: tuple[Artifact, SealedSet], texts: SealedSet, tmp_path: Path) -> None:
    run = Run(str(tmp_path / "out"), InProcessRunner())
    with pytest.raises(UserError, match="no column 'text'; they have id, source"):
        translate(run, "translations", texts, made[0], HOW, column="text", **LANGUAGES)
    with pytest.raises(UserError, match="expected from 'en' into 'ta'"):
        _ = translate(run, "translations", texts, made[0], HOW, source_lang="en", target_lang="ta").digest
    with pytest.raises(UserError, match="no pairs to train a translator on"):
        translator_job("translator", [], SETTINGS)
    with pytest.raises(SettingsError, match="epochs and steps: expected one of them"):
        TranslatorSettings(steps=5)
    with pytest.raises(SettingsError, match="compute_type is float16; expected float32, int8"):
        TranslateSettings(compute_type="float16")
    with pytest.raises(SettingsError, match="compute_type"):
        TranslateSettings(compute_type="foo")
    assert not run.trace
