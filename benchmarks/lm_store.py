"""The n-gram store beside a LOUDS tree and KenLM: bytes of an n-gram, look-ups a second, equality, and copies in
memory.

The text is that of ``benchmarks/ngram.py``, and sentences that are drawn from its trigrams as many words as are asked
for. A query is a state and a word; the states are those of sentences that were held out, in random order. Half of the
workloads ask for the word that follows in them, the others for any word, mostly unseen. All systems answer the same
queries, in one thread and in batches: this process's compiled code, and KenLM's in a program of its own
(``benchmarks/kenlm_batches.cc``, compiled with its source; without a compiler KenLM's sizes are those of its
published layout, and it has no speed). Scores are compared bit by bit.

Run: ``python -m benchmarks.lm_store FOLDER [--words 9000000] [--order 4] [--workers 8]``; what was made in FOLDER
is used again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

from gristmill.actors.ngram_files import open_store
from gristmill.models.kernels import kernel
from gristmill.models.ngrams import lookup
from gristmill.models.ngrams.arpa import Arpa
from gristmill.models.ngrams.batch import look_up_all
from gristmill.models.ngrams.build import StoreSettings, build
from gristmill.models.ngrams.counts import EOS_ID, Vocabulary, count
from gristmill.models.ngrams.estimate import NgramSettings, estimate_counts
from gristmill.models.ngrams.lookup import look_up
from gristmill.models.ngrams.numbering import Numbering
from gristmill.models.ngrams.store import LmStore, chunks

import numpy as np
import pyarrow as pa

from benchmarks.lmplz import VERSION
from benchmarks.louds import look_up_nodes, louds
from benchmarks.ngram import TABLES, sentences

HELD_OUT = 20_000  # sentences
QUERIES = 1_000_000


@kernel
def _drawn(text, groups, members, pairs, pair_members, seed, made):
    """Walk through a text: after a place, go on behind any place with the same two words, or the same last word."""
    np.random.seed(seed)
    at = np.random.randint(len(text) - 1)
    for place in range(len(made)):
        begin, end = pairs[at, 0], pairs[at, 1]
        if np.random.random() < 0.25:
            begin, end = groups[at, 0], groups[at, 1]
            at = members[np.random.randint(begin, end)]
        else:
            at = pair_members[np.random.randint(begin, end)]
        at = (at + 1) % (len(text) - 1)
        made[place] = text[at]


@kernel
def one_by_one(body, states, words, scores, following):
    """Look up as a search does."""
    for place in range(len(words)):
        scores[place], following[place] = look_up(body, np.int64(states[place]), np.int64(words[place]))


def drawn(text: np.ndarray, words: int) -> np.ndarray:
    """Return numbers of words that follow each other as in a text."""
    pair = np.concatenate([[0], text[:-1].astype(np.int64) << 32]) + text
    sides = []
    for keys in (text.astype(np.int64), pair):
        order = np.argsort(keys, kind="stable")
        begins = np.searchsorted(keys, keys, "left", order), np.searchsorted(keys, keys, "right", order)
        sides += [np.stack(begins, axis=1), order]
    made = np.empty(words, np.uint32)
    _drawn(text, *sides, 0, made)
    return made


def model_of(more: int, order: int) -> tuple[Arpa, list[str]]:
    """Return a model of the text and as many drawn words, and the sentences that were held out."""
    data = Path(os.environ.get("GRISTMILL_DATA") or "../shared/data")
    files = sorted(path for path in data.rglob("*") if path.suffix in TABLES)
    text = list(dict.fromkeys(sentences(files)))
    text = [text[place] for place in np.random.default_rng(0).permutation(len(text))]
    held, text = text[:HELD_OUT], text[HELD_OUT:]
    words = Vocabulary(word for line in text for word in line.split())
    ids, lengths = words.encode_texts(pa.array(text))
    flat = np.full(len(ids) + len(lengths), EOS_ID, np.uint32)
    inner = np.ones(len(flat), bool)
    inner[np.cumsum(lengths + 1) - 1] = False
    flat[inner] = ids
    made = drawn(flat, more)
    stops = np.flatnonzero(made == EOS_ID)
    made = made[: stops[-1]]
    ids = np.concatenate([ids, made[made != EOS_ID]])
    lengths = np.concatenate([lengths, np.diff(np.concatenate([[-1], stops])) - 1])
    print(f"{len(ids)} words of text, {more} of them drawn", flush=True)
    return estimate_counts(count(ids, lengths, order), words, NgramSettings(order=order)), held


def queries_of(store: LmStore, held: list[str]) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Return held-out text as numbers of words, -1 before each sentence; queries by workload; the states in it."""
    lengths = np.array([len(line.split()) for line in held])
    words = store.look_up([word for line in held for word in line.split()])
    starts = np.cumsum(lengths + 1) - lengths - 1
    text = np.full(len(words) + len(held), -1, np.int32)
    inner = np.ones(len(text), bool)
    inner[starts] = False
    text[inner] = words
    states = np.zeros(len(text), np.int32)
    now = np.full(len(held), store.begin, np.int32)
    states[starts] = now
    for place in range(lengths.max()):
        left = lengths > place
        states[starts[left] + 1 + place] = now[left]
        now[left] = store.score(now[left], text[starts[left] + 1 + place])[1]
    rng = np.random.default_rng(1)
    places = rng.choice(np.flatnonzero(inner), QUERIES)
    any_word = rng.integers(0, len(store.words), QUERIES)
    made = {"text": text[places], "random": any_word}
    return text, {name: np.stack([places, one], 1).astype(np.int32) for name, one in made.items()}, states


def best(act: Callable[[], None]) -> float:
    """Return the nanoseconds of processor time of a query, best of three."""
    spent = []
    for _ in range(3):
        begun = time.process_time()
        act()
        spent.append(time.process_time() - begun)
    return min(spent) / QUERIES * 1e9


class Kenlm:
    """KenLM's source, compiled with the program that times it; ``None`` for what it says without a compiler."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.program = folder, folder / "kenlm_batches"
        if self.program.exists() or shutil.which("g++") is None:
            return
        get = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "kenlm", "-d", str(folder)]
        subprocess.run([*get, f"kenlm=={VERSION}"], check=True)
        with tarfile.open(folder / f"kenlm-{VERSION}.tar.gz") as packed:
            packed.extractall(folder, filter="data")
        source = folder / f"kenlm-{VERSION}"
        parts = [*source.glob("util/*.cc"), *source.glob("lm/*.cc"), *source.glob("util/double-conversion/*.cc")]
        parts = [path for path in parts if not path.name.endswith(("main.cc", "test.cc"))]
        how = ["-O3", "-march=x86-64-v3", "-w", "-DNDEBUG", "-DKENLM_MAX_ORDER=6", "-std=c++14", f"-I{source}"]
        own = Path(__file__).with_name("kenlm_batches.cc")
        libraries = ["-o", str(self.program), "-lrt", "-lpthread"]
        subprocess.run(["g++", *how, *map(str, parts), str(own), *libraries], check=True)

    def binary(self, kind: str, arpa: Path) -> Path | None:
        """Return KenLM's binary of a model."""
        made = self.folder / f"{kind}.binary"
        if not self.program.exists():
            return None
        if not made.exists():
            subprocess.run([self.program, "build", kind, arpa, made], check=True)
        return made

    def score(self, kind: str, binary: Path, names: list[str], text: np.ndarray, asked: np.ndarray) -> tuple:
        """Return the nanoseconds of a query, and the scores."""
        given = [self.folder / name for name in ("words", "text", "queries", "scores")]
        given[0].write_text("".join(f"{name}\n" for name in names))
        text.tofile(given[1])
        asked.tofile(given[2])
        command = [self.program, "score", kind, binary, *given]
        said = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True).stdout
        return float(said), np.fromfile(given[3], np.float32)


def layout(model: Arpa) -> int:
    """Return the bytes of KenLM's probing binary by its published layout (Heafield, WMT 2011): tables 2/3 full."""
    grams = [len(one) for one in model.orders]
    return int(1.5 * (16 * sum(grams[1:-1]) + 12 * grams[-1] + 12 * grams[0]) + 8 * grams[0])


def as_coded(tree: int, body: np.ndarray) -> int:
    """Return the bytes of a LOUDS tree, if its values had the bits and tables of a store."""
    rows = body[lookup.ROWS :][: lookup.COLUMNS * (int(body[lookup.ORDER]) + 1)].view(np.int64)
    rows = rows.reshape(-1, lookup.COLUMNS)
    arcs, states = np.diff(rows[:, lookup.FIRST_ARC]), np.diff(rows[:, lookup.FIRST])
    saved = (arcs * (31 - rows[:-1, lookup.VALUE_BITS])).sum()
    saved += (states * (32 - rows[:-1, lookup.BACKOFF_BITS]))[1:].sum()
    tables = int(body[lookup.SHARED_AT] - body[lookup.TABLES_AT]) // 8
    return int(tree - saved // 8 + tables)


def reader(path: str) -> None:
    """Hold a store, use all of it, and tell the kilobytes that this process shares with others, or has for itself."""
    store = open_store(str(path))
    rng = np.random.default_rng(os.getpid())
    states, words = rng.integers(0, store.states, 200_000), rng.integers(0, len(store.words), 200_000)
    store.score(states, words)
    print("ready", flush=True)
    sys.stdin.readline()
    found, inside = {}, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0] and not line.split(" ")[0].endswith(":"):
            inside = line.endswith(path)
        elif inside and line.startswith(("Pss:", "Rss:", "Private_Dirty:")):
            found[line.split(":")[0]] = found.get(line.split(":")[0], 0) + int(line.split()[1])
    print(json.dumps(found), flush=True)
    sys.stdin.readline()


def copies(path: Path, workers: int) -> dict[str, int]:
    """Return the kilobytes of a store's mapping in several processes together: in all of them, and shared out (PSS)."""
    command = [sys.executable, "-m", "benchmarks.lm_store", "--reader", str(path)]
    some = [subprocess.Popen(command, stdin=-1, stdout=-1, text=True) for _ in range(workers)]
    for one in some:
        assert one.stdout.readline() == "ready\n"
    found = []
    for one in some:  # while all of them hold it
        one.stdin.write("\n")
        one.stdin.flush()
        found.append(json.loads(one.stdout.readline()))
    for one in some:
        one.communicate("\n")
    return {name: sum(one[name] for one in found) for name in found[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--words", type=int, default=9_000_000, help="words that are drawn beside the text")
    parser.add_argument("--order", type=int, default=4)
    parser.add_argument("--workers", type=int, default=8)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    arpa, path, others = (given.folder / name for name in ("lm.arpa", "lm.store", "held.txt"))
    if arpa.exists() and others.exists():
        model, held = Arpa.from_bytes(arpa.read_bytes(), str(arpa)), others.read_text().splitlines()
    else:
        model, held = model_of(given.words, given.order)
        with arpa.open("wb") as out:
            out.writelines(model.chunks())
        others.write_text("\n".join(held))
    grams = sum(map(len, model.orders))
    print(f"{grams} n-grams: {[len(one) for one in model.orders]}, {len(model.words)} words", flush=True)
    result: dict[str, object] = {"grams": grams}
    begun = time.perf_counter()
    built = build(model)
    with path.open("wb") as out:
        out.writelines(chunks(built))
    print(f"built in {time.perf_counter() - begun:.0f} s", flush=True)
    store = open_store(str(path))
    letters = sum(one.nbytes for one in store.words)
    numbering = Numbering(model, "the model")
    tree, node = louds(numbering)
    del numbering
    sizes = {"louds": tree.bytes() + letters, "louds, coded as own": as_coded(tree.bytes(), store.body) + letters}
    sizes["own"] = path.stat().st_size
    for name, settings in (("own, 8 bits", {"quantise": 8}), ("own, 12-bit words", {"fingerprint": 12})):
        less = build(model, StoreSettings(**settings))
        sizes[name] = sum(len(chunk) for chunk in chunks(less))
        if "quantise" in settings:
            sizes["louds, 8 bits"] = as_coded(tree.bytes(), less.body) + letters
        print(name, less.facts["errors"], flush=True)
        del less
    text, asked, states = queries_of(store, held)
    speeds: dict[str, dict[str, float]] = {name: {} for name in asked}
    scores: dict[str, np.ndarray] = {}
    for name, pairs in asked.items():
        begin, word = states[pairs[:, 0]], np.ascontiguousarray(pairs[:, 1])
        scores[name], following = np.empty(QUERIES, np.float32), np.empty(QUERIES, np.int32)
        other, reached = np.empty(QUERIES, np.float32), np.empty(QUERIES, np.int32)
        nodes = node[begin].astype(np.int32)
        look_up_all(store.body, begin[:9], word[:9], other, reached)  # compiles
        one_by_one(store.body, begin[:9], word[:9], other, reached)
        look_up_nodes(tree, nodes[:9], word[:9], other, reached)
        speeds[name]["own"] = best(lambda: look_up_all(store.body, begin, word, scores[name], following))  # noqa: B023
        speeds[name]["own, one by one"] = best(lambda: one_by_one(store.body, begin, word, other, reached))  # noqa: B023
        assert (scores[name] == other).all()
        assert (following == reached).all()
        speeds[name]["louds"] = best(lambda: look_up_nodes(tree, nodes, word, other, reached))  # noqa: B023
        assert (scores[name] == other).all()
        assert (node[following] == reached).all()
    kenlm = Kenlm(given.folder)
    names = [store.words.name(number) for number in range(len(store.words))]
    for kind in ("probing", "trie"):
        binary = kenlm.binary(kind, arpa)
        if binary is None:
            if kind == "probing":
                sizes["kenlm probing, by its layout"] = layout(model)
            continue
        sizes[f"kenlm {kind}"] = binary.stat().st_size
        for name, pairs in asked.items():
            speeds[name][f"kenlm {kind}"], theirs = kenlm.score(kind, binary, names, text, pairs)
            result[f"unlike kenlm {kind}, {name}"] = int((theirs != scores[name]).sum())
    for name, size in sizes.items():
        shares = f"{size / sizes['louds']:.3f} of LOUDS"
        print(f"{name:28} {size / 1e6:8.1f} MB {size / grams:6.2f} bytes an n-gram, {shares}")
    for name, some in speeds.items():
        for system, spent in some.items():
            ratio = spent / some["own"]
            print(f"{name:8} {system:16} {spent:7.0f} ns, {1e3 / spent:6.2f} million a second, {ratio:.2f} of own")
    result |= {"bytes": sizes, "nanoseconds": speeds}
    if given.workers:
        result["copies"] = copies(path, given.workers)
    print(json.dumps(result))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--reader"]:
        reader(sys.argv[2])
    else:
        main()
