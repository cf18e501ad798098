"""N-gram models against lmplz: the largest difference, words per second, peak memory, and text beyond memory.

The text is that of all cells of the tables at ``$GRISTMILL_DATA`` (default ``../shared/data``), or of plain files.
lmplz and our estimation, in one process and distributed, read the same text; words are per second of processor time (on
Ray of wall time), memory is a process's peak above that for a tiny text with the same vocabulary. The distributed
estimation gets so little memory that one process needs ``--times`` as much.
Run: ``python -m benchmarks.ngram LMPLZ [FILE ...] [--order 4] [--ray]``; ``benchmarks/lmplz.py`` builds
LMPLZ.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from gristmill.actors.text.ngram_texts import CountSettings, all_texts, counted, read_vocabulary
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.cluster.ray_runner import RayRunner
from gristmill.models.ngrams.arpa import Arpa
from gristmill.models.ngrams.estimate import estimate_counts
from gristmill.pipelines.run import Run
from gristmill.pipelines.text.ngrams import LanguageModelSettings, ngram_job
from gristmill.pipelines.text.ngrams_distributed import build_vocabulary, train_ngrams_distributed
from gristmill.shards import process
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet, open_sealed, seal_tables

import numpy as np
import pyarrow as pa

from benchmarks.driver_memory import peak

TABLES = (".tsv", ".csv", ".txt", ".json", ".jsonl", ".in", ".out")
ROWS = 20_000  # per shard


def sentences(files: Sequence[Path]) -> list[str]:
    """Return the lines of plain files, or the cells of tables, in lower case."""
    found = []
    for path in files:
        for line in path.read_text(errors="replace").splitlines():
            for cell in re.split(r"[\t\"]|\\n", line) if path.suffix in TABLES else [line]:
                words = re.findall(r"[\w']+", cell.lower())
                if len(words) > 1:
                    found.append(" ".join(words))
    return found


def gathered(folder: Path, files: Sequence[Path]) -> tuple[SealedSet, Path]:
    """Return the text as a sealed set and as a file."""
    text = sentences(files)
    plain = folder / "text"
    plain.write_text("\n".join(text) + "\n")
    tables = (
        pa.table({"id": [f"{n:07d}" for n in range(at, min(at + ROWS, len(text)))], "text": text[at : at + ROWS]})
        for at in range(0, len(text), ROWS)
    )
    return seal_tables(str(folder / "texts"), "texts", tables), plain


def child(folder: str, how: str, order: int, memory: int, workers: int) -> None:
    """Estimate once in this process, after a tiny text, and print the measurements."""
    process.prepare()
    data = open_sealed(f"{folder}/texts")
    listed = build_vocabulary(Run(folder, InProcessRunner()), "vocabulary", [(data, "text")])
    settings = LanguageModelSettings(order=order, memory=memory)
    with tempfile.TemporaryDirectory() as other:
        few = seal_tables(f"{other}/few", "few", [data.read(0, ["id", "text"]).slice(0, 100)])
        estimate(other, how, few, listed, settings, 0)
    base, begun, used = peak(), time.perf_counter(), time.process_time()
    result = estimate(folder, how, data, listed, settings, workers)
    result |= {"seconds": time.perf_counter() - begun, "mb": peak() - base}
    if not workers:
        result["cpu"] = time.process_time() - used
    print(json.dumps(result))


def estimate(
    folder: str, how: str, data: SealedSet, listed: Artifact, settings: LanguageModelSettings, workers: int
) -> dict[str, object]:
    texts = [(data, "text")]
    if how == "counts":  # estimation only, for comparison with lmplz
        words = read_vocabulary(listed.url)
        counts, _, _ = counted(all_texts([(data.url, "text")]), words, settings.order, CountSettings().at_once)
        sha = hashlib.sha256()
        with Path(f"{folder}/own.arpa").open("wb") as out:
            for chunk in estimate_counts(counts, words, settings).chunks():
                sha.update(chunk)
                out.write(chunk)
        return {"sha": sha.hexdigest()[:16]}
    result: dict[str, object] = {}
    run = Run(f"{folder}/{how}-{workers}", RayRunner(workers) if workers else InProcessRunner())
    if how == "job":
        made = run.train(ngram_job("lm", texts, listed, settings))
    else:
        made = train_ngrams_distributed(run, "lm", texts, listed, settings)
        result["parts"] = next(trace.records for trace in run.trace if trace.name == "lm_parts")
        result["units"] = next(trace.records for trace in run.trace if trace.name == "lm_counts")
    return {**result, "sha": made.files["lm.arpa"].removeprefix("lm-").removesuffix(".arpa")}


def measured(folder: Path, how: str, order: int, memory: int = 1 << 30, workers: int = 0) -> dict:
    command = [sys.executable, __file__, "--child", folder, how, order, memory, workers]
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def oracle(lmplz: str, plain: Path, order: int, folder: Path) -> dict:
    """Run lmplz and return its measurements."""
    command = [lmplz, "-o", str(order), "--discount_fallback", "-S", "1G", "-T", str(folder)]
    command += ["--text", str(plain), "--arpa", str(folder / "oracle.arpa")]
    begun = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{lmplz} failed")
    return {
        "seconds": time.perf_counter() - begun,
        "mb": usage.ru_maxrss / 1000,
        "cpu": usage.ru_utime + usage.ru_stime,
    }


def difference(ours: Path, theirs: Path) -> dict[str, float]:
    """Return the largest difference of any log-probability and back-off (base 10), and the number of unmatched
    n-grams."""
    rows = []
    for path in (ours, theirs):
        model = Arpa.from_bytes(path.read_bytes(), str(path))
        names = np.array([hash(word) for word in model.words], np.int64).view(np.uint64)
        found = {}
        for order, grams in enumerate(model.orders, start=1):
            key = np.zeros(len(grams), np.uint64)
            for column in grams.words.T:
                key = (key * np.uint64(0x9E3779B97F4A7C15) ^ (key >> np.uint64(29))) + names[column]
            at = np.argsort(key)
            backoff = grams.backoff if grams.backoff is not None else np.zeros(len(grams), np.float32)
            found[order] = (key[at], grams.logprob[at], backoff[at])
        rows.append(found)
    most = {"logprob": 0.0, "backoff": 0.0, "unlike": 0.0, "grams": 0.0}
    for order, (key, logprob, backoff) in rows[0].items():
        other, *values = rows[1][order]
        _, left, right = np.intersect1d(key, other, assume_unique=True, return_indices=True)
        most["grams"] += len(key)
        most["unlike"] += len(key) + len(other) - 2 * len(left)
        most["logprob"] = max(most["logprob"], float(np.abs(logprob[left] - values[0][right]).max()))
        most["backoff"] = max(most["backoff"], float(np.abs(backoff[left] - values[1][right]).max()))
    return most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lmplz")
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--order", type=int, default=4)
    parser.add_argument("--times", type=float, default=10.0)
    parser.add_argument("--ray", action="store_true", help="also with 1, 2 and 4 workers on Ray")
    given = parser.parse_args()
    process.choose_allocator()  # for the measured processes, as in the command line
    data = Path(os.environ.get("GRISTMILL_DATA") or "../shared/data")
    files = given.files or sorted(p for p in data.rglob("*") if p.suffix in TABLES)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        sealed, plain = gathered(folder, files)
        words = sum(len(line.split()) for line in plain.open())
        print(f"{words} words, {sealed.records} sentences, order {given.order}")
        build_vocabulary(Run(made, InProcessRunner()), "vocabulary", [(sealed, "text")])
        result: dict[str, object] = {"words": words}
        found = {"lmplz": oracle(given.lmplz, plain, given.order, folder)}
        found["own"] = measured(folder, "counts", given.order)
        unlike = difference(folder / "own.arpa", folder / "oracle.arpa")
        found["job"] = measured(folder, "job", given.order)
        memory = int(found["own"]["mb"] * 1e6 / given.times)
        found["spread"] = measured(folder, "spread", given.order, memory)
        for workers in (1, 2, 4) if given.ray else ():
            found[f"ray_{workers}"] = measured(folder, "spread", given.order, memory, workers)
        for name, one in found.items():
            speed = words / one.get("cpu", one["seconds"])  # per core; on Ray by wall time
            print(f"{name:8} {speed:>9.0f} words/s {one['mb']:>6.0f} MB", one)
        result |= {"difference": unlike, "memory_mb": memory / 1e6}
        result["same_bytes"] = len({one["sha"] for one in found.values() if "sha" in one}) == 1
        result["speed_ratio"] = found["lmplz"]["cpu"] / found["own"]["cpu"]
        result["memory_ratio"] = found["own"]["mb"] / found["lmplz"]["mb"]
        result["spread_within_memory"] = found["spread"]["mb"] / (memory / 1e6)
        print(json.dumps(result))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3], *map(int, sys.argv[4:]))
    else:
        main()
