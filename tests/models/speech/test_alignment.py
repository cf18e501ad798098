"""Forced alignment: the best of all paths, window by window, past speech without text and text without speech."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from gristmill.models.speech.alignment import Aligner, Alignment, Breaks, PathSettings, blank_scores, viterbi
from gristmill.models.speech.transcript import CutSettings, Transcript, find_cuts
from gristmill.models.speech.units import characters

UNITS = characters(["abcdefgh"])
CHEAP = PathSettings(wild=0.5, skip=0.7, skip_unit=0.1)


def score_in(frame: int, state: int, log_probs, units, starts, gaps) -> float:
    unit = state >> 1
    if state & 1:
        return log_probs[frame, units[unit]]
    return gaps[unit][frame] if unit in starts else log_probs[frame, 0]


def best_score(log_probs, units, starts, gaps, settings: PathSettings, to_end: bool) -> float:
    """Return the score of the best of all paths, by trying each; ``gaps`` (T,) are by the unit that follows."""
    size = len(units)

    def enter(frame: int, state: int) -> float:
        """Return the best score of frames from ``frame`` on, of which that one is in ``state``."""
        return score_in(frame, state, log_probs, units, starts, gaps) + leave(frame, state)

    @cache
    def leave(frame: int, state: int) -> float:
        unit = state >> 1
        found = [go_on(frame, state)]
        if not state & 1 and unit in starts:
            ahead = [start for start in starts if start > unit]
            found += [go_on(frame, 2 * start) - settings.skip - settings.skip_unit * (start - unit) for start in ahead]
        return max(found)

    @cache
    def go_on(frame: int, state: int) -> float:
        if frame + 1 == len(log_probs):
            return 0.0 if not to_end or state >= 2 * size - 1 else -np.inf
        after = [state, state + 1] if state < 2 * size else [state]
        if state & 1 and state + 2 < 2 * size and units[state >> 1] != units[(state >> 1) + 1]:
            after.append(state + 2)
        return max(enter(frame + 1, one) for one in after)

    return max(enter(0, 0), enter(0, 1))


def score_of(path, log_probs, units, starts, gaps, settings: PathSettings) -> float:
    total = 0.0
    for frame, (state, jump) in enumerate(zip(path.states, path.jumps, strict=True)):
        unit = state >> 1
        total += score_in(frame, state, log_probs, units, starts, gaps)
        if jump >= 0:
            total -= settings.skip + settings.skip_unit * (starts[jump] - unit)
    return total


@pytest.mark.parametrize("to_end", [True, False])
def test_the_path_is_the_best_of_all(to_end: bool) -> None:
    rng = np.random.default_rng(4)
    jumped = 0
    for _ in range(60):
        frames, words = rng.integers(3, 8), rng.integers(1, 4)
        starts = np.concatenate([[0], np.cumsum(rng.integers(1, 3, words))])
        units = rng.integers(1, 4, starts[-1])
        log_probs = np.log(rng.dirichlet(np.full(4, 0.4), frames) + 1e-9).astype(np.float32)
        log_probs[:, 0], gaps = blank_scores(log_probs, None, CHEAP.wild)
        breaks = Breaks(rng.choice([0, 1], frames).astype(np.float32), rng.choice([0, 1], words + 1).astype(np.float32))
        path = viterbi(log_probs, units, starts, gaps, CHEAP, breaks, to_end=to_end)
        paid = {int(start): gaps - breaks.prices * inner for start, inner in zip(starts, breaks.inner, strict=True)}
        wanted = best_score(log_probs, units, starts, paid, CHEAP, to_end)
        assert score_of(path, log_probs, units, starts, paid, CHEAP) == pytest.approx(wanted, abs=1e-3)
        jumped += (path.jumps >= 0).any()
    assert jumped > (5 if to_end else 0)


def said(text: str, rng: np.random.Generator, sure: float = 0.9) -> np.ndarray:
    """Return log-probabilities (T, V) in which each letter is heard for two frames, with blanks between."""
    rows = []
    for letter in text:
        unit = UNITS.tokens.index(letter)
        rows += [unit, unit, 0] if letter != " " else [0, unit, 0, 0]
    probs = rng.dirichlet(np.ones(len(UNITS)), len(rows)) * (1 - sure)
    probs[np.arange(len(rows)), rows] += sure
    return np.log(probs).astype(np.float32)


def spelled(rng: np.random.Generator, words: int) -> str:
    return " ".join("".join(rng.choice(list("abcdefgh"), rng.integers(2, 7))) for _ in range(words))


def aligned(text: str, heard: np.ndarray, **more: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the first frames of words, those after them, and what frames lose."""
    transcript = Transcript.of(text, UNITS)
    aligner = Aligner(transcript, PathSettings(), **more)
    for start in range(0, len(heard), 97):
        aligner.add(heard[start : start + 97])
    found = aligner.finish()
    return *found.words(transcript.first, 20), found.loss


def test_windows_give_what_one_would() -> None:
    rng = np.random.default_rng(1)
    text = spelled(rng, 60)
    heard = said(text, rng)
    begin, end, loss = aligned(text, heard, window=1 << 14, band=1 << 10)
    assert (begin >= 0).all()
    assert len(loss) == len(heard)
    for one, other in zip((begin, end, loss), aligned(text, heard, window=256, band=200), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-4)


def test_speech_without_text_and_text_without_speech_are_passed_over() -> None:
    rng = np.random.default_rng(2)
    parts = [spelled(rng, 12) for _ in range(4)]
    heard = [said(part + " ", rng) for part in parts]
    lengths = np.cumsum([0, *map(len, heard)])
    # The second is not in the text.
    begin, end, loss = aligned(" ".join([parts[0], *parts[2:]]), np.concatenate(heard))
    assert (begin >= 0).all()
    assert end[11] <= lengths[1] + 1
    assert begin[12] >= lengths[2] - 1
    assert loss[lengths[1] + 3 : lengths[2] - 3].mean() > 0.5 > 10 * loss[: lengths[1] - 3].mean()
    # The second is not said.
    begin, _, _ = aligned(" ".join(parts), np.concatenate([heard[0], *heard[2:]]))
    assert (begin[12:24] == -1).all()
    assert (begin[:12] >= 0).all()
    assert (begin[24:] >= 0).all()


def test_another_text_loses_much() -> None:
    rng = np.random.default_rng(3)
    text = spelled(rng, 40)
    begin, _, loss = aligned(text, said(spelled(rng, 40), rng))
    assert (begin < 0).sum() > 30 or loss.mean() > 0.5
    begin, end, loss = aligned(text, np.zeros((0, len(UNITS)), np.float32))
    assert (begin == -1).all()
    assert (end == -1).all()
    assert len(begin) == 40
    assert not len(loss)


def test_a_word_of_more_than_a_window_costs_itself() -> None:
    rng = np.random.default_rng(6)
    text = f"abcd {'abcdefgh' * 20} {spelled(rng, 20)}"
    begin, _, loss = aligned(text, said(text, rng), window=128, band=400)
    assert begin[0] >= 0
    assert begin[1] == -1
    assert (begin[-10:] >= 0).all()
    assert len(loss) == len(said(text, rng))


def test_no_word_spans_a_pause() -> None:
    rng = np.random.default_rng(5)
    heard = said("abcd efgh", rng)
    heard = np.concatenate([heard[:12], np.repeat(heard[2:3], 3, axis=0), heard[12:]])
    transcript = Transcript.of("abcd efgh", UNITS)
    aligner = Aligner(transcript, PathSettings())
    aligner.add(heard[:13])
    aligner.pause(0.5)
    aligner.add(heard[13:])
    begin, end = aligner.finish().words(transcript.first, 20)
    assert end[0] <= 13
    assert begin[1] >= 14


@pytest.mark.parametrize(("text", "before"), [("abcd efgh. a bcde", 2), ("abcd efgh a bcde", 3)])
def test_a_long_pause_is_the_end_of_a_sentence_rather_than_a_word_behind_it(text: str, before: int) -> None:
    rng = np.random.default_rng(7)
    transcript = Transcript.of(text, UNITS)
    aligner = Aligner(transcript, PathSettings())
    first, second = said("abcd efgh ", rng), said("bcde", rng, 0.99)
    weak = np.log(np.full(len(UNITS), 1e-3, np.float32))
    weak[0], weak[UNITS.tokens.index("a")] = np.log(0.45), np.log(0.5)  # some breath that may be the word
    aligner.add(np.concatenate([first, weak[None]]))
    aligner.pause(0.8)
    aligner.add(second)
    begin, _ = aligner.finish().words(transcript.first, 20)
    assert (begin <= len(first)).sum() == before
    assert (begin >= 0).all()


def test_a_noise_that_passes_for_a_letter_is_no_part_of_a_word() -> None:
    found = Alignment(np.array([0, 30, 33, 40, 43, 80, 90, 130, -1, -1, -1]), np.zeros(0))
    first = np.array([0, 3, 6, 8, 11])
    begin, end = found.words(first, 10)
    assert begin.tolist() == [30, 40, 90, -1]
    assert end.tolist() == [34, 44, 131, -1]


def test_words_of_texts() -> None:
    units = characters(["stop it danger trail don't 好的走"])
    text = Transcript.of("  — Stop it!\n7 danger-trail… don't", units)
    assert [text.part(word, word + 1) for word in range(len(text))] == ["— Stop", "it! 7", "danger-", "trail…", "don't"]
    assert text.first.tolist() == [0, 4, 6, 12, 17, 22]
    assert units.decode(text.units) == "stopitdangertraildon't"
    assert [text.ends_sentence(word) for word in range(len(text))] == [False, False, False, True, False]
    assert len(Transcript.of("123 —", units)) == 0
    spaceless = Transcript.of("好的。走!", units)
    assert [spaceless.part(word, word + 1) for word in range(len(spaceless))] == ["好", "的。", "走!"]
    assert spaceless.part(0, 2) == "好的。"


def test_utterances_end_with_sentences_at_pauses() -> None:
    units = characters(["abcdefgh."])
    text = Transcript.of("a b. c d e. f. g h", units)
    begin = np.array([0.0, 1, 2.5, 3.5, 4.5, 6, 8, 9])
    end = begin + np.array([1.0, 1, 1, 1, 1, 0.2, 1, 1])

    def cuts(begin: np.ndarray = begin, **settings: float) -> list[tuple[int, int]]:
        return find_cuts(text, begin, end + begin - begin, CutSettings(**settings))

    assert cuts() == [(0, 2), (2, 5), (5, 8)]  # "f." alone would be too short
    assert cuts(least=0.1) == [(0, 2), (2, 5), (5, 6), (6, 8)]
    assert cuts(pause=0.6) == [(0, 6), (6, 8)]
    assert cuts(silence=0.5, least=0.1) == [(0, 2), (2, 5), (5, 6), (6, 8)]
    assert cuts(pause=9, silence=0.5) == [(0, 2), (2, 5), (5, 8)]  # without sentences
    assert cuts(most=2.5) == [(0, 2), (2, 3), (3, 5), (5, 6), (6, 8)]
    unheard = begin.copy()
    unheard[2:5] = np.nan
    assert cuts(unheard) == [(0, 2), (2, 5), (5, 8)]
