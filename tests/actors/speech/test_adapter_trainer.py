"""Training of a contextual adapter on a toy language: names become better heard, and nothing of the base is changed."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from gristmill.actors.speech.adapter_trainer import (
    IGNORED,
    AdapterTrainer,
    AdapterTraining,
    attention_loss,
    train_adapter,
)
from gristmill.actors.speech.features import ragged
from gristmill.actors.speech.trainer import MODEL
from gristmill.cluster.inprocess import InProcessContext
from gristmill.models.speech.adapter import ADAPTER, load_adapter
from gristmill.models.speech.checkpoint import load_acoustic
from gristmill.models.speech.features import METADATA_KEY
from gristmill.models.speech.losses import ctc_nll
from gristmill.shards import canonical
from gristmill.shards.artifact import put_artifact, read_file
from gristmill.shards.dataset import seal_tables
from gristmill.shards.errors import UserError
from tests.actors.ranks import Killed, RankContext
from tests.actors.speech.toy import SETTINGS, UNITS, config, make_sets, phase, spoken, train

LETTERS = "abcd"


def blurred(text, rng):
    """Features in which b and c sound alike: only a list can tell them apart."""
    rows = spoken(text, rng).astype(np.float32)
    b, c = (2 * UNITS.tokens.index(letter) - 2 for letter in "bc")
    mixed = (rows[:, b : b + 2] + rows[:, c : c + 2]) / 2
    rows[:, b : b + 2] = rows[:, c : c + 2] = mixed
    return rows.astype(np.float16)


def names(rng, count):
    return ["".join(rng.choice(list("bc"), 4)) + rng.choice(list("ad")) for _ in range(count)]


def seal_names(folder, said, rng):
    texts = [f"a {name}" for name in said]
    rows = [blurred(text, rng) for text in texts]
    table = pa.table(
        {
            "id": [f"n{place}" for place in range(len(said))],
            "text": texts,
            "names": [[name] for name in said],
            "features": ragged([row.ravel() for row in rows], pa.float16()),
            "feature_frames": pa.array([len(row) for row in rows], pa.int32()),
        }
    ).replace_schema_metadata({METADATA_KEY: SETTINGS.to_json()})
    seal_tables(str(folder), "names", [table.slice(0, 40), table.slice(40)])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    root = make_sets(tmp_path_factory.mktemp("sets"))
    made = train(config(root, [phase("ctc", "gold", epochs=25, lr=1e-2)]), InProcessContext(str(root / "run")))
    put_artifact(str(root / "base"), made["files"], {})
    rng = np.random.default_rng(1)
    seal_names(root / "names", names(rng, 80), rng)
    return root


def unlikely(root, adapter, text, words):
    """Return the mean negative log-likelihood of a text of blurred sounds, with a list of words."""
    model, units, _ = load_acoustic(read_file(str(root / "base"), MODEL))
    features = torch.from_numpy(blurred(text, np.random.default_rng(7)).astype(np.float32))[None]
    spelled = torch.zeros(len(words), 5, dtype=torch.int64)
    for row, word in zip(spelled, words, strict=True):
        row[:] = torch.tensor(units.encode(word))
    with torch.no_grad():
        states, lengths = model.layers(features, torch.tensor([features.shape[1]]))
        hidden, _ = adapter(states, adapter.context(spelled))
        return float(ctc_nll(model.classify(hidden), lengths, [units.encode(text)]))


def test_names_of_a_new_list_are_heard_and_the_base_is_untouched(base, tmp_path):
    before = canonical.sha256(read_file(str(base / "base"), MODEL))
    given = AdapterTraining(schedule={"epochs": 15, "lr": 1e-2}, most=8, dim=32, batch_frames=400, seed=3)
    data = {"features": str(base / "names"), "text": "text", "names": "names"}
    made = train_adapter(given, InProcessContext(str(tmp_path / "run")), base=str(base / "base"), data=data)
    again = train_adapter(given, InProcessContext(str(tmp_path / "again")), base=str(base / "base"), data=data)
    assert made["files"] == again["files"]
    assert canonical.sha256(read_file(str(base / "base"), MODEL)) == before
    assert made["curves"][-1]["ctc"] < 0.5 * made["curves"][0]["ctc"]
    model, _, _ = load_acoustic(read_file(str(base / "base"), MODEL))
    adapter = load_adapter(made["files"][ADAPTER], model, before)
    rng = np.random.default_rng(5)
    said = sorted(set(names(rng, 12)))  # a list of today
    lists = {
        "none": lambda one: [],
        "present": lambda one: said[one : one + 3],
        "absent": lambda one: said[one + 1 :][:3],
    }
    found = {
        kind: np.mean([unlikely(base, adapter, f"a {said[one]}", words(one)) for one in range(len(said) - 3)])
        for kind, words in lists.items()
    }
    assert found["present"] < 0.7 * found["none"], found
    assert found["absent"] < 1.2 * found["none"], found


def test_a_resumed_training_is_the_same_to_the_bit(base, tmp_path):
    given = AdapterTraining(schedule={"epochs": 2}, most=4, dim=8, batch_frames=400, checkpoint_steps=3)
    inputs = {"base": str(base / "base"), "data": {"features": str(base / "names"), "text": "text", "names": "names"}}
    whole = train_adapter(given, InProcessContext(str(tmp_path / "whole")), **inputs)
    with pytest.raises(Killed):
        train_adapter(given, RankContext(str(tmp_path / "broken"), die_at=7), **inputs)
    resumed = train_adapter(given, InProcessContext(str(tmp_path / "broken")), **inputs)
    assert resumed["files"] == whole["files"]


def test_what_does_not_fit_is_refused(base, tmp_path):
    context = InProcessContext(str(tmp_path / "run"))
    data = {"features": str(base / "names"), "text": "text"}
    with pytest.raises(UserError, match="no names"):
        train_adapter(AdapterTraining(), context, base=str(base / "base"), data=data)
    with pytest.raises(UserError, match="no column 'words'"):
        train_adapter(AdapterTraining(), context, base=str(base / "base"), data={**data, "names": "words"})


def test_the_attention_is_supervised_by_what_is_spoken():
    """Frames with names weigh as much as all others, and frames without a unit nothing."""
    wanted = torch.tensor([[0, 2, 0, IGNORED], [0, 0, 0, 0]])
    attention = torch.full((2, 4, 3), -50.0)
    for row in range(2):
        for frame in range(4):
            attention[row, frame, max(int(wanted[row, frame]), 0)] = 0.0
    assert float(attention_loss(attention, wanted)) == 0.0
    attention[0, 3] = -50.0  # of a blank
    assert float(attention_loss(attention, wanted)) == 0.0
    attention[0, 1] = torch.tensor([-1.0, -2.0, -3.0])
    assert float(attention_loss(attention, wanted)) == pytest.approx(1.5)


@pytest.mark.parametrize("keys", ["units", "entries"])
def test_each_unit_of_a_name_on_the_list_has_its_own_key(base, keys):
    given = AdapterTraining(absent=0.0, most=1, attend=keys, batch_frames=100)
    data = {"features": str(base / "names"), "text": "text", "names": "names"}
    training = AdapterTrainer(given, str(base / "base"), data)
    model = training.build(torch.device("cpu"))
    batch = training.load(training.batches(0, 0)[0])
    context = model.adapter.context(batch.spelled)
    for targets, wanted in zip(batch.speech.targets, batch.keys, strict=True):
        assert wanted[:2].tolist() == [0, 0], "a, and the space"
        spelled = batch.spelled[context.entries[wanted[2]] - 1]
        assert spelled[spelled > 0].tolist() == targets[2:]
        assert set(context.entries[wanted[2:]].tolist()) == {int(context.entries[wanted[2]])}
        assert len(set(wanted[2:].tolist())) == (len(targets) - 2 if keys == "units" else 1)
    _, _, _, wanted = training.forward(model, batch, 0, 0)
    assert (wanted > 0).any()
    assert (wanted == IGNORED).any()
