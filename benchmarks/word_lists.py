"""A user's word lists in the decoder, on real speech: rare words found, and what is done to other words.

    python -m benchmarks.word_lists DEV BIAS TEXT... [--cache FILE] [--pool 10000] [--lexicon common|wide] [--speed]

``DEV`` is a folder with ``manifest.jsonl`` and ``biasing_100.tsv``, ``BIAS`` one with the words of the public
contextual-biasing benchmark (Le et al., Contextualized Streaming End-to-End Speech Recognition with Trie-Based Deep
Biasing and Shallow Fusion, Interspeech 2021), ``TEXT`` files of sentences, one a line, without any of the test's. What
is heard are the phonemes of the package ``hama``, whose text-to-phoneme model pronounces words; that takes 15 ms each,
so ``--cache`` keeps them in a file, a word, a tab and its phonemes a line.

The lexicon are the common words; ``wide`` adds the pool of rare words, those of the test among them, so that the base
can find them too. The language model is a trigram of the texts. A list of N words has the utterance's rare words and
distractors, ``absent`` has distractors alone: those of ``biasing_100.tsv``, and beyond 100 words others of the pool.
Figures are of two speakers (``tuned``), of the other two (``held``) and of all.

Printed as JSON lines: rare-word F1, precision and recall of the N words; WER, that of rare words (B-WER) and of others
(U-WER) as the public benchmark scores them; listed words that were not said, of 100 utterances; with ``--speed``, times
real time of one thread at 10 and 10,000 words and without a list.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gristmill.actors.ngram_files import built
from gristmill.actors.speech.teacher_hama import Hama, describe, phonemes_of
from gristmill.models.measures.wer import CORRECT, DELETED, INSERTED, align
from gristmill.models.ngrams.estimate import NgramSettings, estimate
from gristmill.models.ngrams.store import LmStore
from gristmill.models.speech.decoder import Decoder, DecoderSettings
from gristmill.models.speech.lexicon import Lexicon
from gristmill.models.speech.units import normalise
from gristmill.models.speech.word_list import BiasSettings, WordList

import numpy as np
import soundfile

SIZES = (10, 100, 1000, 10000)
SETTINGS = DecoderSettings(beam=64, weight=0.8, word=0.5)
FRAME = 0.02
TUNED = 2  # speakers, in the order of their names
NO_GATE: dict[str, Any] = {"size": 0.0, "confusable": 0.0}
ABLATION: dict[str, dict[str, Any]] = {
    "boost": {"unigram": False, "enter": 0.0, "scale": 0.5, "cap": 2.0, "most": 6.0, **NO_GATE},
    "unigram": {"scale": 0.0},
    "unigram, no gate": {"enter": 5.0, "scale": 0.0, **NO_GATE},
    "both": {},
    "both, no gate": {"enter": 5.0, **NO_GATE},
}


class Utterance(NamedTuple):
    """What is decoded, and what was said."""

    speaker: str
    words: list[str]
    rare: list[str]
    distractors: list[str]
    log_probs: np.ndarray


class Bench(NamedTuple):
    """All that decoders are made of."""

    heard: list[Utterance]
    lexicon: Lexicon
    model: LmStore
    pronunciations: dict[str, list[str]]
    pool: list[str]


def heard_in(folder: Path) -> list[Utterance]:
    """Return the utterances of a folder with their posteriors."""
    lists = [line.split("\t") for line in (folder / "biasing_100.tsv").read_text().splitlines()]
    others = {line[0]: (json.loads(line[2]), json.loads(line[3])) for line in lists}
    teacher, found = Hama(), []
    for line in (folder / "manifest.jsonl").read_text().splitlines():
        row = json.loads(line)
        rare, hundred = others[Path(row["audio_filepath"]).stem]
        samples = soundfile.read(folder / row["audio_filepath"], dtype="float32")[0]
        log_probs = teacher([samples])[0][0].numpy()
        distractors = [word for word in hundred if word not in rare]
        found.append(Utterance(row["speaker"], row["text"].split(), rare, distractors, log_probs))
    return found


def pronounced(words: Iterable[str], cache: Path | None) -> dict[str, list[str]]:
    """Return the pronunciations of words, those of the cache and new ones, which it gets."""
    lines = cache.read_text().splitlines() if cache is not None and cache.exists() else []
    known = dict(line.split("\t") for line in lines)
    tokens = set(describe().units.tokens)
    found = {}
    for word in words:
        if word not in known:
            known[word] = " ".join(phonemes_of(word))
            if cache is not None:
                with cache.open("a") as out:
                    out.write(f"{word}\t{known[word]}\n")
        if known[word] and set(known[word].split()) <= tokens:
            found[word] = [known[word]]
    return found


def listed_words(bench: Bench, place: int, count: int, *, absent: bool) -> list[str]:
    """Return the list of an utterance."""
    one = bench.heard[place]
    said = [] if absent else one.rare
    pool = np.random.default_rng([place, count]).permutation(np.array(bench.pool if count > 100 else []))
    others = dict.fromkeys([*one.distractors, *pool])
    spoken = set(one.words)
    return list(dict.fromkeys([*said, *(str(word) for word in others if word not in spoken)]))[:count]


class Counts(NamedTuple):
    """What was counted in an utterance."""

    said: int
    hit: int
    false: int
    rare_errors: int
    others: int
    other_errors: int


def counted(one: Utterance, found: Sequence[str], listed: Iterable[str]) -> Counts:
    """Return the counts of an utterance of which the words ``found`` were recognised with ``listed`` words."""
    rare, watched = set(one.rare), set(listed)
    said = hit = false = rare_errors = others = other_errors = 0
    heard, told = iter(one.words), iter(found)
    for way in align(one.words, list(found)):
        word = None if way == INSERTED else next(heard)
        new = None if way == DELETED else next(told)
        false += new is not None and way != CORRECT and new in watched
        of_list = (new if word is None else word) in rare
        if word is not None:
            said, hit, others = said + of_list, hit + (of_list and way == CORRECT), others + (not of_list)
        rare_errors += of_list and way != CORRECT
        other_errors += not of_list and way != CORRECT
    return Counts(said, hit, false, rare_errors, others, other_errors)


def measures(several: Sequence[Counts]) -> dict[str, float]:
    """Return the measures of utterances."""
    sums = Counts(*np.array(several).sum(axis=0).tolist())
    precision = sums.hit / max(sums.hit + sums.false, 1)
    recall = sums.hit / max(sums.said, 1)
    found = {
        "f1": 2 * precision * recall / max(precision + recall, 1e-9),
        "precision": precision,
        "recall": recall,
        "wer": (sums.rare_errors + sums.other_errors) / (sums.said + sums.others),
        "u_wer": sums.other_errors / sums.others,
        "b_wer": sums.rare_errors / max(sums.said, 1),
        "false_in_100": 100 * sums.false / len(several),
    }
    return {name: round(value, 4) for name, value in found.items()}


def base_texts(bench: Bench, settings: DecoderSettings) -> list[list[str]]:
    """Return what is recognised without lists."""
    decoder = Decoder(describe().units, settings, bench.lexicon, bench.model)
    return [decoder.decode(one.log_probs)[0].text.split() for one in bench.heard]


def lists_of(bench: Bench, count: int, *, absent: bool) -> list[WordList]:
    """Return the lists of all utterances."""
    several = [listed_words(bench, place, count, absent=absent) for place in range(len(bench.heard))]
    return [WordList.of(one, describe().units, bench.pronunciations) for one in several]


def biased_texts(
    bench: Bench, settings: DecoderSettings, bias: BiasSettings, lists: Sequence[WordList]
) -> list[list[str]]:
    """Return what is recognised with a list for each utterance."""
    decoder = Decoder(describe().units, settings, bench.lexicon, bench.model, bias)
    some = zip(bench.heard, lists, strict=True)
    return [decoder.decode(one.log_probs, listed=listed)[0].text.split() for one, listed in some]


def parts(bench: Bench) -> dict[str, list[int]]:
    """Return the utterances that settings are chosen on, those that they are told of, and all."""
    tuned = set(sorted({one.speaker for one in bench.heard})[:TUNED])
    every = range(len(bench.heard))
    return {
        "tuned": [place for place in every if bench.heard[place].speaker in tuned],
        "held": [place for place in every if bench.heard[place].speaker not in tuned],
        "all": list(every),
    }


def compared(bench: Bench, settings: DecoderSettings, bias: BiasSettings, sizes: Sequence[int] = SIZES) -> None:
    """Print the measures of all systems and sizes."""
    plain = base_texts(bench, settings)
    systems = {name: bias.model_copy(update=change) for name, change in ABLATION.items()}
    for count in sizes:
        for absent in (False, True):
            lists = lists_of(bench, count, absent=absent)
            texts = {"base": plain}
            for name, changed in systems.items():
                texts[name] = biased_texts(bench, settings, changed, lists)
            for name, found in texts.items():
                every = zip(bench.heard, found, lists, strict=True)
                some = [counted(one, words, listed.words) for one, words, listed in every]
                for part, places in parts(bench).items():
                    what = {"system": name, "words": count, "absent": absent, "part": part}
                    print(json.dumps(what | measures([some[place] for place in places])), flush=True)


def speeds(bench: Bench, settings: DecoderSettings, bias: BiasSettings, rounds: int = 5) -> None:
    """Print times real time of one thread: without a list, and with the same one of 10 and of 10,000 words."""
    decoder = Decoder(describe().units, settings, bench.lexicon, bench.model, bias)
    lists: dict[int, WordList | None] = {0: None}
    for count in (SIZES[0], SIZES[-1]):
        words = bench.pool[:count]
        begun = time.process_time()
        listed = WordList.of(words, describe().units, bench.pronunciations)
        decoder.stream(listed=listed)
        made = time.process_time() - begun
        lists[count] = listed
        print(json.dumps({"words": len(words), "seconds_to_make": round(made, 3)}), flush=True)
    best = dict.fromkeys(lists, np.inf)
    for _ in range(rounds):
        for count, one_list in lists.items():
            decoder.stream(listed=one_list)
            begun = time.process_time()
            for one in bench.heard:
                decoder.decode(one.log_probs, listed=one_list)
            best[count] = min(best[count], time.process_time() - begun)
    seconds = sum(len(one.log_probs) for one in bench.heard) * FRAME
    for count, spent in best.items():
        told = {"words": count, "times_real_time": round(seconds / spent, 1), "of_none": round(best[0] / spent, 3)}
        print(json.dumps(told | {"of_10": round(best[SIZES[0]] / spent, 3)}), flush=True)


def made(args: argparse.Namespace) -> Bench:
    """Return what the arguments name."""
    heard = heard_in(args.dev)
    common, rare = ((args.bias / name).read_text().split() for name in ("common_words_5k.txt", "all_rare_words.txt"))
    said = list(dict.fromkeys(word for one in heard for word in one.rare))
    hundreds = dict.fromkeys(word for one in heard for word in one.distractors)
    order = np.random.default_rng(0).permutation(len(rare))
    pool = [word for word in [*hundreds, *(rare[place] for place in order)] if word not in set(said)][: args.pool]
    found = pronounced([*common, *said, *pool], args.cache)
    words = common if args.lexicon == "common" else [*common, *said, *pool]
    lexicon = Lexicon.pronounced(
        {word: found[word] for word in dict.fromkeys(words) if word in found}, describe().units
    )
    texts = [normalise(line).split() for path in args.text for line in path.open()]
    arpa = estimate(texts, NgramSettings(order=3), lexicon.words)
    return Bench(heard, lexicon, built(arpa), found, [word for word in pool if word in found])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dev", type=Path)
    parser.add_argument("bias", type=Path)
    parser.add_argument("text", type=Path, nargs="+")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--pool", type=int, default=10000)
    parser.add_argument("--lexicon", choices=("common", "wide"), default="common")
    parser.add_argument("--speed", action="store_true")
    args = parser.parse_args()
    bench = made(args)
    compared(bench, SETTINGS, BiasSettings())
    if args.speed:
        speeds(bench, SETTINGS, BiasSettings())


if __name__ == "__main__":
    main()
