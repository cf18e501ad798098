"""A step on Ray over object storage: ``python -m tests.cluster.requests_driver URL``; prints its number of shards."""

from __future__ import annotations

import sys

from gristmill.cluster.ray_runner import RayRunner
from gristmill.shards.engine import run_step
from tests.fault.law_actors import corpus, law_step

SHARDS = 16


def main(url: str) -> None:
    source = corpus(f"{url}/corpus", SHARDS, 8)
    run_step(law_step(source), f"{url}/out", RayRunner(2), 1)
    print(SHARDS)


if __name__ == "__main__":
    main(*sys.argv[1:])
