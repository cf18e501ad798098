"""Rewrites of simulated sessions: precision, recall, wins and losses; and time and memory at several scales.

    python -m benchmarks.rewrites FOLDER                        # three seeds of 200,000 turns
    python -m benchmarks.rewrites FOLDER --scales 1 4 16        # and of 625,000 turns and more, to ten millions
    python -m benchmarks.rewrites FOLDER --seeds 0 --workers 0 1 2 4     # the same bytes, on Ray and in-process (0)

Invented sessions: users want one of many songs, some more than others. Of a request, ``--heard`` are understood; others
become one of a few corruptions that this song has, of which it shares one with another song, or one of the user's
own, or another song. Then some ask again,
perhaps to be understood in the same way, some go on to another song at once (noise), and some give up. Of the outcomes
some are wrong. What a request means is known, and with it which rewrites are right.

Each scale is mined in one new process, in-process with the memory of a worker that steps have by default; its peak of
resident memory is that of the process, with all that is imported.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.cluster.ray_runner import RayRunner
from gristmill.pipelines.run import Run
from gristmill.pipelines.sessions.rewrite_scores import (
    emitted,
    interval,
    last_reformulations,
    read_truth,
    score,
)
from gristmill.pipelines.sessions.rewrites import RewriteSettings, count_nodes, mine_rewrites
from gristmill.shards.dataset import SealedSet, find_sealed, seal_tables
from gristmill.shards.schema import SLOT, TRUTH_FIELDS, TURN_FIELDS

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.apart import apart

CHAINS = 120_000  # of a shard
STEPS = 4  # turns of a chain, at most
CORRUPTIONS = 3  # of a song
SCHEMA = pa.schema([*TURN_FIELDS, *TRUTH_FIELDS])


def simulated(folder: Path, turns: int, seed: int, heard: float) -> SealedSet:
    """Return about so many sealed turns."""
    url = str(folder / f"turns-{turns}-{seed}-{heard}")
    chains = int(turns / 1.19)
    shards = range(0, chains, CHAINS)
    made = (_shard(np.random.default_rng([seed, n]), min(CHAINS, chains - n), n, turns, heard) for n in shards)
    return find_sealed(url) or seal_tables(url, "turns", made)


def _shard(rng: np.random.Generator, chains: int, first: int, turns: int, heard: float) -> pa.Table:
    songs, users = max(50, turns // 200), max(50, turns // 40)
    # Songs by Zipf's law; of the corruptions of each the first is the commonest.
    wanted = np.minimum((songs ** rng.random(chains)).astype(np.int64), songs) - 1
    user = rng.integers(0, users, chains)
    session = np.arange(first, first + chains) // 2
    begin = np.where(np.arange(first, first + chains) % 2, rng.choice([20.0, 300.0], chains), 0.0) + 1.7e9
    alive, before = np.ones(chains, bool), np.full(chains, -1)
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("chain", "wanted", "read", "ok", "time", "step")}
    for step in range(STEPS):
        chain = np.flatnonzero(alive)
        meant = wanted[chain]
        draw, kind = rng.random(len(chain)), rng.random(len(chain))
        which = np.minimum(rng.geometric(0.6, len(chain)) - 1, CORRUPTIONS - 1)
        corrupted = songs + np.where(which == CORRUPTIONS - 1, meant // 2 * 2, meant) * CORRUPTIONS + which
        own = songs * (1 + CORRUPTIONS) + user[chain]
        other = rng.integers(0, songs, len(chain))
        wrong = np.where(kind < 0.85, corrupted, np.where(kind < 0.92, own, other))
        wrong = np.where((before[chain] >= 0) & (rng.random(len(chain)) < 0.3), before[chain], wrong)
        read = np.where(draw < heard, meant, wrong)
        right = read == meant
        columns["chain"].append(chain)
        columns["wanted"].append(meant)
        columns["read"].append(read)
        columns["ok"].append(right ^ (rng.random(len(chain)) < 0.03))
        columns["time"].append(begin[chain] + step * rng.uniform(8, 12, len(chain)))
        columns["step"].append(np.full(len(chain), step))
        before[chain] = np.where(right, -1, read)
        again = ~right & (rng.random(len(chain)) < 0.65)
        alive[chain] = again
        noise = again & (rng.random(len(chain)) < 0.15)
        wanted[chain[noise]] = rng.integers(0, songs, int(noise.sum()))
        before[chain[noise]] = -1
    flat = {name: np.concatenate(one) for name, one in columns.items()}
    order = np.lexsort((flat["step"], flat["chain"]))
    flat = {name: one[order] for name, one in flat.items()}
    chain = flat["chain"]
    turn = (first + chain) % 2 * STEPS + flat["step"]
    ids = _text("t", (first + chain) * 10 + flat["step"])
    said, meant = _text("song ", flat["read"]), _text("song ", flat["wanted"])
    text = pc.binary_join_element_wise("play ", said, "")
    rows: dict[str, Any] = {
        "id": ids,
        "session": _text("s", session[chain]),
        "turn": turn,
        "time": flat["time"],
        "user": _text("u", user[chain]),
        "asr_text": text,
        "domain": pa.repeat("music", len(chain)),
        "intent": pa.repeat("play", len(chain)),
        "slots": _slots(said),
        "succeeded": flat["ok"],
        "true_domain": pa.repeat("music", len(chain)),
        "true_intent": pa.repeat("play", len(chain)),
        "true_slots": _slots(meant),
        "meaning": meant,
        "failed": flat["read"] != flat["wanted"],
    }
    filled = [pa.array(rows[f.name], f.type) if f.name in rows else pa.nulls(len(chain), f.type) for f in SCHEMA]
    return pa.table(filled, schema=SCHEMA)


def _text(begin: str, values: np.ndarray) -> pa.Array:
    return pc.binary_join_element_wise(begin, pa.array(values).cast(pa.string()), "")


def _slots(values: pa.Array) -> pa.Array:
    size = len(values)
    place = pa.array(np.ones(size), pa.int32())
    slot = pa.StructArray.from_arrays([pa.repeat("song", size), values, place, place], fields=list(SLOT))
    return pa.ListArray.from_arrays(pa.array(np.arange(size + 1), pa.int32()), slot)


def quality(folder: Path, turns: int, seeds: int, heard: float) -> Iterator[dict[str, Any]]:
    """Yield the scores of both systems, with wins and losses in other sessions of the same kind."""
    settings = RewriteSettings()
    scores: dict[str, dict[str, dict[int, Any]]] = {}
    for seed in range(seeds):
        work = folder / f"quality-{seed}"
        shutil.rmtree(work, ignore_errors=True)
        run = Run(str(work), InProcessRunner())
        data = simulated(folder, turns, seed, heard)
        held_out = simulated(folder, turns, seed + 1000, heard)
        mined = mine_rewrites(run, settings, data)
        _, nodes = count_nodes(run, settings, held_out, "_held_out")
        truth = read_truth(mined, data, settings)
        systems = {"chain": emitted(mined.rewrites), "last_reformulation": last_reformulations(mined.nodes)}
        for system, rewrites in systems.items():
            found = score(rewrites, mined, truth, settings.guard.support, nodes)
            found["rewrites"] = len(rewrites.source)
            for name, one in found.items():
                scores.setdefault(system, {}).setdefault(name, {})[seed] = one
        print(json.dumps({"seed": seed, "reasons": mined.rewrites.seal["reasons"]}), flush=True)
    for system, found in scores.items():
        made = found.pop("rewrites")
        told: dict[str, Any] = {"system": system, "turns": turns, "rewrites": list(made.values())}
        for name, runs in found.items():
            one = interval(runs)
            told[name] = [round(value, 4) for value in (one.value, one.low, one.high)]
        yield told


def measured(folder: Path, turns: int, heard: float) -> dict[str, Any]:
    """Return the seconds of mining one scale on one thread, and its peak of memory."""
    pa.set_cpu_count(1)
    data = simulated(folder, turns, 0, heard)
    work = folder / "scale"
    shutil.rmtree(work, ignore_errors=True)
    run = Run(str(work), InProcessRunner())
    begun, used = time.perf_counter(), time.process_time()
    mined = mine_rewrites(run, RewriteSettings(), data)
    rows = mined.rewrites.records
    seconds = {"seconds": round(time.perf_counter() - begun, 1), "cpu_seconds": round(time.process_time() - used, 1)}
    told = json.loads(mined.components.read("training.json"))
    return {
        "transitions": mined.transitions.records,
        "rewrites": rows,
        **told,
        **seconds,
        "steps": {one.name: round(one.seconds, 1) for one in run.trace},
        "peak_mb": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) / 1e6),
    }


def mined_digests(folder: Path, turns: int, heard: float, workers: int) -> dict[str, Any]:
    """Return the digests of what is mined by so many workers of a Ray, or in-process with none, and the seconds."""
    data = simulated(folder, turns, 0, heard)
    work = folder / f"workers-{workers}"
    shutil.rmtree(work, ignore_errors=True)
    runner = RayRunner(workers) if workers else InProcessRunner()
    begun = time.perf_counter()
    mined = mine_rewrites(Run(str(work), runner), RewriteSettings(), data)
    digests = {one.name: one.digest[:12] for one in (mined.transitions, mined.nodes, mined.rewrites)}
    return {"workers": workers, "seconds": round(time.perf_counter() - begun, 1), "digests": digests}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--turns", type=int, default=200_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--heard", type=float, default=0.75, help="the share of requests that are understood")
    parser.add_argument("--scales", type=int, nargs="*", default=[], help="multiples of --unit turns")
    parser.add_argument("--unit", type=int, default=625_000)
    parser.add_argument("--workers", type=int, nargs="*", default=[], help="numbers of workers to mine --turns with")
    args = parser.parse_args()
    for found in quality(args.folder, args.turns, args.seeds, args.heard) if args.seeds else ():
        print(json.dumps(found), flush=True)
    for scale in args.scales:
        simulated(args.folder, scale * args.unit, 0, args.heard)
        print(json.dumps({"scale": scale, **apart(measured, args.folder, scale * args.unit, args.heard)}), flush=True)
    if args.workers:
        simulated(args.folder, args.turns, 0, args.heard)
        found = [apart(mined_digests, args.folder.absolute(), args.turns, args.heard, one) for one in args.workers]
        same = all(one["digests"] == found[0]["digests"] for one in found)
        print(*map(json.dumps, found), json.dumps({"digests_equal": same}), sep="\n", flush=True)


if __name__ == "__main__":
    main()
