"""Training of skills: hidden skills are found, equal and resumed bytes, what is read, labels with their sources."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from gristmill.actors.sessions.skill_trainer import PSEUDO, SKILL_REQUEST_FIELDS, SkillTraining, train
from gristmill.actors.sessions.skills import SkillLabels, SkillScores, SkillScoreSettings
from gristmill.actors.training.settings import Schedule
from gristmill.cluster.inprocess import InProcessContext
from gristmill.models.sessions.skills import MODEL, WEIGHTS, PseudoSettings, SkillModel, SkillNetworkSettings
from gristmill.shards.artifact import put_artifact
from gristmill.shards.dataset import seal_tables
from gristmill.shards.errors import SettingsError, UserError
from gristmill.shards.settings import Settings

FIELDS = pa.schema(SKILL_REQUEST_FIELDS)
SETTINGS = SkillTraining(
    schedule=Schedule(epochs=20, lr=0.02),
    batch=16,
    network=SkillNetworkSettings(buckets=256, dim=8, dropout=0.0),
    pseudo=PseudoSettings(epochs=2, threshold=0.25, after=4),
    negative_weight=3.0,
)


def rows():
    """The lamp is a light and a switch, of which one is labelled; a fan and a lock are one thing each."""
    said = [("lamp", "light"), ("lamp", "switch"), ("fan", "fan"), ("lock", "lock")]
    made = []
    for number in range(96):
        name, skill = said[number % 4]
        room = ("hall", "attic", "kitchen", "office")[number // 4 % 4]
        made.append({"tokens": ["turn", "on", "the", room, name], "skill": skill, "fold": number % 3})
    made.append({"tokens": ["turn", "it", "on"], "skill": None, "negative": "lock", "fold": 0})
    made.append({"tokens": ["turn", "on", "the", "test"], "skill": "test", "fold": -1})
    return [{"id": f"r{n:03d}", "group": f"g{n}", **row} for n, row in enumerate(made)]


def sealed(path, given=None):
    table = pa.Table.from_pylist(given or rows(), schema=FIELDS)
    half = len(table) // 2
    return seal_tables(str(path), "requests", [table.slice(0, half), table.slice(half)])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return sealed(tmp_path_factory.mktemp("skills") / "set")


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    return train(SETTINGS, InProcessContext(str(tmp_path_factory.mktemp("run"))), data=data.url)


def test_hidden_skills_become_pseudo_labels(trained):
    found = json.loads(trained["files"][PSEUDO])
    other = {"light": "switch", "switch": "light"}
    lamps = [row for row in rows() if row["skill"] in other]
    assert sum(other[row["skill"]] in [one[0] for one in found.get(row["id"], [])] for row in lamps) > 40
    wrong = [one for row in rows() if row["skill"] not in other for one in found.get(row["id"], [])]
    assert not wrong
    assert trained["pseudo"] == len(found)
    assert trained["requests"] == 97
    assert all(0.25 < value < 1 and epoch > 5 for labels in found.values() for _, value, epoch in labels)


def test_pseudo_labels_raise_the_hidden_skill(trained, data, tmp_path):
    single = train(SETTINGS.but(pseudo=None), InProcessContext(str(tmp_path)), data=data.url)
    assert json.loads(single["files"][PSEUDO]) == {}

    def both(made):
        model = SkillModel.from_files(made["files"][MODEL], made["files"][WEIGHTS])
        [found] = model.probabilities([["turn", "on", "the", "hall", "lamp"]])
        return min(found[model.skills.index("light")], found[model.skills.index("switch")])

    assert both(trained) > both(single) + 0.1


def test_feedback_lowers_what_was_chosen(data, tmp_path):
    without = train(SETTINGS.but(negative_weight=0.0), InProcessContext(str(tmp_path / "a")), data=data.url)
    told = train(SETTINGS, InProcessContext(str(tmp_path / "b")), data=data.url)
    assert without["requests"] == told["requests"] - 1

    def lock(made):
        model = SkillModel.from_files(made["files"][MODEL], made["files"][WEIGHTS])
        return model.probabilities([["turn", "it", "on"]])[0, model.skills.index("lock")]

    assert lock(told) < lock(without)


class _Stopped(Exception):
    pass


class _Context(InProcessContext):
    """Stops after its first checkpoint, or resumes from one."""

    def __init__(self, out, held=None):
        super().__init__(out)
        self.held = held
        self.stops = held is None

    def resume(self):
        return self.held

    def report(self, metrics, checkpoint=None):
        if checkpoint is not None and self.stops:
            self.held = checkpoint
            raise _Stopped


def test_a_resumed_training_has_the_same_bytes(trained, data, tmp_path):
    settings = SETTINGS.but(checkpoint_steps=61)  # in an epoch in which pseudo labels are made
    stopped = _Context(str(tmp_path / "a"))
    with pytest.raises(_Stopped):
        train(settings, stopped, data=data.url)
    resumed = train(settings, _Context(str(tmp_path / "b"), stopped.held), data=data.url)
    assert resumed["files"] == trained["files"]


def test_folds_are_left_out(data, tmp_path):
    made = train(SETTINGS.but(left_out=(0, 1)), InProcessContext(str(tmp_path)), data=data.url)
    assert made["requests"] == 32


def test_labels_and_scores_are_columns(trained, data, tmp_path):
    url = str(tmp_path / "model")
    put_artifact(url, trained["files"], {})
    table = pa.concat_tables(data.tables())
    labels = SkillLabels(Settings(), url)(table)["labels"].to_pylist()
    sources = [[(one["skill"], one["source"], one["epoch"] > 0) for one in row] for row in labels]
    assert sources[0] == [("light", "gold", False), ("switch", "pseudo", True)]
    assert sources[2] == [("fan", "gold", False)]
    assert sources[96] == [("lock", "negative", False)]
    scored = SkillScores(SkillScoreSettings(), url)(table)["skill_scores"].to_pylist()
    assert scored[2][0]["skill"] == "fan"
    assert [one["score"] for one in scored[0]] == sorted((one["score"] for one in scored[0]), reverse=True)


def test_what_cannot_be_trained_is_said(tmp_path):
    context = InProcessContext(str(tmp_path / "run"))
    made = seal_tables(str(tmp_path / "a"), "requests", [pa.table({"id": ["a"], "tokens": [["on"]]})])
    with pytest.raises(UserError, match="has no column skill"):
        train(SETTINGS, context, data=made.url)
    with pytest.raises(UserError, match="expected at least one"):
        train(SETTINGS, context, data=sealed(tmp_path / "b", rows()[-2:]).url)
    with pytest.raises(SettingsError, match="expected null"):
        SETTINGS.but(patience=2)
    context.world_size = 2
    with pytest.raises(UserError, match="2 ranks; expected 1"):
        train(SETTINGS, context, data=str(tmp_path / "b"))
