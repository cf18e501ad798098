"""Significance of differences in word error: block bootstrap intervals and the matched-pairs test.

Bootstrap: utterances of one speaker are not independent, so whole speakers are resampled (Liu and Peng,
"Statistical Testing on ASR Performance via Blockwise Bootstrap", Interspeech 2020; for utterances: Bisani and
Ney, ICASSP 2004). With fewer than ``min_speakers`` speakers there are too few blocks for the nominal coverage;
then utterances are resampled within each speaker, and the interval holds for these speakers only. Several
training seeds are a second factor, resampled independently of the speakers (Owen, "The pigeonhole bootstrap",
2007), so that the interval covers both the choice of test speech and the randomness of training. Utterances of
unknown speakers are blocks by themselves.

MAPSSWE: Gillick and Cox, ICASSP 1989, segmented as in NIST's SCTK.

Several comparisons are one family: its p-values are corrected by Holm's step-down procedure (Scandinavian Journal of
Statistics, 1979), which bounds the chance of any false claim, whatever the dependence between the comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from gristmill.models.measures.wer import CORRECT, INSERTED, UNKNOWN, WerResult
from gristmill.shards.errors import UserError


class Counted(Protocol):
    """Errors, or other additive counts, of each utterance, and the words that they are divided by."""

    @property
    def errors(self) -> np.ndarray:
        """The counts, (utterances,)."""
        ...

    @property
    def words(self) -> np.ndarray:
        """Words, (utterances,) int64."""
        ...

    @property
    def speakers(self) -> tuple[str, ...]:
        """The speaker of each utterance, (utterances,)."""
        ...


@dataclass(frozen=True)
class Ratio:
    """Additive counts of each utterance of which one sum is divided by the other, such as those of precision or F1.

    Unlike the words of a test set, what is divided by may differ between systems and seeds.
    """

    errors: np.ndarray  # (utterances,)
    words: np.ndarray  # (utterances,), what they are divided by
    speakers: tuple[str, ...]  # (utterances,)

    @property
    def value(self) -> float:
        """The ratio of the sums; not a number where there is nothing to divide by."""
        total = float(self.words.sum())
        return float(self.errors.sum()) / total if total else math.nan


C = TypeVar("C", bound=Counted)
Runs = Mapping[int, WerResult]  # one system on one test set, by training seed

MIN_SPEAKERS = 10
_CHUNK = 4_000_000  # draws held in memory at once


@dataclass(frozen=True)
class Interval:
    """A value with its percentile bootstrap interval."""

    value: float
    low: float
    high: float
    blocks: str  # "speakers", "utterances within speakers" where there are few, "utterances" where none is known


@dataclass(frozen=True)
class Paired:
    """The change of a system's error rate against that of another on the same utterances."""

    difference: Interval  # of the two rates
    relative: Interval | None  # rate / the other's rate - 1; None where the other makes no error
    p: float  # two-sided, of no difference: at least 2 / (replicates + 1)


@dataclass(frozen=True)
class Mapsswe:
    """The matched-pairs sentence-segment word-error test of system a against system b."""

    z: float  # below 0: a makes fewer errors
    p: float  # two-sided
    segments: int
    mean: float  # errors of a minus errors of b, per segment


def wer_interval(
    runs: Mapping[int, C],
    measure: Callable[[C], np.ndarray] | None = None,
    *,
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    min_speakers: int = MIN_SPEAKERS,
) -> Interval:
    """Return the rate averaged over all seeds, and its interval.

    ``measure`` returns the counts to divide by the reference words, (utterances,); all errors by default. The
    draws depend only on ``seed`` and the speakers, so systems on one test set get the same replicates.

    Example:
        >>> from gristmill.models.measures.wer import score
        >>> result = score(["turn on the lights"] * 20, ["turn on lights", "turn on the lights"] * 10)
        >>> found = wer_interval({0: result})
        >>> round(found.value, 3), round(found.low, 3), round(found.high, 3), found.blocks
        (0.125, 0.075, 0.175, 'utterances')
    """
    boot = _Bootstrap(runs, replicates, seed, min_speakers)
    rates = boot.rates(_counts(runs, measure), _words(runs), _seed_weights(len(runs), replicates, seed))
    return _interval(rates, level, boot.blocks)


def paired_change(
    runs: Mapping[int, Counted],
    baseline: Mapping[int, Counted],
    *,
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    min_speakers: int = MIN_SPEAKERS,
) -> Paired:
    """Return the difference and the relative change of two error rates, and its p-value, by paired bootstrap.

    Both systems are scored on the same resampled utterances. Where both were trained with the same seeds,
    a seed is drawn for both at once (a student and its own teacher); otherwise seeds are drawn independently.

    Example:
        >>> from gristmill.models.measures.wer import score
        >>> texts = ["turn on the lights"] * 20
        >>> ours, base = score(texts, texts), score(texts, ["turn on lights", "turn on the lights"] * 10)
        >>> found = paired_change({0: ours}, {0: base})
        >>> found.difference.value, found.relative.value, round(found.p, 4)
        (-0.125, -1.0, 0.001)
    """
    _same_test_set(runs, baseline)
    boot = _Bootstrap(runs, replicates, seed, min_speakers)
    paired = list(runs) == list(baseline)
    mine = boot.rates(_counts(runs), _words(runs), _seed_weights(len(runs), replicates, seed))
    weights = _seed_weights(len(baseline), replicates, seed + (not paired))
    theirs = boot.rates(_counts(baseline), _words(baseline), weights)
    difference = mine - theirs
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = mine / theirs - 1
    drawn = difference[1:][np.isfinite(difference[1:])]
    fewest = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return Paired(
        _interval(difference, level, boot.blocks),
        _interval(relative, level, boot.blocks) if theirs[0] else None,
        min(1.0, 2 * (1 + fewest) / (1 + len(drawn))),
    )


def relative_interval(runs: Mapping[int, Counted], baseline: Mapping[int, Counted], **settings: Any) -> Interval:
    """Return the relative change of :func:`paired_change`, whose ``settings`` it takes.

    Raises:
        UserError: the baseline makes no error.
    """
    change = paired_change(runs, baseline, **settings).relative
    if change is None:
        raise UserError("relative change: the baseline makes no error on this test set, so there is none")
    return change


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values of a family of comparisons corrected for their number, in the order given (Holm, 1979).

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    corrected, most = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        most = max(most, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = most
    return corrected


def interval_p(value: float, low: float, high: float) -> float:
    """Return the two-sided p-value of a 95 % interval of a change, as of a normal estimate (Altman and Bland, 2011).

    Example:
        >>> round(interval_p(-0.10, -0.20, 0.0), 3), interval_p(0.0, 0.0, 0.0)
        (0.05, 1.0)
    """
    if value == 0:
        return 1.0
    error = (high - low) / (2 * 1.959963984540054)
    return math.erfc(abs(value) / error / math.sqrt(2)) if error else 0.0


def mapsswe(a: WerResult, b: WerResult, min_good: int = 2) -> Mapsswe:
    """Test whether two systems differ on the same utterances.

    An utterance is cut where both systems have at least ``min_good`` correct words in a row; of the segments
    between, those with an error are the pairs. Unlike SCTK, words that only one system inserts at the very end
    of an utterance count for either system. The normal approximation needs some 50 segments or more; where all
    segments have the same difference, p is that of the sign test.

    Example:
        >>> from gristmill.models.measures.wer import score
        >>> texts = ["turn on the lights"] * 60
        >>> better, worse = score(texts, texts), score(texts, ["on the lights", "on the", "lights"] * 20)
        >>> test = mapsswe(better, worse)
        >>> test.segments, round(test.mean, 2), test.p < 0.001
        (80, -1.5, True)
    """
    _same_test_set({0: a}, {0: b})
    pairs = [p for x, y in zip(a.alignments, b.alignments, strict=True) for p in segments(x, y, min_good)]
    difference = np.array([x - y for x, y in pairs], float)
    n = len(difference)
    if not n or not difference.any():
        return Mapsswe(0.0, 1.0, n, 0.0)
    mean = float(difference.mean())
    spread = float(difference.std(ddof=1)) if n > 1 else 0.0
    if spread == 0.0:
        return Mapsswe(math.copysign(math.sqrt(n), mean), 2.0 ** (1 - n), n, mean)
    z = mean / (spread / math.sqrt(n))
    return Mapsswe(z, math.erfc(abs(z) / math.sqrt(2)), n, mean)


def segments(a: str, b: str, min_good: int = 2) -> list[tuple[int, int]]:
    """Return the errors of two systems in each segment of an utterance, from their aligned letters."""
    if set(a) <= {CORRECT} and set(b) <= {CORRECT}:
        return []
    found: list[tuple[int, int]] = []
    errors_a = errors_b = good = 0
    for (added_a, wrong_a), (added_b, wrong_b) in zip(_slots(a), _slots(b), strict=True):
        if added_a or added_b:
            good = 0
        errors_a += added_a + wrong_a
        errors_b += added_b + wrong_b
        good = 0 if wrong_a or wrong_b else good + 1
        if good >= min_good and (errors_a or errors_b):
            found.append((errors_a, errors_b))
            errors_a = errors_b = 0
    if errors_a or errors_b:
        found.append((errors_a, errors_b))
    return found


def _slots(letters: str) -> list[tuple[int, int]]:
    """Return (words inserted before, whether it is wrong) of each reference word, and of the end."""
    slots, added = [], 0
    for letter in letters:
        if letter == INSERTED:
            added += 1
        else:
            slots.append((added, int(letter != CORRECT)))
            added = 0
    return [*slots, (added, 0)]


class _Bootstrap:
    """Resamples the blocks of one test set; row 0 of every result is the set itself."""

    def __init__(self, runs: Mapping[int, Counted], replicates: int, seed: int, min_speakers: int) -> None:
        first = next(iter(runs.values()))
        _same_test_set(runs, runs)
        unknown = np.array([name.startswith(UNKNOWN) for name in first.speakers])
        names, speaker = np.unique(np.array(first.speakers), return_inverse=True)
        if len(names) >= min_speakers and not unknown.all():
            self.blocks = "speakers"
            self._unit = speaker
            start, size = np.zeros(len(names), np.int64), np.full(len(names), len(names))
        else:
            self.blocks = "utterances" if unknown.all() else "utterances within speakers"
            # Utterances of unknown speakers are drawn for one another.
            _, speaker = np.unique(np.where(unknown, -1, speaker), return_inverse=True)
            self._unit = np.argsort(np.argsort(speaker, kind="stable"))
            per_speaker = np.bincount(speaker)
            size = np.repeat(per_speaker, per_speaker)
            start = np.repeat(np.cumsum(per_speaker) - per_speaker, per_speaker)
        self._start, self._size = start, size
        self._replicates, self._seed = replicates, seed

    def rates(self, counts: np.ndarray, words: np.ndarray, seed_weights: np.ndarray) -> np.ndarray:
        """Return the rate of each replicate from counts and words, (seeds, utterances) each; (1 + replicates,)."""
        units = len(self._start)
        columns = np.stack([np.bincount(self._unit, c, units) for c in (*counts, *words)], 1)
        sums = np.concatenate([columns.sum(0, keepdims=True), self._resample(columns)])
        with np.errstate(divide="ignore", invalid="ignore"):
            return (sums[:, : len(counts)] / sums[:, len(counts) :] * seed_weights).sum(1)

    def _resample(self, columns: np.ndarray) -> np.ndarray:
        rng = np.random.Generator(np.random.Philox(self._seed))
        units = len(columns)
        step = max(1, _CHUNK // max(1, units))
        sums = []
        for first in range(0, self._replicates, step):
            rows = min(step, self._replicates - first)
            drawn = self._start + (rng.random((rows, units)) * self._size).astype(np.int64)
            drawn += np.arange(rows)[:, None] * units
            times = np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units)
            sums.append(times @ columns)
        return np.concatenate(sums)


def _seed_weights(seeds: int, replicates: int, seed: int) -> np.ndarray:
    """Weight of each training seed in each replicate, (1 + replicates, seeds); rows sum to 1."""
    rng = np.random.Generator(np.random.Philox(key=[seed, 1]))
    drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=replicates)
    return np.concatenate([np.ones((1, seeds)), drawn]) / seeds


def _counts(runs: Mapping[int, C], measure: Callable[[C], np.ndarray] | None = None) -> np.ndarray:
    return np.stack([measure(r) if measure else r.errors for r in runs.values()])


def _words(runs: Mapping[int, Counted]) -> np.ndarray:
    return np.stack([r.words for r in runs.values()])


def _interval(rates: np.ndarray, level: float, blocks: str) -> Interval:
    tail = 100 * (1 - level) / 2
    drawn = rates[1:][np.isfinite(rates[1:])]  # a replicate may have no word, or no error of the baseline
    if not len(drawn):
        return Interval(float(rates[0]), math.nan, math.nan, blocks)
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Interval(float(rates[0]), float(low), float(high), blocks)


def _same_test_set(runs: Mapping[int, Counted], others: Mapping[int, Counted]) -> None:
    results: Sequence[Counted] = [*runs.values(), *others.values()]
    first = results[0]
    for result in results[1:]:
        same_words = isinstance(result, Ratio) or np.array_equal(result.words, first.words)
        if result.speakers != first.speakers or not same_words:
            raise UserError("comparison: the systems were not scored on the same utterances in the same order")
