"""Forced alignment: which frames of a recording speak which words of its text, by a CTC model's probabilities.

The best path through the text's units is that of Viterbi over CTC's states (Graves et al., ICML 2006), as in
CTC-segmentation (Kürzinger et al., SPECOM 2020), with two ways out for texts that are not quite what is said: between
words, speech may be passed over that the text does not have, as by the star of Pratap et al. (2023); and words may be
passed over that are not spoken.

Memory does not grow with a recording: a window of frames is aligned with the next units of the text, the path is kept
up to a place between two words near its middle, and the next window begins there. A window has a byte of back pointers
for each pair of a frame and a unit, :data:`WINDOW` x :data:`BAND` (8 MiB), and two for each pair of a frame and a word.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from pydantic import Field

from gristmill.models.speech.transcript import Transcript
from gristmill.shards.settings import Settings

WINDOW = 2048  # frames: of speech only, a minute at 33 a second
BAND = 4096  # units of the text that a window may reach: more than it can speak, so that unspoken text is passed over
NEVER = np.float32(-np.inf)
_LEAST = -30.0  # nats: of a probability that is 0


class PathSettings(Settings):
    """What it costs to pass over speech or text."""

    wild: float = Field(5.0, gt=0)
    """Nats a unit that is heard and not in the text."""
    skip: float = Field(50.0, gt=0)
    """Nats each time that words are passed over which are not heard."""
    skip_unit: float = Field(1.0, ge=0)
    """Nats for each of their units."""
    broken: float = Field(10.0, ge=0)
    """Nats for a pause of a second or more within a sentence, and the less the shorter it is: where a weak model hears
    a pause a word too early or too late, it is the sentence's end."""


class Path(NamedTuple):
    """A path of frames (T,): states, 2 i before unit i and 2 i + 1 in it, and to which word each frame jumps, or -1."""

    states: np.ndarray
    jumps: np.ndarray


class Breaks(NamedTuple):
    """What frames (T,) cost before the words (words + 1,) at which ``inner`` is 1 and not 0: those amid a sentence."""

    prices: np.ndarray
    inner: np.ndarray


def blank_scores(log_probs: np.ndarray, space: int | None, wild: float) -> tuple[np.ndarray, np.ndarray]:
    """Return how well frames of log-probabilities (T, V) fit within words and between them: (T,) each, nats.

    Between words a frame is a blank, or the unit ``space``, or speech without text: the likeliest unit, at the price of
    ``wild`` for as much of it as is neither. In a word it is a blank, at half that price beside: words would else be
    spread over speech without text.
    """
    silent = log_probs[:, 0] if space is None else np.maximum(log_probs[:, 0], log_probs[:, space])
    quiet = np.exp(log_probs[:, 0]) + (0.0 if space is None else np.exp(log_probs[:, space]))
    price = wild * np.maximum(1 - quiet, 0.0)
    return log_probs[:, 0] - price / 2, np.maximum(silent, log_probs.max(axis=1) - price)


def viterbi(
    log_probs: np.ndarray,
    units: np.ndarray,
    starts: np.ndarray,
    gaps: np.ndarray,
    settings: PathSettings,
    breaks: Breaks | None = None,
    *,
    to_end: bool = True,
) -> Path:
    """Return the best path of frames with log-probabilities (T, V) through a text's units (n,).

    ``starts`` (words + 1,) are the first units of words, and n; ``gaps`` (T,) the scores of frames between words
    (:func:`blank_scores`); ``breaks`` what pauses cost. The path begins before the first word, and with ``to_end`` ends
    behind the last.

    Example:
        >>> log_probs = np.log(np.array([[0.1, 0.8, 0.1], [0.8, 0.1, 0.1], [0.1, 0.1, 0.8]], np.float32))
        >>> viterbi(log_probs, np.array([1, 2]), np.array([0, 2]), log_probs[:, 0], PathSettings()).states.tolist()
        [1, 2, 3]
    """
    count, size, words = len(log_probs), len(units), len(starts)
    before, inside = np.full(size + 1, NEVER), np.full(size, NEVER)  # scores of states before units, and in them
    before[0] = 0.0
    other = np.zeros(size, bool)  # units unlike the one before, which need no blank between
    other[1:] = units[1:] != units[:-1]
    ahead, places = starts[1:], np.arange(words, dtype=np.int16)
    paid = np.float32(settings.skip_unit) * starts.astype(np.float32)
    back = np.zeros((count, size + 1), np.uint8)
    sources = np.full((count, words), -1, np.int16)
    follows = np.full(size, NEVER)
    breaks = breaks or Breaks(np.zeros(count, np.float32), np.zeros(words, np.float32))
    for frame, gap, price, pointers, origins in zip(log_probs, gaps, breaks.prices, back, sources, strict=True):
        np.copyto(follows[1:], inside[:-1])
        follows[~other] = NEVER
        best = np.maximum(inside, before[:-1])
        pointers[:-1] = np.where(follows > best, 2, before[:-1] > inside)
        pointers[1:] += np.where(inside > before[1:], np.uint8(4), np.uint8(0))
        np.maximum(before[1:], inside, out=before[1:])
        before += frame[0]
        before[starts] += gap - frame[0] - price * breaks.inner
        inside = np.maximum(best, follows) + frame[units]
        at = before[starts] + paid
        top = np.maximum.accumulate(at)
        moved = top[:-1] - np.float32(settings.skip) - paid[1:]
        better = moved > before[ahead]
        if better.any():
            highest = np.maximum.accumulate(np.where(at >= top, places, 0))
            origins[1:][better] = highest[:-1][better]
            before[ahead] = np.maximum(before[ahead], moved)
    if to_end:
        state = 2 * size if before[size] >= inside[-1] else 2 * size - 1
    else:
        state = 2 * int(before.argmax()) if before.max() >= inside.max() else 2 * int(inside.argmax()) + 1
    return _traced(state, starts, back, sources)


def _traced(state: int, starts: np.ndarray, back: np.ndarray, sources: np.ndarray) -> Path:
    """Return the path that ends in a state."""
    word_of = {int(start): word for word, start in enumerate(starts)}
    states, jumps = np.zeros(len(back), np.int64), np.full(len(back), -1, np.int64)
    for frame in range(len(back) - 1, -1, -1):
        unit = state >> 1
        if not state & 1 and unit in word_of and sources[frame, word_of[unit]] >= 0:
            jumps[frame] = word_of[unit]
            unit = int(starts[sources[frame, word_of[unit]]])
            state = 2 * unit
        states[frame] = state
        pointer = int(back[frame, unit])
        if state & 1:
            state -= pointer & 3
        elif pointer & 4:
            state -= 1
    return Path(states, jumps)


class Alignment(NamedTuple):
    """The first frames of units (n,), -1 if not heard, and what each frame (T,) loses, nats.

    ``loss`` is the path's, against the likeliest unit of each frame, with what it pays for passing over words.
    """

    frames: np.ndarray
    loss: np.ndarray

    def words(self, first: np.ndarray, leap: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the first frames of words, and those after the first frames of their last units; -1 if not heard.

        ``first`` (words + 1,) are the words' first units. A first or last unit that is more than ``leap`` frames from
        the next one is not counted: a noise that passes for a letter.
        """
        if len(first) < 2:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        frames, start, last = self.frames, first[:-1], first[1:] - 1
        is_long = last - start >= 2
        second, before = np.minimum(start + 1, last), np.maximum(last - 1, start)
        begin = np.where(is_long & (frames[second] - frames[start] > leap), frames[second], frames[start])
        end = np.where(is_long & (frames[last] - frames[before] > leap), frames[before], frames[last]) + 1
        heard = (frames[start] >= 0) & (frames[last] >= 0)
        return np.where(heard, begin, -1), np.where(heard, end, -1)


class Aligner:
    """Aligns frames, given piece by piece, with a text."""

    def __init__(self, text: Transcript, settings: PathSettings, *, window: int = WINDOW, band: int = BAND) -> None:
        self._text, self._settings, self._size, self._band = text, settings, window, band
        self._frames = np.full(len(text.units), -1, np.int64)
        ends = [True, *(text.ends_sentence(word) for word in range(len(text) - 1)), True]
        self._inner = np.logical_not(ends).astype(np.float32)
        self._loss: list[np.ndarray] = []
        self._held: list[np.ndarray] = []
        self._word = self._frame = 0  # where the path has got to

    def add(self, log_probs: np.ndarray) -> None:
        """Take the next frames' log-probabilities (T, V)."""
        self._held.append(np.maximum(log_probs, _LEAST).astype(np.float32))
        while sum(map(len, self._held)) >= self._size:
            self._solve(self._size, to_end=False)

    def pause(self, length: float) -> None:
        """Take a frame that stands for a silence of so many seconds, in which no word is."""
        row = np.full((1, self._held[-1].shape[1]), np.nan, np.float32)
        row[0, 1] = self._settings.broken * min(1.0, length)
        self._held.append(row)

    def finish(self) -> Alignment:
        """Return the alignment of all frames."""
        if left := sum(map(len, self._held)):
            self._solve(left, to_end=True)
        loss = np.concatenate(self._loss) if self._loss else np.zeros(0, np.float32)
        return Alignment(self._frames, loss)

    def _solve(self, count: int, *, to_end: bool) -> None:
        held = np.concatenate(self._held)
        log_probs, gaps, prices = self._scores(held[:count])
        first, word = self._text.first, self._word
        last = max(word + 1, int(np.searchsorted(first, first[word] + self._band, "right")) - 1)
        last = min(last, len(self._text))
        if word == last:  # all words are placed
            self._loss.append(-gaps)
            taken = count
        else:
            starts = first[word : last + 1] - first[word]
            units = self._text.units[first[word] : first[last]]
            breaks = Breaks(prices, self._inner[word : last + 1])
            path = viterbi(log_probs, units, starts, gaps, self._settings, breaks, to_end=to_end)
            at = np.where(path.jumps >= 0, path.jumps, _word_at(path.states, starts))
            taken = count if to_end else _middle(at)
            self._keep(Path(path.states[:taken], path.jumps[:taken]), log_probs, gaps, units, starts)
            reached = int(at[taken - 1])
            self._word += (
                reached if reached >= 0 else int(np.searchsorted(starts, path.states[taken - 1] >> 1, "right"))
            )
        self._frame += taken
        self._held = [held[taken:]]

    def _scores(self, held: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the scores of units (T, V) and of gaps (T,), beside the likeliest unit of each frame, and the prices
        of pauses (T,)."""
        pauses, best = np.isnan(held[:, 0]), held.max(axis=1)
        prices = np.where(pauses, held[:, 1], np.float32(0))
        blanks, gaps = blank_scores(held, self._text.space, self._settings.wild)
        log_probs, gaps = held - best[:, None], gaps - best
        log_probs[:, 0] = blanks - best
        log_probs[pauses], gaps[pauses] = _LEAST, 0.0
        return log_probs, gaps, prices

    def _keep(self, path: Path, log_probs: np.ndarray, gaps: np.ndarray, units: np.ndarray, starts: np.ndarray) -> None:
        spoken = np.flatnonzero(path.states & 1)
        unit = path.states >> 1
        fresh = spoken[np.diff(unit[spoken], prepend=-1) > 0]  # the first frame of each unit
        self._frames[self._text.first[self._word] + unit[fresh]] = self._frame + fresh
        frames = np.arange(len(path.states))
        score = np.where(_word_at(path.states, starts) >= 0, gaps[: len(frames)], log_probs[: len(frames), 0])
        score[spoken] = log_probs[spoken, units[unit[spoken]]]
        for frame in np.flatnonzero(path.jumps >= 0):
            length = starts[path.jumps[frame]] - unit[frame]
            score[frame] -= self._settings.skip + self._settings.skip_unit * length
        self._loss.append(-score)


def _word_at(states: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return the word that each state (T,) lies before, -1 within a word."""
    word = np.searchsorted(starts, states >> 1)
    return np.where((states & 1 == 0) & (starts[np.minimum(word, len(starts) - 1)] == states >> 1), word, -1)


def _middle(at: np.ndarray) -> int:
    """Return how many frames to keep of a window: up to the place between two words that is nearest to its middle."""
    between = np.flatnonzero(at >= 0) + 1
    if not len(between) or between[-1] < len(at) // 4:  # all of it in one word: nothing is gained by waiting
        return len(at)
    return int(between[np.abs(between - len(at) // 2).argmin()])
