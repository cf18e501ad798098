"""Pseudo labels of skills: after how many epochs, which skills, their values; the loss of negative feedback."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gristmill.models.sessions.skills import (
    MODEL,
    WEIGHTS,
    FeatureRows,
    PseudoLabels,
    PseudoSettings,
    SkillModel,
    SkillNetwork,
    SkillNetworkSettings,
    skill_loss,
)
from gristmill.shards.errors import UserError

SMALL = SkillNetworkSettings(buckets=64, dim=4, dropout=0.0)
GOLD = torch.tensor([[True, False, False, False]])


def noted(settings, *epochs, labelled=GOLD):
    labels = PseudoLabels(settings, 1)
    for one in epochs:
        labels.note(torch.tensor([0]), torch.tensor([one]), labelled)
    return labels


def test_a_skill_that_stays_first_becomes_a_label_with_its_probability():
    settings = PseudoSettings(epochs=2, threshold=0.3, after=0)
    first, second = [0.9, 0.4, 0.1, 0.0], [0.9, 0.5, 0.1, 0.0]
    assert noted(settings, first).skills.tolist() == [[-1] * 4]
    made = noted(settings, first, second)
    assert made.skills.tolist() == [[1, -1, -1, -1]]
    assert made.values[0, 0] == 0.5
    assert made.since[0, 0] == 2


@pytest.mark.parametrize(
    "between", [[0.9, 0.2, 0.1, 0.0], [0.9, 0.4, 0.5, 0.0]], ids=["below the threshold", "another first"]
)
def test_epochs_are_consecutive(between):
    settings = PseudoSettings(epochs=2, threshold=0.3, after=0)
    first = [0.9, 0.4, 0.1, 0.0]
    assert (noted(settings, first, between, first).skills == -1).all()
    assert noted(settings, first, between, first, first).skills[0, 0] == 1


def test_first_epochs_do_not_count():
    first = [0.9, 0.4, 0.1, 0.0]
    settings = PseudoSettings(epochs=2, threshold=0.3, after=2)
    assert (noted(settings, first, first, first).skills == -1).all()
    assert noted(settings, first, first, first, first).since[0, 0] == 4


def test_the_next_skill_follows_and_values_follow_the_network():
    settings = PseudoSettings(epochs=1, threshold=0.3, after=0, most=2)
    found = noted(settings, [0.9, 0.6, 0.5, 0.4], [0.9, 0.8, 0.5, 0.4], [0.9, 0.7, 0.6, 0.4])
    assert found.skills.tolist() == [[1, 2]]
    assert found.values.tolist() == [pytest.approx([0.7, 0.6])]
    assert found.targets(torch.tensor([0]), 4).tolist() == [pytest.approx([0.0, 0.7, 0.6, 0.0])]


def test_a_label_below_the_threshold_is_withdrawn_and_the_others_move_up():
    settings = PseudoSettings(epochs=1, threshold=0.3, after=0, most=2)
    found = noted(settings, [0.9, 0.6, 0.5, 0.1], [0.9, 0.6, 0.5, 0.1], [0.9, 0.2, 0.5, 0.1])
    assert found.skills.tolist() == [[2, -1]]
    assert found.since.tolist() == [[2, 0]]
    assert found.targets(torch.tensor([0]), 4).tolist() == [[0.0, 0.0, 0.5, 0.0]]


def test_a_rejected_skill_is_no_label():
    settings = PseudoSettings(epochs=1, threshold=0.3, after=0)
    rejected = torch.tensor([[True, True, False, False]])
    assert (noted(settings, [0.9, 0.8, 0.1, 0.0], labelled=rejected).skills == -1).all()


def test_without_settings_there_are_no_labels():
    found = noted(None, [0.9, 0.8, 0.1, 0.0])
    assert found.targets(torch.tensor([0]), 4).tolist() == [[0.0] * 4]


def test_the_loss_of_labels_feedback_and_pseudo_labels():
    logits, none = torch.zeros(1, 3), torch.zeros(1, 3)
    label, rejected, nothing = torch.tensor([0]), torch.tensor([2]), torch.tensor([-1])
    each = math.log(2)
    assert skill_loss(logits, label, nothing, none, 0.0).item() == pytest.approx(3 * each)
    assert skill_loss(logits, label, rejected, none, 5.0).item() == pytest.approx(8 * each)
    assert skill_loss(logits, nothing, rejected, none, 5.0).item() == pytest.approx(5 * each)
    # A pseudo label at the network's own probability has no gradient, and feedback lowers what it is about only.
    logits = torch.tensor([[0.3, 1.2, 0.7]], requires_grad=True)
    pseudo = torch.tensor([[0.0, torch.sigmoid(torch.tensor(1.2)).item(), 0.0]])
    skill_loss(logits, label, nothing, pseudo, 0.0).backward()
    assert logits.grad[0, 0] < 0
    assert logits.grad[0, 1].abs() < 1e-6
    logits.grad = None
    skill_loss(logits, nothing, rejected, torch.zeros(1, 3), 5.0).backward()
    assert logits.grad[0, :2].tolist() == [0.0, 0.0]
    assert logits.grad[0, 2] > 0


def model():
    torch.manual_seed(0)
    return SkillModel(["light", "fan"], SMALL, SkillNetwork(SMALL, 2))


def test_probabilities_do_not_depend_on_the_batch_and_read_context():
    tokens = [["lights", "on"], [], ["stop", "it", "now"]]
    made = model()
    together = made.probabilities(tokens, [["room"], None, None])
    alone = np.concatenate(
        [made.probabilities([tokens[0]], [["room"]]), *(made.probabilities([t]) for t in tokens[1:])]
    )
    assert together.tobytes() == alone.tobytes()
    assert not np.array_equal(together[0], made.probabilities([tokens[0]])[0])
    assert made.probabilities([]).shape == (0, 2)
    rows = FeatureRows(tokens, [["room"], None, None], SMALL.buckets)
    trained = torch.sigmoid(made.network.eval()(rows.take(range(3)))).detach().numpy()
    np.testing.assert_allclose(together, trained, rtol=1e-5)


def test_files_hold_the_model():
    files = model().files()
    again = SkillModel.from_files(files[MODEL], files[WEIGHTS])
    assert again.skills == ("light", "fan")
    assert again.files() == files
    with pytest.raises(UserError, match="format 9; expected 1"):
        SkillModel.from_files(files[MODEL].replace(b'"format":1', b'"format":9'), files[WEIGHTS])
    with pytest.raises(UserError, match="expected the weights of 2 skills"):
        SkillModel.from_files(files[MODEL], b"\x00")
