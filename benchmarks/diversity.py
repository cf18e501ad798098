"""Selectors of diverse requests: the two rounds over parts beside the exact greedy choice of the whole set.

    python -m benchmarks.diversity FOLDER                  # 10^6 requests: half an hour of one core, 3 GB of memory
    python -m benchmarks.diversity FOLDER --rows 100000 --budget 500 --ground 2000
    python -m benchmarks.diversity FOLDER --table          # 20,000 requests only, every selector

Requests are made of templates and values with Zipf's frequencies, by seed; an embedding is the mean of those of its
template and a value, with noise. Of coverage and of facility location, the recipe's own steps choose a budget in one
process (parts one after the other), and lazy greedy chooses from all requests in memory; each in a new process. Told
are the objective of the two rounds and of a random choice relative to the exact greedy one, on the same ground sample,
seconds of CPU, and the peak of the resident memory. Then each
selector chooses a twentieth of 20,000 requests.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from gristmill.actors.requests.diversity import CHOSEN, GROUND, rows_of
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.models.requests.diversity import DiversitySettings, Selector, choose_rows, value
from gristmill.models.requests.grams import RequestRows
from gristmill.pipelines.requests.diversity import choose, order
from gristmill.pipelines.run import Run
from gristmill.shards.artifact import read_file
from gristmill.shards.dataset import SealedSet, find_sealed, open_sealed, seal_tables

import numpy as np
import pyarrow as pa

from benchmarks.apart import apart

SHARD, DIM = 20_000, 64
TEMPLATES, VALUES, WORDS = 2000, 5000, 4000
COLUMNS = ["id", "tokens", "embedding", "confidence", "distance"]


def requests(rows: int, seed: int) -> Iterator[pa.Table]:
    """Yield the requests, a table for each shard."""
    rng = np.random.Generator(np.random.Philox(key=[seed, 1]))
    words = np.array([f"w{n}" for n in range(WORDS)], dtype=object)

    def zipf(most: int, count: int) -> np.ndarray:
        return np.minimum(most * rng.random(count) ** 3, most - 1).astype(np.int64)

    templates = [words[zipf(WORDS, length)].tolist() for length in rng.integers(2, 8, TEMPLATES)]
    values = [words[zipf(WORDS, length)].tolist() for length in rng.integers(1, 4, VALUES)]
    centres, parts = rng.normal(size=(TEMPLATES, DIM)), rng.normal(size=(VALUES, DIM))
    for start in range(0, rows, SHARD):
        count = min(SHARD, rows - start)
        of, one, other = zipf(TEMPLATES, count), zipf(VALUES, count), zipf(VALUES, count)
        tokens = [
            [*templates[a], *values[b], *(values[c] if a % 2 else [])]
            for a, b, c in zip(of.tolist(), one.tolist(), other.tolist(), strict=True)
        ]
        vectors = centres[of] + 0.6 * parts[one] + 0.3 * rng.normal(size=(count, DIM))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        flat = pa.array(vectors.astype(np.float16).ravel())
        yield pa.table(
            {
                "id": [f"r{n:08d}" for n in range(start, start + count)],
                "tokens": pa.array(tokens, pa.list_(pa.string())),
                "embedding": pa.FixedSizeListArray.from_arrays(flat, DIM),
                "confidence": rng.beta(4, 1.5, count).astype(np.float32),
                "distance": rng.normal(size=count).astype(np.float32),
            }
        )


def sealed(folder: Path, rows: int, seed: int) -> SealedSet:
    """Return the sealed requests."""
    url = str(folder / f"requests-{rows}-{seed}")
    return find_sealed(url) or seal_tables(url, "requests", requests(rows, seed))


def in_memory(data: SealedSet, settings: DiversitySettings) -> RequestRows:
    """Return all requests, with what the selector reads."""
    compared = "embedding" if settings.has_ground else "tokens"
    found = [rows_of(table) for table in data.tables(["id", compared])]
    ids = [one for rows in found for one in rows.ids]
    if compared == "embedding":
        return RequestRows(
            ids, embeddings=np.concatenate([rows.embeddings for rows in found if rows.embeddings is not None])
        )
    return RequestRows(ids, [one for rows in found for one in rows.tokens or []])


def two_rounds(out: str, url: str, settings: DiversitySettings) -> dict[str, Any]:
    """Choose by the steps of a recipe."""
    shutil.rmtree(out, ignore_errors=True)
    run, begun = Run(out, InProcessRunner()), time.process_time()
    data = open_sealed(url)
    artifact = order(run, settings.selector, data, settings)
    artifact.read(CHOSEN)
    seconds = time.process_time() - begun
    known = json.loads(artifact.read("training.json"))
    return {
        "seconds": seconds,
        "parts": known["parts"],
        "candidates": known["candidates"],
        "chosen": artifact.url,
        "ground": next((one.url for one in run.trace if one.name.endswith("_ground")), None),
    }


def exact(url: str, settings: DiversitySettings, chosen: str, ground: str | None) -> dict[str, Any]:
    """Choose from all requests in memory, and compare with what was chosen in two rounds."""
    rows = in_memory(open_sealed(url), settings)
    around = {"ground": rows_of(pa.ipc.open_file(read_file(ground, GROUND)).read_all())} if ground else {}
    begun = time.process_time()
    picked = choose_rows(rows, settings.budget(len(rows)), settings, **around)
    seconds = time.process_time() - begun
    places = {name: place for place, name in enumerate(rows.ids)}
    other = np.array([places[name] for name in json.loads(read_file(chosen, CHOSEN))["ids"]])
    by_chance = np.random.Generator(np.random.Philox(key=[0, 9])).choice(len(rows), len(other), replace=False)

    def worth(places: np.ndarray) -> float:
        some = rows.take(places)
        return value(some, np.arange(len(some)), settings, **around)

    best = worth(picked.places)
    return {"seconds": seconds, "objective": worth(other) / best, "random": worth(by_chance) / best}


def compare(folder: Path, data: SealedSet, settings: DiversitySettings) -> None:
    """Print a selector's two rounds beside the exact choice."""
    made = apart(two_rounds, str(folder / "two-rounds"), data.url, settings)
    print(json.dumps({"selector": settings.selector, "two_rounds": made}), flush=True)
    whole = apart(exact, data.url, settings, made["chosen"], made["ground"])
    print(json.dumps({"selector": settings.selector, "exact": whole}), flush=True)


def table(folder: Path, data: SealedSet, share: float) -> None:
    """Print what each selector takes and reaches on a set that fits into one round."""
    rows = rows_of(pa.concat_tables(data.tables(COLUMNS)))
    places = {name: place for place, name in enumerate(rows.ids)}
    shutil.rmtree(folder / "all", ignore_errors=True)
    objectives = {
        name: DiversitySettings(selector=name, share=share)  # type: ignore[arg-type]
        for name in ("coverage", "facility_location", "k_centre")
    }
    found = {}
    for selector in get_args(Selector):
        settings = DiversitySettings(selector=selector, share=share)
        begun = time.process_time()
        chosen = choose(Run(str(folder / "all" / selector), InProcessRunner()), selector, data, settings)
        own = np.array([places[name] for table in chosen.tables(["id"]) for name in table["id"].to_pylist()])
        seconds = time.process_time() - begun
        worth = {name: value(rows, own, one) for name, one in objectives.items()}
        unsure = float(1 - np.asarray(rows.confidence)[own].mean()) if rows.confidence is not None else 0.0
        found[selector] = {"rows": len(own), "seconds": seconds, **worth, "unsure": unsure}
        print(selector, json.dumps(found[selector]), flush=True)
    print(
        "| selector | seconds | coverage | facility location | radius | mean uncertainty |\n| --- " + "| --- " * 5 + "|"
    )
    for name, one in found.items():
        reached = [one[key] / found[key][key] for key in ("coverage", "facility_location")]
        print(
            f"| {name} | {one['seconds']:.1f} | {reached[0]:.3f} | {reached[1]:.3f} | {one['k_centre']:.2f} "
            f"| {one['unsure']:.2f} |"
        )


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--budget", type=int, default=2000)
    parser.add_argument("--ground", type=int, default=5000)
    parser.add_argument("--oversample", type=float, default=8.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--selectors", nargs="+", default=["coverage", "facility_location"])
    parser.add_argument("--table", action="store_true", help="every selector on 20,000 requests only")
    args = parser.parse_args()
    if not args.table:
        data = sealed(args.folder, args.rows, args.seed)
        for selector in args.selectors:
            given = {"selector": selector, "count": args.budget, "ground_rows": args.ground, "seed": args.seed}
            compare(args.folder, data, DiversitySettings(**given, oversample=args.oversample))
    table(args.folder, sealed(args.folder, 20_000, args.seed), 0.05)


if __name__ == "__main__":
    main()
