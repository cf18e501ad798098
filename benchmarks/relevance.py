"""The relevance filter: its speed from shards to the requests it keeps beside scikit-learn alone, and what it finds.

    python -m benchmarks.relevance FOLDER                      # 10^6 requests in one process, columns tokens and text
    python -m benchmarks.relevance FOLDER --ray 2 --columns tokens
    python -m benchmarks.relevance FOLDER --recall configs/expand-hwu64.yaml

Speed: half of the requests are generated ones of which some words are others, and half are random words; words have
Zipf's frequencies. They are sealed before anything is measured. The recipe's own steps fit the filter, score all
requests, find the threshold of the best 400 and keep these; at a quarter, a half and all of the requests, each in a new
process, with its peak memory (on Ray that of the largest worker, without what is shared). scikit-learn is given the
texts in memory, and no reading, writing or cut counts: the n-grams of the same model by ``CountVectorizer``, or a
model of its own by ``HashingVectorizer``, and ``decision_function``. Speeds are by CPU time: other work may be running.

Recall: the share of a function's requests in the pool that are among the best 400. The filter is fitted on 10, 20 or 50
requests of it against the annotated requests of others, or against the pool itself, in which some are the function's.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from gristmill.actors.embed import EmbedderSettings
from gristmill.actors.near_duplicates import DuplicateSettings, Sign
from gristmill.actors.nlu.folds import Folds, FoldSettings
from gristmill.actors.requests.functions import FunctionSettings, Part, PartSettings, TakePart, draw_seeds
from gristmill.actors.requests.relevance import RelevanceFitSettings
from gristmill.cluster import session
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.cluster.ray_runner import RayRunner
from gristmill.models.requests.relevance import MODEL, WEIGHTS, RelevanceModel, fit
from gristmill.pipelines import config
from gristmill.pipelines.generated import assistant
from gristmill.pipelines.nlu.corpora import RequestCorpusSettings, prepare_requests
from gristmill.pipelines.requests.expand_parts import FunctionCell
from gristmill.pipelines.requests.expand_systems import CellSystems, SelfTrainingSettings
from gristmill.pipelines.run import Run
from gristmill.pipelines.unique import unique
from gristmill.shards.artifact import put_artifact, read_file
from gristmill.shards.dataset import SealedSet, find_sealed, open_sealed, seal_tables
from gristmill.shards.step import Step

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.apart import apart

SHARD, KNOWN, MADE_UP = 20_000, 12_000, 100_000
FUNCTION, SEEDS, BEST = "timer", 20, 400
Found = dict[str, Any]


def annotated(name: str) -> Iterator[pa.Table]:
    """Yield the requests of a function (``own``), or those of others."""
    whole = next(assistant.requests(KNOWN, rows=KNOWN)).select(["id", "text", "tokens", "domain"])
    own = pc.equal(whole["domain"], FUNCTION)
    yield whole.filter(own).slice(0, SEEDS) if name == "own" else whole.filter(pc.invert(own))


def pool(rows: int, column: str) -> Iterator[pa.Table]:
    """Yield the requests to filter, a table for each shard."""
    base = next(assistant.requests(KNOWN, rows=KNOWN, start=KNOWN))["tokens"].combine_chunks()
    coded = base.flatten().dictionary_encode()
    words = pa.array([*coded.dictionary.to_pylist(), *(f"word{n}" for n in range(MADE_UP))])
    codes, starts = np.asarray(coded.indices), np.asarray(base.offsets)
    for start in range(0, rows, SHARD):
        rng = np.random.Generator(np.random.Philox(key=[0, start]))
        count = min(SHARD, rows - start)
        of = rng.integers(len(base), size=count)
        lengths = starts[of + 1] - starts[of]
        ends = np.cumsum(lengths)
        places = np.repeat(starts[of] - (ends - lengths), lengths) + np.arange(ends[-1])
        random = np.exp(rng.random(len(places)) * np.log(len(words))).astype(np.int64) - 1
        other = rng.random(len(places)) < np.repeat(np.where(rng.random(count) < 0.5, 1.0, 0.2), lengths)
        own = words.take(pa.array(np.where(other, random, codes[places])))
        tokens = pa.ListArray.from_arrays(pa.array(np.concatenate([[0], ends]), pa.int32()), own)
        ids = pa.array([f"pool/{n:08d}" for n in range(start, start + count)])
        yield pa.table({"id": ids, column: tokens if column == "tokens" else pc.binary_join(tokens, " ")})


def sealed(folder: Path, name: str, tables: Callable[[], Iterator[pa.Table]]) -> str:
    url = str(folder / name)
    return (find_sealed(url) or seal_tables(url, name, tables())).url


class WorkerWatch(threading.Thread):
    """Watches Ray's workers: their CPU time, and the peak memory of the largest without what is shared."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_mb, self._seconds, self._ended = 0.0, {}, threading.Event()  # type: ignore[var-annotated]
        self._look()
        self._before = sum(self._seconds.values())

    def _look(self) -> None:
        for process in psutil.Process().children(recursive=True):
            try:
                if process.cmdline()[0].startswith("ray::"):
                    memory, times = process.memory_info(), process.cpu_times()
                    self.peak_mb = max(self.peak_mb, (memory.rss - memory.shared) / 2**20)
                    self._seconds[process.pid] = times.user + times.system
            except (psutil.Error, IndexError):
                continue  # it has just ended

    def run(self) -> None:
        while not self._ended.wait(0.2):
            self._look()

    def seconds(self) -> float:
        """Return the CPU time since this was made, at the end."""
        self._ended.set()
        self.join()
        self._look()
        return sum(self._seconds.values()) - self._before


def filtered(out: str, workers: int, pool_url: str, seeds: str, others: str) -> Found:
    """Filter the pool by the recipe's steps."""
    shutil.rmtree(out, ignore_errors=True)
    runner = RayRunner(workers) if workers else InProcessRunner()
    sets = [open_sealed(url) for url in (seeds, others, pool_url)]

    def run(name: str, requests: SealedSet) -> tuple[SealedSet, Run]:
        made = Run(f"{out}/{name}", runner)
        cell = FunctionCell(FUNCTION, 0, 0, sets[0], sets[1], requests, None)
        systems = CellSystems(made, cell, SelfTrainingSettings(), EmbedderSettings(), RelevanceFitSettings())
        kept = systems.filtered("1", RelevanceFitSettings())
        made.finish()
        return kept, made

    run("first", sets[0])  # what is loaded once: modules, and the workers of Ray
    seen = WorkerWatch() if workers else None
    if seen:
        seen.start()
    wall, own = time.perf_counter(), time.process_time()
    kept, made = run("whole", sets[2])
    own, wall = time.process_time() - own, time.perf_counter() - wall
    fitted = next(one.url for one in made.trace if one.name == "relevance_1")
    found = {"records": sets[2].records, "kept": kept.records, "digest": kept.digest[:12], "model": fitted}
    seconds = own + (seen.seconds() if seen else 0.0)
    session.stop()
    peak = seen.peak_mb if seen else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {**found, "cpu_s": seconds, "wall_s": wall, "peak_mb": peak}


def alone(pool_url: str, seeds: str, others: str, fitted: str) -> Found:
    """Score the same texts by scikit-learn, in pieces of a shard."""
    from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer
    from sklearn.linear_model import LogisticRegression

    own, against = (table_texts(url) for url in (seeds, others))
    labels = np.arange(len(own) + len(against)) < len(own)
    model = RelevanceModel.from_files(json.loads(read_file(fitted, MODEL)), read_file(fitted, WEIGHTS))
    given: dict[str, Any] = {"ngram_range": (1, 3), "binary": True, "token_pattern": r"\S+"}
    ways = {
        "CountVectorizer": CountVectorizer(vocabulary=list(model.weights), **given),
        "HashingVectorizer": HashingVectorizer(norm=None, alternate_sign=False, **given),
    }
    found: Found = {}
    for name, vectorizer in ways.items():
        regression = LogisticRegression(class_weight="balanced", max_iter=300)
        regression.fit(vectorizer.transform(own + against), labels)
        if name == "CountVectorizer":
            regression.coef_, regression.intercept_ = np.array([list(model.weights.values())]), np.array([model.bias])
        seconds, scores = 0.0, []
        for table in open_sealed(pool_url).tables():
            texts = texts_of(table)
            begun = time.process_time()
            scores.append(regression.decision_function(vectorizer.transform(texts)))
            seconds += time.process_time() - begun
        if name == "CountVectorizer":
            first = model.score(next(iter(open_sealed(pool_url).tables(["tokens"])))["tokens"].combine_chunks())
            found["difference"] = float(np.abs(first - scores[0]).max())
        found[name] = sum(map(len, scores)) / seconds
    return found


def table_texts(url: str) -> list[str]:
    return [text for table in open_sealed(url).tables() for text in texts_of(table)]


def texts_of(table: pa.Table) -> list[str]:
    has_text = "text" in table.column_names
    return table["text"].to_pylist() if has_text else pc.binary_join(table["tokens"], " ").to_pylist()


def speed(folder: Path, rows: int, workers: int, columns: list[str]) -> None:
    """Print the speed and the memory of the filter, beside scikit-learn's speed."""
    seeds, others = (sealed(folder, name, partial(annotated, name)) for name in ("own", "others"))
    some = sealed(folder, f"pool-tokens-{SHARD * 10}", partial(pool, SHARD * 10, "tokens"))
    measured: list[tuple[str, int, Found]] = []
    best = 0.0
    for column in columns:
        for size in (rows // 4, rows // 2, rows):
            url = sealed(folder, f"pool-{column}-{size}", partial(pool, size, column))
            found = apart(filtered, str(folder / f"filtered-{column}"), workers, url, seeds, others)
            print(json.dumps({"column": column, "workers": workers, **found}), flush=True)
            measured.append((column, size, found))
        peer = apart(alone, some, seeds, others, found["model"])
        print(json.dumps({"scikit-learn": peer}), flush=True)
        best = max(best, peer["CountVectorizer"], peer["HashingVectorizer"])
    print("| read | requests | a second of CPU | of scikit-learn's | seconds | MB |\n|" + " --- |" * 6)
    for column, size, found in measured:
        rate = size / found["cpu_s"]
        told = f"{rate:,.0f} | {rate / best:.2f} | {found['wall_s']:.0f} | {found['peak_mb']:.0f}"
        print(f"| {column} | {size:,} | {told} |")


def recall(folder: Path, path: str, counts: tuple[int, ...], draws: int) -> None:
    """Print the recall of the best requests of the pools of a corpus's functions."""
    given = config.read(path, (), "config", "the config of a study")
    corpus = RequestCorpusSettings(**given["corpus"])
    functions = [FunctionSettings(**one) for one in given["functions"]]
    run = Run(str(folder / "recall"), InProcessRunner())
    signed = run.step(Step("requests_signed", (Sign.stage(),), prepare_requests(run, corpus)))
    requests = unique(run, signed, "requests_unique", DuplicateSettings())
    random = np.random.Generator(np.random.Philox(key=[0, 2]))
    found: dict[tuple[int, str], dict[str, list[float]]] = {}
    sizes: list[tuple[int, int]] = []
    for draw in range(draws):
        folds = Folds.stage(FoldSettings(folds=2, test_share=corpus.test_share), name=f"folds_{draw}")
        split = run.step(Step(f"split_{draw}", (folds,), requests))
        drawn = put_artifact(str(folder / f"drawn-{draw}"), draw_seeds(functions, max(counts), draw, split.url), {}).url
        whole = pa.concat_tables(split.tables())
        for function in functions:
            for count in counts:
                own, others, unlabelled = (
                    part(whole, function, count, name, drawn) for name in ("seeds", "others", "pool")
                )
                labels = zip(unlabelled["gold_domain"].to_pylist(), unlabelled["gold_intent"].to_pylist(), strict=True)
                right = np.array([function.own(*label) for label in labels])
                sizes.append((len(right), int(right.sum())))
                scores = {
                    "against others": fit(words(own), words(others)).score(words(unlabelled)),
                    "against the pool": fit(words(own), words(unlabelled)).score(words(unlabelled)),
                    "random": random.random(len(right)),
                }
                for name, one in scores.items():
                    share = right[np.argsort(-one, kind="stable")[:BEST]].sum() / right.sum()
                    found.setdefault((count, name), {}).setdefault(function.name, []).append(float(share))
        print(f"draw {draw} is done", flush=True)
    pools, owned = np.array(sizes).T
    print(f"pools of {pools.min()} to {pools.max()} requests, {owned.min()} to {owned.max()} of the function")
    print(f"| recall@{BEST} | {' | '.join(f'{count} seeds' for count in counts)} |")
    print("|" + " --- |" * (len(counts) + 1))
    for name in ("against others", "against the pool", "random"):
        cells = [interval(found[count, name]) for count in counts]
        print(f"| {name} | {' | '.join(cells)} |")
    for count in counts:
        means = {name: float(np.mean(values)) for name, values in found[count, "against others"].items()}
        least = sorted(means, key=means.__getitem__)[:3]
        print(f"least of {count} seeds against others:", ", ".join(f"{name} {means[name]:.2f}" for name in least))


def part(whole: pa.Table, function: FunctionSettings, count: int, name: Part, drawn: str) -> pa.Table:
    made = TakePart(PartSettings(which=name, count=count, **dict(function)), drawn)(whole)
    return made.filter(pc.is_null(made["reject_reason"]))


def words(table: pa.Table) -> list[list[str]]:
    return table["tokens"].to_pylist()


def interval(values: dict[str, list[float]]) -> str:
    """Return the mean over functions with the interval of a bootstrap over them, all draws of one together."""
    means = np.array([np.mean(own) for own in values.values()])
    rng = np.random.Generator(np.random.Philox(key=[0, 1]))
    low, high = np.quantile(means[rng.integers(len(means), size=(5000, len(means)))].mean(1), [0.025, 0.975])
    return f"{means.mean():.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    """Run a comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--ray", type=int, default=0, help="workers; by default in-process")
    parser.add_argument("--columns", nargs="+", choices=["tokens", "text"], default=["tokens", "text"])
    parser.add_argument("--recall", metavar="CONFIG", help="recall on the functions of a config instead")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 20, 50])
    args = parser.parse_args()
    if args.recall:
        recall(args.folder.absolute(), args.recall, tuple(args.seeds), args.draws)
    else:
        speed(args.folder.absolute(), args.rows, args.ray, args.columns)


if __name__ == "__main__":
    main()
