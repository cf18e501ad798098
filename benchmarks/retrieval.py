"""How often a rare word that is spoken is among the entries of a long list that are heard best, and what that takes.

    python -m benchmarks.retrieval DATA [--sizes 1000 10000] [--most 50 100 200] [--cache FILE] [--only-cached]

``DATA`` is the folder of real data with ``speech/librispeech-dev`` and ``bias``. The phones are heard by the package
``hama``, whose own text-to-phoneme model pronounces the list: the rare words of all utterances, and distractors drawn
from the public list of rare words, up to each size. It takes 0.04 s a word and more, so pronunciations are kept in
``FILE``; ``--only-cached`` leaves out the words that are not in it.

Printed as JSON lines: for each size, and each way to order a list, the share of the spoken rare words that are among
the first 50, 100 and 200, and the median place; for the spotter, also ms of processor time an utterance and for 300
frames, one thread. Ways are ``nearest_heard``; ``score``, by the sum over an entry's units; and ``best path``, a
baseline that hears no more than the likeliest phones: other phones cost 1 for each frame.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gristmill.actors.speech.teacher_hama import Hama, describe, phonemes_of
from gristmill.models.speech.lexicon import Lexicon
from gristmill.models.speech.spotting import nearest_heard, spot

import numpy as np
import soundfile

Rank = Callable[[np.ndarray, Lexicon], np.ndarray]


def posteriors(folder: Path, lines: list[dict[str, Any]]) -> list[np.ndarray]:
    """Return the log-probabilities (T, P) of utterances."""
    model = Hama()
    heard = [model([soundfile.read(folder / line["audio_filepath"], dtype="float32")[0]])[0][0] for line in lines]
    return [one.numpy() for one in heard]


def pronounced(words: Iterable[str], cache: Path, *, only_cached: bool) -> dict[str, list[str]]:
    """Return the pronunciations of words, and keep new ones in a file."""
    lines = cache.read_text(encoding="utf-8").splitlines() if cache.exists() else []
    known: dict[str, str] = dict(json.loads(line) for line in lines if line.endswith("]"))
    found: dict[str, list[str]] = {}
    with cache.open("a", encoding="utf-8") as out:
        for word in words:
            if word not in known:
                if only_cached:
                    continue
                known[word] = " ".join(phonemes_of(word))
                out.write(json.dumps([word, known[word]], ensure_ascii=False) + "\n")
            if known[word]:
                found[word] = [known[word]]
    return found


def by_score(log_probs: np.ndarray, listed: Lexicon) -> np.ndarray:
    """Return the words by the best scores of their spellings."""
    return np.argsort(-spot(log_probs, listed.spellings, listed.of).scores, kind="stable")


def by_best_path(log_probs: np.ndarray, listed: Lexicon) -> np.ndarray:
    """Return the words by how many frames differ from the best path."""
    best = np.where(log_probs == log_probs.max(axis=1, keepdims=True), 0.0, -1.0)
    return nearest_heard(best, listed, len(listed.words))


WAYS: dict[str, Rank] = {
    "nearest_heard": lambda log_probs, listed: nearest_heard(log_probs, listed, len(listed.words)),
    "score": by_score,
    "best path": by_best_path,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--most", type=int, nargs="+", default=[50, 100, 200])
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "hama-pronunciations.jsonl")
    parser.add_argument("--only-cached", action="store_true")
    args = parser.parse_args()
    folder = args.data / "speech" / "librispeech-dev"
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    rare = sorted({word for line in lines for word in line["rare_words"]})
    said = {word for line in lines for word in line["text"].split()}
    every = (args.data / "bias" / "all_rare_words.txt").read_text().split()
    drawn = [every[place] for place in np.random.default_rng(0).permutation(len(every)) if every[place] not in said]
    known = pronounced([*rare, *drawn[: max(args.sizes)]], args.cache, only_cached=args.only_cached)
    heard = posteriors(folder, lines)
    for size in args.sizes:
        words = [word for word in [*rare, *drawn] if word in known][:size]
        listed = Lexicon.pronounced({word: known[word] for word in words}, describe().units)
        for way, rank in WAYS.items():
            places = []
            for line, one in zip(lines, heard, strict=True):
                order = [listed.words[place] for place in rank(one, listed)] if line["rare_words"] else []
                places += [order.index(word) if word in order else len(words) for word in line["rare_words"]]
            at = np.array(places)
            shares = {f"recall_{most}": round(float((at < most).mean()), 4) for most in args.most}
            told = {"list": len(words), "way": way, "spoken": len(at), **shares, "median": float(np.median(at)) + 1}
            print(json.dumps(told | (cost(heard, listed) if way == "nearest_heard" else {})), flush=True)


def cost(heard: list[np.ndarray], listed: Lexicon) -> dict[str, float]:
    """Return ms of processor time for an utterance, and for 300 frames."""
    start = time.process_time()
    for one in heard:
        nearest_heard(one, listed, 100)
    taken = (time.process_time() - start) * 1000
    return {"ms": round(taken / len(heard), 1), "ms_300": round(taken / sum(map(len, heard)) * 300, 1)}


if __name__ == "__main__":
    main()
