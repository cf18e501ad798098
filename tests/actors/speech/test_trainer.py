"""Training on sealed sets: exact repeats and resumption, refusals, every objective, and features and recognition."""

import json
import threading

import numpy as np
import pyarrow as pa
import pytest

from gristmill.actors.audio import audio_array, encode
from gristmill.actors.speech.features import LogMel, ragged
from gristmill.actors.speech.phases import AcousticTraining
from gristmill.actors.speech.recognise import RecogniserSettings, recognition
from gristmill.actors.speech.training_data import Source
from gristmill.cluster.inprocess import InProcessContext
from gristmill.models.measures.wer import align
from gristmill.models.speech.checkpoint import load_acoustic
from gristmill.models.speech.features import METADATA_KEY
from gristmill.shards.artifact import put_artifact
from gristmill.shards.dataset import open_sealed, seal_tables
from gristmill.shards.errors import SettingsError, UserError
from tests.actors.ranks import Killed, RankContext
from tests.actors.speech.toy import SCHEDULE, SETTINGS, UNITS, config, make_sets, phase, spoken, train


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    return make_sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture
def context(tmp_path):
    return InProcessContext(str(tmp_path / "run"))


def dies(folder):
    """Return the context of a worker that dies after step 7."""
    return RankContext(str(folder), die_at=7)


def test_a_resumed_run_is_the_same_run_bit_for_bit(sets, tmp_path):
    given = config(sets, SCHEDULE, checkpoint_steps=4, report_steps=3, ema=0.9)
    expected = train(given, InProcessContext(str(tmp_path / "whole")))
    broken = dies(tmp_path / "broken")
    with pytest.raises(Killed):
        train(given, broken)
    assert broken.checkpoints.newest()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]
    resumed = train(given, InProcessContext(str(tmp_path / "broken")))
    assert resumed["files"] == expected["files"]
    assert resumed["curves"] == expected["curves"]
    other = train({**given, "seed": 4}, InProcessContext(str(tmp_path / "other")))
    assert other["files"] != expected["files"]


def test_it_learns_and_the_recogniser_transcribes(sets, context, tmp_path):
    result = train(config(sets, [phase("ctc", "gold", epochs=25, lr=1e-2)]), context)
    losses = [row["loss"] for row in result["curves"]]
    assert losses[-1] < 0.1 * losses[0]
    artifact = put_artifact(str(sets / "model"), result["files"], {})
    rng = np.random.default_rng(9)
    texts = ["abcd", "dd a", "c", "ba ab"]
    rows = [spoken(text, rng) for text in texts]
    batch = pa.table({"features": ragged([r.ravel() for r in rows], pa.float16())})
    batch = batch.replace_schema_metadata({METADATA_KEY: SETTINGS.to_json()})
    for beam in (0, 4):
        actor = recognition({"own": artifact.ref}, RecogniserSettings(beam=beam)).build(0)
        found = actor(batch).column("hypothesis_own").to_pylist()
        letters = "".join(align(t, f) for t, f in zip(texts, found, strict=True))
        assert len(letters) - letters.count("C") <= 2
        alone = [actor(batch.slice(i, 1)).column("hypothesis_own")[0].as_py() for i in range(4)]
        assert alone == found
    again = train(config(sets, init=artifact.url, units=None), InProcessContext(str(tmp_path / "again")))
    assert again["curves"][0]["loss"] < losses[0]
    assert load_acoustic(again["files"]["model.safetensors"])[1] == UNITS


def test_word_errors_are_counted_as_the_units_spell_words(sets, tmp_path):
    """Capitals and punctuation, which no hypothesis can contain, do not affect the expected word errors."""
    gold = pa.concat_tables(open_sealed(str(sets / "gold")).tables())
    loud = [f"«{text.upper()}!»" for text in gold["text"].to_pylist()]
    place = gold.column_names.index("text")
    seal_tables(str(tmp_path / "loud"), "loud", [gold.set_column(place, "text", pa.array(loud))])
    seal_tables(str(tmp_path / "plain"), "plain", [gold])
    phases = [phase("ctc", steps=60, lr=1e-2), phase("mwer", steps=4, lr=1e-3)]
    made = []
    for name in ("plain", "loud"):
        data = {"gold": {"features": str(tmp_path / name), "text": "text"}}
        made.append(train(config(sets, phases, data=data), InProcessContext(str(tmp_path / f"run-{name}"))))
    assert made[0]["curves"][-1]["mwer"] != 0.0
    assert made[0]["curves"] == made[1]["curves"]
    assert made[0]["files"] == made[1]["files"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": "other_rate"}, "frames per second"),
        ({"labels": "other_units"}, "vocabulary"),
        ({"labels": "other_features"}, "used feature settings"),
        ({"text": "hypothesis"}, "no column 'hypothesis'"),
        ({"labels": "absent"}, "no sealed set"),
    ],
)
def test_data_that_do_not_fit_are_refused(sets, context, change, message):
    given = config(sets, SCHEDULE)
    change = {k: str(sets / v) if k == "labels" else v for k, v in change.items()}
    given["data"]["noisy"] = {**given["data"]["noisy"], **change}
    with pytest.raises(UserError, match=message):
        train(given, context)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (phase("ctc", "x", steps=1), "not in the data"),
        (phase("ctc", "noisy", steps=1), "neither the text nor the labels"),
        (phase("soft", "noisy", steps=1) | {"soft": {"k": 5}}, "only 2 are stored"),
    ],
)
def test_phases_that_the_data_do_not_serve_are_refused(sets, context, given, message):
    with pytest.raises(UserError, match=message):
        train(config(sets, [given]), context)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (phase("ctk", steps=1), "ctk_weight"),
        (phase("ctc"), "epochs and steps: expected one of them"),
        (phase("ctc", steps=1, epochs=1), "epochs and steps: expected one of them"),
        (phase("ctc", steps=1, rate=1), "rate"),
        (phase("ctc", steps=1) | {"ctc_weight": 0}, "all weights are 0"),
    ],
)
def test_phases_that_make_no_sense_are_refused(given, message):
    with pytest.raises(SettingsError, match=message):
        AcousticTraining(phases=[given])


def test_how_a_training_is_carried_out_is_in_no_fingerprint():
    given = {"phases": [phase("ctc", steps=1)]}
    how = AcousticTraining(**given, checkpoint_steps=1, cache_bytes=1)
    assert how.identity() == AcousticTraining(**given).identity()
    assert "ema" in AcousticTraining(**given, ema=0.9).identity()


@pytest.fixture
def bad(sets, tmp_path):
    """The gold set, with a value in each record's features that is not finite."""
    table = pa.concat_tables(open_sealed(str(sets / "gold")).tables())
    values = [np.array(one.values) for one in table["features"]]
    for one in values:
        one[5] = np.nan
    place = table.column_names.index("features")
    seal_tables(str(tmp_path / "bad"), "bad", [table.set_column(place, "features", ragged(values, pa.float16()))])
    return {"features": str(tmp_path / "bad"), "text": "text", "labels": str(sets / "labels")}


def with_bad(sets, bad, steps, **more):
    phases = [phase("soft" if name == "bad" else "ctc", name, steps=count) for name, count in steps]
    given = config(sets, phases, **more)
    return {**given, "data": {**given["data"], "bad": bad}}


def test_steps_without_a_finite_gradient_are_counted(sets, bad, tmp_path):
    given = with_bad(sets, bad, [("gold", 3), ("bad", 1), ("gold", 36)], checkpoint_steps=4, report_steps=1)
    result = train(given, InProcessContext(str(tmp_path / "whole")))
    assert [row.get("skipped", 0) for row in result["curves"]] == [0] * 3 + [1] * 37
    assert "loss" not in result["curves"][3]
    assert json.loads(json.dumps(result["curves"], allow_nan=False)) == result["curves"]
    model = load_acoustic(result["files"]["model.safetensors"])[0]
    assert all(np.isfinite(value.numpy()).all() for value in model.state_dict().values())
    with pytest.raises(Killed):
        train(given, dies(tmp_path / "broken"))
    assert train(given, InProcessContext(str(tmp_path / "broken")))["curves"] == result["curves"]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([("gold", 2), ("bad", 300)], r"phases\[1\]: no finite gradient in 10 steps in a row.*step 11; .*lr.*bad"),
        ([("bad", 3), ("gold", 30)], r"phases\[0\]: no finite gradient in 2 of 33 steps, more than 5%"),
    ],
)
def test_a_training_that_cannot_go_on_says_so(sets, bad, context, steps, message):
    with pytest.raises(UserError, match=message):
        train(with_bad(sets, bad, steps), context)


def test_batches_hold_every_record_once_and_fit(sets):
    source = Source("noisy", 1, features=str(sets / "noisy"), labels=str(sets / "labels"))
    counts = set()
    orders = []
    for epoch in range(3):
        batches = source.batches(150, window=2, seed=1, epoch=epoch)
        assert sorted(np.concatenate(batches).tolist()) == list(range(48))
        assert all(len(rows) == 1 or len(rows) * source.frames[rows].max() <= 150 for rows in batches)
        counts.add(len(batches))
        orders.append([rows.tolist() for rows in batches])
    assert len(counts) == 1
    assert orders[0] != orders[1]
    assert orders[0] == [rows.tolist() for rows in source.batches(150, window=2, seed=1, epoch=0)]


def test_features_of_a_record_are_its_own():
    rng = np.random.default_rng(0)
    sounds = [(0.1 * rng.normal(size=n)).astype(np.float32) for n in (16000, 4000, 9999)]
    batch = pa.table({"id": ["a", "b", "c", "d"], "audio": audio_array([*(encode(s, 16000) for s in sounds), None])})
    made = LogMel.stage(SETTINGS)
    out = made.build(0)(batch)
    assert out.column("reject_reason").to_pylist() == [None, None, None, "no audio"]
    kept = out.slice(0, 3).drop_columns(["reject_reason"])
    assert kept.schema.equals(made.output_schema(batch.schema), check_metadata=False)
    assert kept.column("feature_frames").to_pylist() == [100, 25, 63]
    assert made.build(0)(batch.slice(1, 1)).to_pylist() == kept.slice(1, 1).to_pylist()
