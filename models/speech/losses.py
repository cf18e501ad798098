"""Training objectives of a CTC model: CTC on text, soft targets from a stored top-k, expected word errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from gristmill.models.speech.topk import MAX_K
from gristmill.shards.errors import UserError
from gristmill.shards.settings import Settings, Size


class SoftTargetSettings(Settings):
    """Training on stored top-k labels: their number per frame, and their temperature."""

    k: int = Field(20, ge=1, le=MAX_K)
    """Log-probabilities of a frame that are learnt from, the largest ones of those stored."""
    temperature: float = Field(2.0, gt=0)
    """Divides the teacher's and the student's logits (Hinton et al., 2015)."""
    student_temperature: float | None = Field(None, gt=0)
    """Temperature of the student alone; null: the same."""
    tail: Literal["renormalise", "bucket", "uniform"] = "renormalise"
    """Treatment of the mass that is not kept, see :func:`soft_target_loss`."""


class ExpectedErrorSettings(Settings):
    """The n-best lists over which word errors are expected (Prabhavalkar et al., ICASSP 2018)."""

    nbest: Size = Field(4, ge=2)
    """Hypotheses in a list."""
    beam: Size = Field(8, ge=2)
    """Prefixes kept by the beam search for them."""


def pad_targets(targets: Sequence[Sequence[int]], device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Return (units (B, longest) int64 padded with 0, lengths (B,) int64)."""
    lengths = torch.tensor([len(t) for t in targets], dtype=torch.int64)
    padded = torch.zeros(len(targets), max([1, *map(len, targets)]), dtype=torch.int64)
    for row, target in zip(padded, targets, strict=True):
        row[: len(target)] = torch.tensor(target, dtype=torch.int64)
    return padded.to(device), lengths.to(device)


def ctc_nll(log_probs: Tensor, lengths: Tensor, targets: Sequence[Sequence[int]]) -> Tensor:
    """Return -log P(target | utterance) (B,), summed over alignments (Graves et al., 2006).

    A target longer than its frames allow has loss 0 and no gradient.
    """
    padded, target_lengths = pad_targets(targets, log_probs.device)
    return F.ctc_loss(
        log_probs.transpose(0, 1),
        padded,
        lengths,
        target_lengths,
        blank=0,
        reduction="none",
        zero_infinity=True,
    )


def ctc_loss(log_probs: Tensor, lengths: Tensor, targets: Sequence[Sequence[int]]) -> Tensor:
    """Return CTC's negative log-likelihood per frame (scalar): the unit of the soft targets it is mixed with."""
    return ctc_nll(log_probs, lengths, targets).sum() / lengths.sum()


def soft_target_loss(
    log_probs: Tensor,
    lengths: Tensor,
    topk_ids: Tensor,
    topk_logprobs: Tensor,
    tail_logmass: Tensor,
    settings: SoftTargetSettings,
) -> Tensor:
    """Return the cross entropy of a student with a teacher's stored top-k, the mean over valid frames (scalar).

    ``log_probs`` (B, T, V) are the student's; ``topk_ids`` and ``topk_logprobs`` (B, T, K) the teacher's untempered
    log-probabilities in descending order, normalised over all V; ``tail_logmass`` (B, T) the log of the rest's mass.

    The first min(``settings.k``, V) are kept. The rest, by ``settings.tail``:

    - ``renormalise``: p is normalised to sum to 1 over the kept k, after division by T. At k = V, T = 1: the full
      cross entropy.
    - ``bucket``: the rest is one more class; the student's is the sum of its tempered rest.
    - ``uniform``: the rest is spread evenly over the V - k units left out.

    The mass of the V - k units left out is not stored at temperatures T other than 1; ``bucket`` and ``uniform`` assume
    that the rest is even, (V - k) (m / (V - k))^(1/T) for a mass m, before normalisation with the kept ones. This is
    exact at T = 1.
    """
    stored, vocab = topk_ids.shape[-1], log_probs.shape[-1]
    kept, temperature, tail = min(settings.k, stored), settings.temperature, settings.tail
    if settings.k > stored and stored < vocab:
        raise UserError(f"k: {settings.k} soft targets requested, but only {stored} of {vocab} are stored")
    own = settings.student_temperature or temperature
    log_q = log_probs if own == 1.0 else F.log_softmax(log_probs / own, dim=-1)
    ids = topk_ids[..., :kept].long()
    teacher = topk_logprobs.float()
    log_p = teacher[..., :kept] / temperature
    q_kept = log_q.gather(-1, ids)
    rest = vocab - kept
    if tail == "renormalise" or rest == 0:
        p = log_p.softmax(dim=-1)
        frame_loss = -(p * q_kept).sum(dim=-1)
    else:
        mass = torch.cat([teacher[..., kept:], tail_logmass.float()[..., None]], dim=-1).logsumexp(dim=-1)
        even = torch.log(torch.tensor(float(rest)))
        log_rest = even + (mass - even) / temperature
        p = torch.cat([log_p, log_rest[..., None]], dim=-1).softmax(dim=-1)
        if tail == "bucket":
            hidden = torch.zeros_like(log_q, dtype=torch.bool).scatter(-1, ids, True)
            q_rest = log_q.masked_fill(hidden, float("-inf")).logsumexp(dim=-1)
        else:
            q_rest = (log_q.sum(dim=-1) - q_kept.sum(dim=-1)) / rest
        frame_loss = -(p[..., :-1] * q_kept).sum(dim=-1) - p[..., -1] * q_rest
    valid = torch.arange(log_probs.shape[1], device=lengths.device)[None] < lengths[:, None]
    return torch.where(valid, frame_loss, 0.0).sum() / valid.sum()


def expected_errors(
    log_probs: Tensor,
    lengths: Tensor,
    hypotheses: Sequence[Sequence[Sequence[int]]],
    errors: Sequence[Sequence[float]],
) -> Tensor:
    """Return the expected number of word errors over n-best lists, relative to their mean (scalar, mean over B).

    ``hypotheses[b][n]`` are unit numbers, ``errors[b][n]`` the word errors of that hypothesis. Each list's
    probabilities are its CTC likelihoods normalised over the list, and the list's mean error is subtracted to lower
    the variance (Prabhavalkar et al., ICASSP 2018, eq. 5). Utterances with fewer than two hypotheses add 0.
    """
    rows = [b for b, hyps in enumerate(hypotheses) for _ in hyps]
    flat = [hyp for hyps in hypotheses for hyp in hyps]
    if not flat:
        return log_probs.sum() * 0.0
    index = torch.tensor(rows, device=log_probs.device)
    scores = -ctc_nll(log_probs[index], lengths[index], flat)
    widest = max(len(hyps) for hyps in hypotheses)
    place = torch.tensor(
        [b * widest + n for b, hyps in enumerate(hypotheses) for n in range(len(hyps))], device=log_probs.device
    )
    shape = (len(hypotheses), widest)
    flat_scores = torch.full((shape[0] * widest,), float("-inf"), device=log_probs.device).to(scores.dtype)
    table = flat_scores.index_put((place,), scores).view(shape)
    table = torch.where(torch.isfinite(table).any(dim=1, keepdim=True), table, 0.0)
    centred = torch.zeros(shape)
    for b, wrong in enumerate(errors):
        if wrong:
            values = torch.tensor([float(w) for w in wrong])
            centred[b, : len(wrong)] = values - values.mean()
    return (table.softmax(dim=1) * centred.to(table)).sum() / len(hypotheses)
