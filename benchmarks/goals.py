"""Latent goals: planted follow-ups found in simulated sessions, and a trigger trained on real offers.

Sessions are drawn: popular goals by Zipf's law, planted pairs of which the second follows the first at times, and goals
that are misread at first and then rephrased, so that a wrong goal is often followed by a right one. All of it is
invented. Beside the miner are the pairs by their number of sessions alone. Given sessions with real offers (those of
Schema-Guided Dialogue), the area under the ROC curve and the calibration error of the trigger are told, beside those of
the rate of each offered goal: on the published development part, and cross-validated over sessions.
Run: ``python -m benchmarks.goals [--offers sgd_sessions.jsonl.gz] [--sessions 60000] [--seeds 3]``.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.models.measures.calibration import wilson
from gristmill.pipelines.run import Run
from gristmill.pipelines.sessions.goals import GoalSettings, goal_truth, mine_goals, score_goals
from gristmill.pipelines.sessions.trigger import OfferSettings, cross_validated, learn_trigger, trigger_metrics
from gristmill.shards.random import RecordRandom
from gristmill.shards.schema import TRUTH_FIELDS, TURN_FIELDS

import numpy as np
import pyarrow as pa

SCHEMA = pa.schema([*TURN_FIELDS, *TRUTH_FIELDS])
GOALS, PLANTED, MISREAD = 500, 150, 60
FOLLOW = 0.3  # probability of a planted goal after its first
WORDS = 400


def planted(seed: int) -> dict[int, int]:
    """Return the planted goal after each of some goals."""
    order = np.random.default_rng([seed, 1]).permutation(GOALS).tolist()
    return {order[2 * n]: order[2 * n + 1] for n in range(PLANTED)}


def turns(sessions: int, seed: int) -> Iterator[pa.Table]:
    """Yield the turns of sessions."""
    random, follows = RecordRandom(seed, "goals benchmark"), planted(seed)
    popular = np.cumsum((np.random.default_rng([seed, 2]).permutation(GOALS) + 10.0) ** -0.7)
    order = np.random.default_rng([seed, 3]).permutation(GOALS)
    misread = {int(order[n]): int(order[n + MISREAD]) for n in range(MISREAD)}
    rows: list[dict] = []
    for number in range(sessions):
        name = f"s{number:07d}"
        rng = random(name)
        user = f"u{int(2000 * rng.random() ** 2):04d}"
        time_of, turn = 60.0 * number, 0
        goal, role = _goal(rng, popular), "first"
        for _ in range(rng.geometric(0.45)):
            said = [f"g{goal}a", f"g{goal}b", *(f"w{word}" for word in rng.integers(WORDS, size=3))]
            read = [(said, goal, role)]
            if goal in misread and rng.random() < 0.4:
                again = [*said[:-1], f"w{rng.integers(WORDS)}"]
                read = [(said, misread[goal], role), (again, goal, "rephrase")]
            for tokens, found, what in read:
                time_of += 15.0
                rows.append(_row(name, turn, time_of, user, tokens, found, what))
                turn += 1
            follow = goal in follows and rng.random() < FOLLOW
            goal, role = (follows[goal], "follow_up") if follow else (_goal(rng, popular), "first")
        if len(rows) >= 5000:
            yield pa.Table.from_pylist(rows, schema=SCHEMA)
            rows = []
    yield pa.Table.from_pylist(rows, schema=SCHEMA)


def _goal(rng: np.random.Generator, popular: np.ndarray) -> int:
    return int(np.searchsorted(popular, rng.random() * popular[-1], side="right"))


def _row(name: str, turn: int, at: float, user: str, tokens: list[str], goal: int, role: str) -> dict:
    made = {"id": f"{name}/{turn}", "session": name, "turn": turn, "time": at, "user": user, "tokens": tokens}
    made |= {"text": " ".join(tokens), "domain": f"d{goal % 20}", "intent": f"i{goal}", "slots": []}
    return made | {"role": role}


def mine(sessions: int, seed: int, out: str) -> None:
    """Print the precision of the miner and of counts."""
    begun = time.perf_counter()
    run = Run(f"{out}/{seed}", InProcessRunner())
    made = run.source("turns", lambda: turns(sessions, seed), {"sessions": sessions, "seed": seed})
    truth = goal_truth(made, ((_name(one), _name(other)) for one, other in planted(seed).items()))
    settings = GoalSettings()
    found = mine_goals(run, settings, made)
    tables = {by: found.ranked(by) for by in ("npmi", "pmi", "llr", "support")}
    for system, rows in {**tables, "count": found.by_count(settings.follow_ups)}.items():
        scores = score_goals(rows, truth)
        low, high = wilson(round(scores.precision * scores.found), scores.found)
        print(
            f"goals seed {seed} {system}: precision@{scores.found} {scores.precision:.3f} ({low:.3f} to {high:.3f}), "
            f"rephrases {scores.rephrases}, of all {len(rows)}: {score_goals(rows, truth, len(rows))}"
        )
    print(f"{made.records} turns, {found.counted.records} pairs, {time.perf_counter() - begun:.0f} s")
    print(f"rejected: {found.follow_ups.seal['reasons']}")


def _name(goal: int) -> str:
    return f"d{goal % 20}/i{goal}"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--offers")
    parser.add_argument("--sessions", type=int, default=60_000)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as out:
        for seed in range(given.seeds if given.sessions else 0):
            mine(given.sessions, seed, out)
        if given.offers:
            run = Run(f"{out}/offers", InProcessRunner())
            for words in (True, False):
                settings = OfferSettings(places=given.offers)
                settings = settings.but(training=settings.training.but(words=words))
                made = learn_trigger(run, settings, "" if words else "_without_words")
                rows = trigger_metrics(made, settings.training)
                for row in (*rows, *cross_validated(made.offers.url, settings.training)):
                    bounds = "" if row.low is None else f" ({row.low:.3f} to {row.high:.3f})"
                    told = "with words" if words else "without words"
                    print(f"{row.test_set} {row.system} {row.metric} {told}: {row.value:.3f}{bounds}, {row.n} offers")


if __name__ == "__main__":
    main()
