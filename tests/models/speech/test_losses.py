"""Objectives against plain formulas, gradients, and masks."""

import itertools
import math

import pytest
import torch

from gristmill.models.speech.losses import SoftTargetSettings, ctc_loss, ctc_nll, expected_errors, soft_target_loss
from gristmill.shards.errors import UserError

B, T, V = 3, 7, 9


def draws(seed=0):
    g = torch.Generator().manual_seed(seed)
    student = torch.randn(B, T, V, generator=g, dtype=torch.float64)
    teacher = torch.randn(B, T, V, generator=g, dtype=torch.float64).mul(2).log_softmax(-1)
    return student, teacher, torch.tensor([7, 4, 1])


def stored(teacher, k):
    values, ids = teacher.sort(dim=-1, descending=True)
    tail = torch.log((1 - values[..., :k].exp().sum(-1)).clamp(min=1e-12))
    return ids[..., :k], values[..., :k], tail


def loss(student, teacher, lengths, held, **options):
    settings = SoftTargetSettings(**({"k": held, "temperature": 1.0} | options))
    return soft_target_loss(student.log_softmax(-1), lengths, *stored(teacher, held), settings)


def mean_over_valid(frames, lengths):
    return sum(frames[b, :n].sum() for b, n in enumerate(lengths.tolist())) / lengths.sum()


@pytest.mark.parametrize("tail", ["renormalise", "bucket", "uniform"])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_all_units_kept_is_the_full_cross_entropy(tail, temperature):
    student, teacher, lengths = draws()
    p, q = (teacher / temperature).softmax(-1), (student / temperature).log_softmax(-1)
    expected = mean_over_valid(-(p * q).sum(-1), lengths)
    assert float(loss(student, teacher, lengths, V, temperature=temperature, tail=tail)) == pytest.approx(
        float(expected), abs=1e-5
    )


def test_tail_modes_at_temperature_one():
    student, teacher, lengths = draws(1)
    ids, values, _ = stored(teacher, V)
    p, q = values.exp(), student.log_softmax(-1).gather(-1, ids)
    k, rest = 4, 1 - p[..., :4].sum(-1)
    kept = -(p[..., :k] * q[..., :k]).sum(-1)
    expected = {
        "renormalise": kept / p[..., :k].sum(-1),
        "bucket": kept - rest * q[..., k:].logsumexp(-1),
        "uniform": kept - rest * q[..., k:].mean(-1),
    }
    for tail, frames in expected.items():
        for held in (k, 6):  # a k below the stored one gives the same as storing k
            got = loss(student, teacher, lengths, held, k=k, tail=tail)
            assert float(got) == pytest.approx(float(mean_over_valid(frames, lengths)), abs=1e-5), (tail, held)


@pytest.mark.parametrize("tail", ["renormalise", "bucket", "uniform"])
def test_gradient_is_right_and_stops_at_the_mask(tail):
    student, teacher, lengths = draws(2)
    student.requires_grad_()
    options = {"temperature": 2.0, "tail": tail, "k": 3}
    assert torch.autograd.gradcheck(
        lambda s: loss(s, teacher, lengths, 5, **options), (student,), eps=1e-5, atol=1e-4, rtol=1e-3
    )
    loss(student, teacher, lengths, 5, **options).backward()
    assert student.grad[1, 4:].abs().sum() == 0
    assert student.grad[1, :4].abs().sum() > 0
    changed = student.detach().clone()
    changed[1, 4:] += 5
    assert loss(changed, teacher, lengths, 5, **options) == loss(student.detach(), teacher, lengths, 5, **options)


def test_more_targets_than_stored_are_refused():
    student, teacher, lengths = draws()
    with pytest.raises(UserError, match="only 3 of 9"):
        loss(student, teacher, lengths, 3, k=5)


def test_ctc_sums_over_alignments():
    log_probs = draws(3)[0][:1, :4, :3].log_softmax(-1)
    total = 0.0
    for path in itertools.product(range(3), repeat=4):
        if [u for u, _ in itertools.groupby(path) if u] == [1, 2]:
            total += math.exp(sum(float(log_probs[0, t, u]) for t, u in enumerate(path)))
    nll = ctc_nll(log_probs, torch.tensor([4]), [[1, 2]])
    assert float(nll) == pytest.approx(-math.log(total), abs=1e-6)
    assert float(ctc_loss(log_probs, torch.tensor([4]), [[1, 2]])) == pytest.approx(float(nll) / 4)


def test_expected_errors_matches_the_formula_and_its_gradient_lowers_them():
    student = draws(4)[0][:2].clone().requires_grad_()
    lengths, lists, wrong = torch.tensor([7, 5]), [[[1, 2], [1], [3]], [[4]]], [[0.0, 1.0, 2.0], [1.0]]

    def value(s):
        return expected_errors(s.log_softmax(-1), lengths, lists, wrong)

    p = (-ctc_nll(student[:1].expand(3, -1, -1).log_softmax(-1), lengths[:1].expand(3), lists[0])).softmax(0)
    assert value(student).item() == pytest.approx((p * torch.tensor([-1.0, 0.0, 1.0])).sum().item() / 2)
    assert torch.autograd.gradcheck(value, (student,), eps=1e-5, atol=1e-4, rtol=1e-3)
    value(student).backward()
    assert float(value(student.detach() - 0.5 * student.grad)) < float(value(student.detach()))
