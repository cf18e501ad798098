"""A user's words beside the hot words of peers: what is found in the same posteriors, with the same lists.

    python -m benchmarks.hot_words OUT [--sets n10,n100,n1000] [--peers FOLDER] [--slow 40] [--weights 5,10,15,25]

``OUT`` is the output of a finished ``personalise``: the base's posteriors of its test, its lists, and what its systems
heard with them, which is not decoded anew. ``--peers`` is a folder in which ctc-beam-decoder and pyctcdecode are
installed (``pip install --no-deps --target``, pyctcdecode with pygtrie); what is not installed is left out and told of.
Peers search with a beam of 100, their default, and KenLM's trigrams of the run's texts; the weight of hot words is
chosen on the run's development speech with lists of 100, by F1. Where the base hears phonemes, each is a letter for the
peers and the word boundary their space: hot words are pronounced, and of what is heard the word is told that is on the
list, or else the first one of the lexicon, with this pronunciation. pyctcdecode hears the first ``--slow`` utterances
with lists of at most 100; the other peer is made to find what it finds. NeMo's word spotter is not in a package
without NeMo.

Printed as JSON lines: rare-word F1 with its 95 % interval (bootstrap over utterances), precision, recall, U-WER and
WER in per cent, listed words that were not said in 100 utterances, and times real time of one thread from posteriors to
text, of processor time, with what is made of the list.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gristmill.actors.speech.personal_fits import utterances
from gristmill.actors.speech.personal_model import PersonalModel
from gristmill.actors.speech.personalise import WORDS_FILE
from gristmill.actors.speech.word_lists import WordLists, WordListSettings
from gristmill.models.measures.biasing import score_biasing
from gristmill.models.measures.significance import wer_interval
from gristmill.models.ngrams.estimate import NgramSettings, estimate
from gristmill.models.speech.units import WORD_BOUNDARY, normalise
from gristmill.pipelines.speech.recognisers import find_recogniser
from gristmill.shards.artifact import read_file

import numpy as np
import pyarrow as pa

from benchmarks.decoder import opened, said

PEERS = ("ctc_beam_decoder", "pyctcdecode")
SLOW, SLOW_LIST = "pyctcdecode", 100
OURS = ("base", "unigram", "decoder", "joint")
TUNED = 100  # words of the lists by which the weight is chosen
FIRST_LETTER = 0xE000  # of Unicode's private ones, which stand for phonemes
Search = Callable[[np.ndarray, Sequence[str], float], str]


class Spoken(NamedTuple):
    """Utterances with their posteriors and lists."""

    rows: list[dict[str, Any]]
    posteriors: list[np.ndarray]
    lists: list[list[str]]


class Alphabet:
    """What peers read: words as they would be spelled in the letters that stand for a model's units."""

    def __init__(self, model: PersonalModel) -> None:
        self.units, self.parts = model.base.info.units, model.recogniser.parts
        self.is_sound = self.units.kind == "phonemes"
        letters = [
            " " if one == WORD_BOUNDARY else chr(FIRST_LETTER + place) for place, one in enumerate(self.units.tokens)
        ]
        self.letter = dict(zip(self.units.tokens, letters if self.is_sound else self.units.tokens, strict=True))
        self.labels = ["", *list(self.letter.values())[1:]]
        assert self.parts.lexicon is not None
        self.known: dict[str, str] = {}
        for word, several in self.spelled(self.parts.lexicon.words).items():
            for one in several:
                self.known.setdefault(one, word)

    def spelled(self, words: Sequence[str]) -> dict[str, list[str]]:
        """Return the spellings of those of the words that have some."""
        if not self.is_sound:
            return {word: [word] for word in words if self.units.decode(self.units.encode(word)) == word}
        assert self.parts.pronunciations is not None
        found = self.parts.pronunciations.symbols(words)
        return {
            word: ["".join(self.letter[one] for one in way.split()) for way in ways] for word, ways in found.items()
        }

    def words(self, heard: str, listed: Sequence[str]) -> list[str]:
        """Return the words that are heard, of the list or the lexicon; others are no words of letters."""
        ours = {way: word for word, several in self.spelled(listed).items() for way in several}
        return [ours.get(one) or self.known.get(one, one if not self.is_sound else "?") for one in heard.split()]


def newest(folder: Path) -> str:
    """Return the newest version of an artifact of a run."""
    return str(max(folder.iterdir(), key=lambda one: one.stat().st_mtime))


def spoken(out: Path, model: PersonalModel, part: str, count: int | None) -> Spoken:
    """Return utterances of a run's part, without lists."""
    apart = out / f"features_{part}"
    some = itertools.islice(utterances(newest(apart if apart.exists() else out / part)), count)
    heard = [(row, np.ascontiguousarray(model.hear(features).log_probs)) for row, features in some]
    return Spoken([row for row, _ in heard], [one for _, one in heard], [])


def with_lists(given: Spoken, out: Path, part: str, lists: WordListSettings) -> Spoken:
    """Return utterances of a run's part with lists."""
    pool = out / f"{part}_words"
    words = read_file(newest(pool if pool.exists() else out / "list_words"), WORDS_FILE).decode().split()
    made = WordLists(words, lists)
    several = [made.of(row["id"], row["text"], row["names"] or (), row.get("listed")) for row in given.rows]
    return given._replace(lists=several)


def language(out: Path, alphabet: Alphabet) -> str:
    """Return the path of an ARPA file of the run's texts in the peers' letters."""
    assert alphabet.parts.lexicon is not None
    first = {word: several[0] for word, several in alphabet.spelled(alphabet.parts.lexicon.words).items()}
    texts: Iterator[list[str]] = (
        [first.get(word, word) for word in normalise(text or "").split()] for text in said(out / "texts")
    )
    path = Path(tempfile.mkdtemp()) / "texts.arpa"
    path.write_bytes(estimate(texts, NgramSettings(order=3), sorted(set(first.values()))).to_bytes())
    return str(path)


def installed(out: Path, alphabet: Alphabet) -> dict[str, Search]:
    """Return the searches of the peers that are installed, and tell of the others."""
    found: dict[str, Search] = {}
    arpa = ""
    for name in PEERS:
        try:
            build = importlib.import_module(name).build_ctcdecoder
        except ImportError as error:
            print(json.dumps({"system": name, "absent": str(error)}), flush=True)
            continue
        arpa = arpa or language(out, alphabet)
        made = build(alphabet.labels, arpa, sorted(alphabet.known))

        def search(one: np.ndarray, hot: Sequence[str], weight: float, made: Any = made) -> str:
            return made.decode(one, hotwords=list(hot) or None, hotword_weight=weight)

        found[name] = search
    return found


def heard_by(
    search: Search, given: Spoken, alphabet: Alphabet, weight: float, count: int
) -> tuple[list[list[str]], float]:
    """Return what a peer hears in the first utterances, and its seconds; with a weight of 0, without hot words."""
    found, spent = [], 0.0
    for one, listed in zip(given.posteriors[:count], given.lists, strict=False):
        hot = [way for several in alphabet.spelled(listed).values() for way in several] if weight else []
        begun = time.process_time()
        text = search(one, hot, weight)
        spent += time.process_time() - begun
        found.append(alphabet.words(text, listed))
    return found, spent


def measures(given: Spoken, found: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Return the measures of what was found in the first utterances."""
    some = given.rows[: len(found)]
    counts = score_biasing(
        [row["text"].split() for row in some],
        [list(one) for one in found],
        [set(row["names"] or ()) for row in some],
        [set(one) for one in given.lists[: len(found)]],
    )
    names = {"precision": "rare_precision", "recall": "rare_recall", "u_wer": "u_wer", "wer": "wer"}
    f1, others = wer_interval({0: counts.ratio("rare_f1")}), {name: counts.ratio(one) for name, one in names.items()}
    told = {name: round(100 * float(one.value), 1) if one.words.sum() else None for name, one in others.items()}
    told |= {"f1": round(100 * f1.value, 1), "f1_low": round(100 * f1.low, 1), "f1_high": round(100 * f1.high, 1)}
    return told | {"false_in_100": round(float(counts.ratio("false_words").value), 1), "utterances": len(found)}


def chosen(search: Search, given: Spoken, alphabet: Alphabet, weights: Sequence[float]) -> float:
    """Return the weight with the best F1."""
    found = {}
    for weight in weights:
        texts, _ = heard_by(search, given, alphabet, weight, len(given.rows))
        found[weight] = measures(given, texts)["f1"]
    print(json.dumps({"weights": found}), flush=True)
    return max(found, key=lambda weight: found[weight])


def lists_of(name: str) -> WordListSettings:
    """Return the lists of a test set of the recipe, by its name."""
    if name == "own":
        return WordListSettings(size=None)
    present = not name.startswith("absent")
    return WordListSettings(size=int(name.removeprefix("absent").removeprefix("n")), present=present)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sets", default="n10,n100,n1000")
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--slow", type=int, default=40)
    parser.add_argument("--utterances", type=int)
    parser.add_argument("--weights", default="5,10,15,25")
    args = parser.parse_args()
    if args.peers:
        sys.path.append(str(args.peers))
    url = find_recogniser(args.out, "joint")[0].url
    model = PersonalModel(url, pronounced=newest(args.out / "listed_lexicon"))
    alphabet = Alphabet(model)
    peers = installed(args.out, alphabet)
    weights = [float(one) for one in args.weights.split(",")]
    weight = weights[0]
    if peers and len(weights) > 1:
        development = spoken(args.out, model, "development", args.utterances)
        development = with_lists(development, args.out, "development", WordListSettings(size=TUNED))
        weight = chosen(next(iter(peers.values())), development, alphabet, weights)
    test = spoken(args.out, model, "test", args.utterances)
    for name in args.sets.split(","):
        given = with_lists(test, args.out, "test", lists_of(name))
        seconds = np.cumsum([row["duration"] for row in given.rows])
        rows = {row["id"]: row for row in pa.concat_tables(opened(args.out / name).tables()).to_pylist()}
        texts = {one: [rows[row["id"]][f"hypothesis_{one}"].split() for row in given.rows] for one in OURS}
        spent: dict[str, float] = {}
        for peer, search in peers.items():
            count = args.slow if peer == SLOW else len(given.rows)
            if peer == SLOW and max(map(len, given.lists)) > SLOW_LIST:
                continue
            for label, one in ((f"{peer}, no hot words", 0.0), (peer, weight)):
                texts[label], spent[label] = heard_by(search, given, alphabet, one, count)
        for part in sorted({len(one) for one in texts.values()}, reverse=True):
            for label, found in texts.items():
                if len(found) >= part:
                    told = {"set": name, "system": label, **measures(given, found[:part])}
                    if label in spent and len(found) == part:
                        told["times_real_time"] = round(float(seconds[part - 1]) / max(spent[label], 1e-9), 1)
                    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
