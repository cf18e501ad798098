"""The compiled searches beside the search in Python, flashlight-text and pyctcdecode, on the same posteriors.

    python -m benchmarks.decoder RUN [--utterances 200] [--system student] [--set features_noisy] [--peers FOLDER]

``RUN`` is the output of a distillation run with character units: its system hears the features of one of its test sets,
and a trigram model is estimated from the texts that it was trained on. Without ``RUN`` the posteriors are made up from
random words: each unit is heard for some frames among blanks, with noise. ``--peers`` is a folder in which
flashlight-text and pyctcdecode are installed (``pip install --target``); what is not installed is left out.

Printed as JSON lines: in the first, what was decoded; then for each search and beam, utterances a second and times real
time of one thread (processor time, in rounds that take turns; the best round of each), and the word error rate of the
first ``--slow`` utterances. The plain searches are without lexicon and language model, the others with both. The
compiled plain search is checked to return the lists of the search in Python, to the last bit.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from gristmill.actors.ngram_files import built
from gristmill.actors.speech.recognise import outputs
from gristmill.actors.speech.teacher_checkpoint import Checkpoint
from gristmill.models.measures.wer import CORRECT, align
from gristmill.models.ngrams.arpa import Arpa
from gristmill.models.ngrams.estimate import NgramSettings, estimate
from gristmill.models.speech.decode import beam_search, prefix_beam_search
from gristmill.models.speech.decoder import Decoder, DecoderSettings
from gristmill.models.speech.lexicon import Lexicon
from gristmill.models.speech.units import Units, characters
from gristmill.pipelines.speech.recognisers import find_recogniser
from gristmill.shards.dataset import SealedSet, open_sealed

import numpy as np

BEAMS = (16, 50)
WEIGHT, WORD = 0.5, 1.0  # of the language model, and nats a word
TOKENS, THRESHOLD, MARGIN = 8, -12.0, 20.0


class Heard(NamedTuple):
    """What is decoded."""

    units: Units
    posteriors: list[np.ndarray]
    texts: list[str]
    known: list[str]
    seconds: float


def from_run(run: Path, system: str, test_set: str, count: int) -> Heard:
    """Return the posteriors of a system of a run."""
    features = opened(run / test_set)
    model = Checkpoint(find_recogniser(run, system)[0].url, "cpu", "float32")
    found, texts, seconds = [], [], 0.0
    for table in features.tables():
        table = table.slice(0, count - len(found))
        heard = {}
        for start in range(0, table.num_rows, 16):
            heard |= {start + place: one for place, one in outputs(model, system, table.slice(start, 16))}
        found += [np.ascontiguousarray(heard[place]) for place in sorted(heard)]
        rows = table.to_pylist()
        texts += [rows[place]["text"] for place in sorted(heard)]
        seconds += sum(rows[place]["duration"] for place in heard)
        if len(found) >= count:
            break
    known = [one for name in ("labelled", "unlabelled") for one in said(run / f"requests_{name}")]
    return Heard(model.info.units, found, texts, known, seconds)


def opened(folder: Path) -> SealedSet:
    """Return the newest version of a set of a run."""
    return open_sealed(max(folder.iterdir(), key=lambda one: one.stat().st_mtime))


def said(folder: Path) -> Iterator[str]:
    """Yield the texts of a set."""
    for table in opened(folder).tables(["text"]):
        yield from table["text"].to_pylist()


def made_up(count: int) -> Heard:
    """Return posteriors that are made up."""
    rng = np.random.default_rng(7)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    words = ["".join(rng.choice(letters, rng.integers(2, 8))) for _ in range(2000)]
    known = [" ".join(rng.choice(words, rng.integers(3, 9))) for _ in range(5000)]
    units = characters(words)
    texts, posteriors = known[:count], []
    for text in texts:
        path: list[int] = []
        for unit in units.encode(text):
            path += [unit] * int(rng.integers(1, 3)) + [0] * int(rng.integers(1, 4))
        logits = rng.normal(size=(len(path), len(units))) * 2
        logits[np.arange(len(path)), path] += 9.0
        posteriors.append((logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32))
    return Heard(units, posteriors, texts, known, sum(map(len, posteriors)) * 0.03)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--system", default="student")
    parser.add_argument("--set", default="features_noisy")
    parser.add_argument("--utterances", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--slow", type=int, default=40, help="utterances of the searches in Python, and of the error rates"
    )
    parser.add_argument("--peers", type=Path)
    args = parser.parse_args()
    if args.peers:
        sys.path.append(str(args.peers))
    heard = made_up(args.utterances) if args.run is None else from_run(args.run, args.system, args.set, args.utterances)
    arpa = estimate([text.split() for text in heard.known], NgramSettings(order=3))
    what = "made up" if args.run is None else f"{args.system} on {args.set}"
    frames = sum(map(len, heard.posteriors))
    told = {"posteriors": what, "utterances": len(heard.posteriors), "seconds": round(heard.seconds, 1)}
    print(json.dumps(told | {"frames": frames, "units": len(heard.units), "words": len(arpa.words)}), flush=True)
    for beam in BEAMS:
        compared(heard, beam, searches(heard, arpa, beam), args.rounds, args.slow)


Search = Callable[[np.ndarray], str]


def searches(heard: Heard, arpa: Arpa, beam: int) -> dict[str, Search]:
    """Return the searches by name, each a function of log-probabilities (T, V) that returns a text."""
    decode = heard.units.decode
    lexicon, model = Lexicon.spelled(arpa.words, heard.units), built(arpa)
    settings = DecoderSettings(beam=beam, tokens=TOKENS, threshold=THRESHOLD, margin=MARGIN, weight=WEIGHT, word=WORD)
    plain, full = Decoder(heard.units, settings), Decoder(heard.units, settings, lexicon, model)
    return {
        "python": lambda one: decode(prefix_beam_search(one, beam, tokens=TOKENS, threshold=THRESHOLD)[0].units),
        "beam_search": lambda one: decode(beam_search(one, beam, tokens=TOKENS, threshold=THRESHOLD)[0].units),
        "Decoder": lambda one: plain.decode(one)[0].text,
        "Decoder, words": lambda one: full.decode(one)[0].text,
        **flashlight(heard, arpa, lexicon, beam),
        **pyctcdecode(heard, arpa, lexicon, beam),
    }


def written(arpa: Arpa) -> str:
    """Return the path of a model as an ARPA file, which peers read."""
    path = Path(tempfile.gettempdir()) / f"benchmark-decoder-{os.getpid()}.arpa"
    path.write_bytes(arpa.to_bytes())
    return str(path)


def flashlight(heard: Heard, arpa: Arpa, lexicon: Lexicon, beam: int) -> dict[str, Search]:
    """Return the decoders of flashlight-text, if it is installed: plain, and with lexicon and KenLM."""
    try:
        from flashlight.lib.text import decoder as fl
        from flashlight.lib.text.decoder.kenlm import KenLM
        from flashlight.lib.text.dictionary import Dictionary
    except ImportError:
        return {}
    decode, space = heard.units.decode, heard.units.tokens.index(" ")
    plain = fl.LexiconFreeDecoder(
        fl.LexiconFreeDecoderOptions(beam, TOKENS, MARGIN, 0.0, 0.0, True, fl.CriterionType.CTC), fl.ZeroLM(), -1, 0, []
    )

    def text_of(one: np.ndarray) -> str:
        found = plain.decode(one.ctypes.data, *one.shape)[0].tokens
        units = [unit for place, unit in enumerate(found) if unit > 0 and (not place or unit != found[place - 1])]
        return decode(units)

    made: dict[str, Search] = {"flashlight-text": text_of}
    words = Dictionary()
    for word in (*lexicon.words, "<unk>"):
        words.add_entry(word)
    words.set_default_index(len(lexicon.words))
    model = KenLM(written(arpa), words)
    trie = fl.Trie(len(heard.units), space)
    start = model.start(False)
    for number, spelling in enumerate(lexicon.spellings):
        trie.insert([*spelling[spelling > 0].tolist(), space], number, model.score(start, number)[1])
    trie.smear(fl.SmearingMode.MAX)
    options = fl.LexiconDecoderOptions(
        beam, TOKENS, MARGIN, WEIGHT * np.log(10), WORD, -np.inf, 0.0, True, fl.CriterionType.CTC
    )
    full = fl.LexiconDecoder(options, trie, model, space, 0, len(lexicon.words), [], False)

    def words_of(one: np.ndarray) -> str:
        found = full.decode(one.ctypes.data, *one.shape)
        return " ".join(lexicon.words[word] for word in found[0].words if word >= 0) if found else ""

    return made | {"flashlight-text, words": words_of}


def pyctcdecode(heard: Heard, arpa: Arpa, lexicon: Lexicon, beam: int) -> dict[str, Search]:
    """Return the decoders of pyctcdecode, if it is installed: plain, and with KenLM."""
    try:
        from pyctcdecode import build_ctcdecoder
    except ImportError:
        return {}
    labels = ["", *heard.units.tokens[1:]]
    plain = build_ctcdecoder(labels)
    full = build_ctcdecoder(labels, written(arpa), list(lexicon.words), alpha=WEIGHT, beta=WORD)
    options = {"beam_width": beam, "beam_prune_logp": -MARGIN, "token_min_logp": THRESHOLD}
    return {
        "pyctcdecode": lambda one: plain.decode(one, **options),
        "pyctcdecode, words": lambda one: full.decode(one, **options),
    }


def compared(heard: Heard, beam: int, found: dict[str, Search], rounds: int, slow: int) -> None:
    """Print what each search costs and finds."""
    for one in heard.posteriors[:slow]:
        for nbest in (1, beam):
            lists = [run(one, beam, nbest=nbest) for run in (prefix_beam_search, beam_search)]
            assert lists[0] == lists[1]
    count = {name: slow if name == "python" or "pyctc" in name else len(heard.posteriors) for name in found}
    best = dict.fromkeys(found, np.inf)
    texts: dict[str, list[str]] = {}
    for search in found.values():  # compiles, and fills caches
        search(heard.posteriors[0])
    for _ in range(rounds):
        for name, search in found.items():
            start = time.process_time()
            texts[name] = [search(one) for one in heard.posteriors[: count[name]]]
            best[name] = min(best[name], (time.process_time() - start) / count[name])
    seconds = heard.seconds / len(heard.posteriors)
    for name in found:
        ways = [align(text.split(), one.split()) for text, one in zip(heard.texts[:slow], texts[name], strict=False)]
        wrong = sum(len(way) - way.count(CORRECT) for way in ways)
        told = {
            "search": name,
            "beam": beam,
            "utterances/s": round(1 / best[name], 1),
            "times_real_time": round(seconds / best[name]),
            "times_python": round(best["python"] / best[name], 1),
            "wer": round(wrong / sum(len(text.split()) for text in heard.texts[:slow]), 4),
        }
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
