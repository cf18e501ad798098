"""Weights of all domains, trained independently, against one joint model: wall time, SemER and log loss.

The joint model is R3 over all weights at once: expected SemER of the whole list and cross-entropy of all hypotheses, by
L-BFGS from R0, with the same regularisation towards it. Both learn from the lists of a finished recipe and rank its
test part.
Run: ``python -m benchmarks.rerank_joint OUT [--workers 2]``, OUT of configs/rerank-hwu64.yaml.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time

from gristmill.actors.nlu.rerank import lists_of, read_weights
from gristmill.actors.nlu.weight_trainer import WeightSettings
from gristmill.cluster import session
from gristmill.cluster.ray_runner import RayRunner
from gristmill.models.measures.calibration import log_losses
from gristmill.models.nlu.rerankers import DomainReranker, Lists, Reranker
from gristmill.pipelines.command.export import find_set
from gristmill.pipelines.nlu.systems import train_weights
from gristmill.pipelines.run import Run
from gristmill.shards.dataset import SealedSet

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.optimize import minimize

SETTINGS = WeightSettings()


def halves(sealed: SealedSet) -> tuple[Lists, Lists, pa.Table]:
    table = pa.concat_tables(sealed.tables(["fold", "reference_length", "hypotheses"]))
    held = pc.equal(table["fold"], -1)
    test = table.filter(held)
    return lists_of(table.filter(pc.invert(held)), labelled=True), lists_of(test, labelled=True), test


def joint(lists: Lists) -> Reranker:
    """Fit all domains' weights at once."""
    assert lists.semer is not None
    assert lists.correct is not None
    number = len(lists.domains)
    utterances = len(lists.offsets) - 1
    features = np.concatenate([lists.logs, np.ones((1, len(lists.domain)))])
    full = np.flatnonzero(np.diff(lists.offsets))
    starts = lists.offsets[full]
    place = np.repeat(np.arange(len(full)), np.diff(lists.offsets)[full])
    start = np.zeros((4, number))
    start[:3] = 1.0

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        point = flat.reshape(4, number)
        s = (point[:, lists.domain] * features).sum(0)
        away = point - start
        away[3] = 0.0
        mass = np.exp(s - np.maximum.reduceat(s, starts)[place])
        share = mass / np.add.reduceat(mass, starts)[place]
        expected = np.add.reduceat(share * lists.semer, starts)
        c = lists.correct.astype(float)
        value = 0.5 * SETTINGS.l2 * (away**2).sum() + expected.sum() + (np.logaddexp(0, s) - c * s).sum()
        slope = share * (lists.semer - expected[place]) + np.exp(-np.logaddexp(0, -s)) - c
        gradient = np.stack([np.bincount(lists.domain, slope * row, number) for row in features])
        return value / utterances, ((gradient + SETTINGS.l2 * away) / utterances).ravel()

    found = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 2000, "maxfun": 4000})
    point = found.x.reshape(4, number)
    return Reranker(
        DomainReranker(name, "R3", tuple(point[:3, d].tolist()), float(point[3, d]))
        for d, name in enumerate(lists.domains)
    )


def judged(reranker: Reranker, test: Lists, table: pa.Table) -> dict[str, float]:
    assert test.semer is not None
    assert test.correct is not None
    scores = reranker.score(test)
    lengths = table["reference_length"].to_numpy()
    best = test.offsets[:-1] + scores.best
    errors = np.where(scores.best >= 0, test.semer[np.minimum(best, len(test.semer) - 1)] * lengths, lengths)
    return {
        "semer": float(errors.sum() / lengths.sum()),
        "nll": float(log_losses(scores.confidence, test.correct).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    sealed = find_set(f"{given.out}/hypotheses_0")
    train, test, table = halves(sealed)
    begun = time.perf_counter()
    together = joint(train)
    joint_seconds = time.perf_counter() - begun
    session.start(given.workers)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        run = Run(folder, RayRunner(given.workers))
        made = train_weights(run, SETTINGS, {0: sealed}, list(train.domains))[0]
        all_seconds = time.perf_counter() - begun
        apart = Reranker(read_weights(artifact.url, domain) for domain, artifact in made["R3"].items())
    results = {"joint": judged(together, test, table), "apart": judged(apart, test, table)}
    for kind, measures in results.items():
        print(f"{kind:6} SemER {measures['semer']:.4f}, log loss {measures['nll']:.4f}")
    print(f"joint R3 {joint_seconds:.1f} s; R1, R2 and R3 of {len(train.domains)} domains on Ray {all_seconds:.1f} s")
    print(
        json.dumps(
            {
                "semer_ratio": results["apart"]["semer"] / results["joint"]["semer"],
                "seconds": [joint_seconds, all_seconds],
            }
        )
    )


if __name__ == "__main__":
    main()
