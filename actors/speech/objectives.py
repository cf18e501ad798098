"""Objectives of acoustic training: soft targets, CTC, and expected word errors, each with its weight and settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from gristmill.actors.speech.training_data import Batch
from gristmill.models.measures.wer import CORRECT, align
from gristmill.models.speech.acoustic import InnerHeadSettings
from gristmill.models.speech.decode import beam_search
from gristmill.models.speech.losses import (
    ExpectedErrorSettings,
    SoftTargetSettings,
    ctc_loss,
    expected_errors,
    soft_target_loss,
)
from gristmill.models.speech.units import Units

Output = tuple[Tensor, ...]  # log-probabilities (B, T', V), lengths (B,), and those of inner heads


class SpeechObjective(Protocol):
    """An objective of acoustic training; it applies to batches of sources that have what it ``needs``."""

    name: str
    needs: str  # text or labels
    weight: float

    def __call__(self, output: Output, batch: Batch) -> Tensor | None:
        """Return the weighted loss of a batch (scalar), or ``None``."""
        ...


class SoftTargets:
    """Cross entropy with the teacher's stored labels; ``mixed`` with another objective, times their temperature's
    square (Hinton et al., 2015)."""

    name = "soft"
    needs = "labels"

    def __init__(self, weight: float, settings: SoftTargetSettings, *, mixed: bool) -> None:
        self.weight, self.settings = weight, settings
        self.scale = settings.temperature**2 if mixed else 1.0

    def __call__(self, output: Output, batch: Batch) -> Tensor | None:
        """Return the weighted loss of a batch with labels."""
        if batch.topk_ids is None or batch.topk_logprobs is None or batch.tail_logmass is None:
            return None
        labels = (batch.topk_ids, batch.topk_logprobs, batch.tail_logmass)
        ids, logprobs, tail = (one.to(output[0].device) for one in labels)
        return self.weight * soft_target_loss(output[0], output[1], ids, logprobs, tail, self.settings) * self.scale


class Ctc:
    """CTC on the text."""

    name = "ctc"
    needs = "text"

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(self, output: Output, batch: Batch) -> Tensor | None:
        """Return the weighted loss of a batch with text."""
        return None if batch.targets is None else self.weight * ctc_loss(output[0], output[1], batch.targets)


class InnerCtc:
    """CTC of the inner heads, on the text in units or in phones: the mean of their losses (Lee and Watanabe, 2021)."""

    name = "inner"
    needs = "text"

    def __init__(self, weight: float, heads: Sequence[InnerHeadSettings]) -> None:
        self.weight, self.heads = weight, heads

    def __call__(self, output: Output, batch: Batch) -> Tensor | None:
        """Return the weighted loss of a batch with text."""
        targets = {"units": batch.targets, "phones": batch.phones}
        losses = [
            ctc_loss(log_probs, output[1], found)
            for head, log_probs in zip(self.heads, output[2:], strict=True)
            if (found := targets[head.of]) is not None
        ]
        return self.weight * sum(losses[1:], start=losses[0]) / len(losses) if losses else None


class WordErrors:
    """Expected word errors per reference word, over n-best lists of the current model."""

    name = "mwer"
    needs = "text"

    def __init__(self, weight: float, settings: ExpectedErrorSettings, units: Units) -> None:
        self.weight, self.settings, self.units = weight, settings, units

    def __call__(self, output: Output, batch: Batch) -> Tensor | None:
        """Return the weighted loss of a batch with text."""
        return None if batch.targets is None else self.weight * self._expected(output[0], output[1], batch.targets)

    def _expected(self, log_probs: Tensor, lengths: Tensor, targets: list[list[int]]) -> Tensor:
        # The text as the units spell it: characters that no hypothesis can contain, such as capitals, are not errors.
        texts = [self.units.decode(target).split() for target in targets]
        scores = log_probs.detach().float().cpu().numpy()
        hypotheses, errors = [], []
        for row, count, words in zip(scores, lengths.tolist(), texts, strict=True):
            found = beam_search(row[:count], self.settings.beam, nbest=self.settings.nbest)
            hypotheses.append([h.units for h in found])
            letters = [align(words, self.units.decode(h.units).split()) for h in found]
            errors.append([float(len(aligned) - aligned.count(CORRECT)) for aligned in letters])
        spoken = max(1, sum(map(len, texts)))
        return expected_errors(log_probs, lengths, hypotheses, errors) * (len(texts) / spoken)
