"""Spans with values that no training request has: F1 of taggers trained with masked values, without, and of new words.

For each draw, values of catalogue slots are hidden; requests that have one are the test. Their domains are given, as
the interpretation of a request gives them. Run: ``python -m benchmarks.teaching PLACE ... [--draws 3]
[--out FOLDER]``; a place is a corpus of annotated requests, as ``corpus.places``; without any, requests are generated.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import PurePosixPath

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.nlu.corpora import RequestCorpusSettings, prepare_requests
from gristmill.pipelines.run import Run
from gristmill.pipelines.sessions.teaching import TeachingSettings, learn_teaching, score_teaching, teaching_metrics


def main() -> None:
    """Print the metrics of each corpus."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("places", nargs="*")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--out")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for number, place in enumerate(given.places or [None]):
            begun = time.perf_counter()
            name = "generated" if place is None else "/".join(PurePosixPath(place).parts[-2:])
            run = Run(f"{given.out or folder}/{number}", InProcessRunner())
            requests = prepare_requests(run, RequestCorpusSettings(places=place))
            made = {
                draw: learn_teaching(run, TeachingSettings(), requests, f"_{draw}", draw) for draw in range(given.draws)
            }
            scores = {draw: score_teaching(one) for draw, one in made.items()}
            for row in teaching_metrics(scores, name):
                draw = "all draws" if row.seed is None else f"draw {row.seed}"
                print(f"{name} {row.system} {row.metric} {draw}: {row.value:.3f} ({row.low:.3f} to {row.high:.3f})")
            sizes = [int(own["masked"].wanted.sum()) for own in scores.values()]
            print(f"{name}: {requests.records} requests; spans to find {sizes}; {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
