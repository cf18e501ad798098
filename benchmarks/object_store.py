"""The number of requests that a step sends to an S3 server: per shard, and once per step.

Goal: 2 reads and 2 writes per shard, another write with rejects, another read for a join. Each step runs over two
inputs of different lengths, so that the cost per shard can be separated from the fixed cost. A proxy counts the
requests of all processes.
Run: ``python -m benchmarks.object_store [--ray]``.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections import Counter
from pathlib import Path

from gristmill.shards.dataset import SealedSet
from gristmill.shards.engine import Runner, run_step
from gristmill.shards.index import Cut, Join
from gristmill.shards.step import Step

from tests.counting import CountingProxy
from tests.fault.law_actors import corpus, law_step, upper

FEW, MANY = 4, 16


def count_requests(proxy: CountingProxy, url: str, shards: int, runner: Runner) -> dict[str, Counter[str]]:
    """Return the requests of steps over so many shards, by case and operation."""
    source = corpus(f"{url}/corpus", shards, 8)
    made: dict[str, Counter[str]] = {}

    def counted(case: str, step: Step) -> SealedSet:
        begun = len(proxy.requests)
        sealed = run_step(step, url, runner, 1)
        made[case] = proxy.counts(begun)
        return sealed

    law = law_step(source)
    counted("three stages", law)
    counted("the same again", law)
    other = counted("cut anew", Step("upper", (upper(),), source, cut=Cut(rows=8)))
    counted("a join", Step("joined", (), source, joins=(Join(other, ("upper",)),)))
    return made


def each_and_once(few: Counter[str], many: Counter[str]) -> dict[str, tuple[float, float]]:
    """Return for each operation the number of requests per shard, and the fixed number."""
    costs = {}
    for name in sorted({*few, *many}):
        each = (many[name] - few[name]) / (MANY - FEW)
        costs[name] = (round(each, 2), round(few[name] - each * FEW, 2))
    return costs


def requests_of_steps(proxy: CountingProxy, url: str, runner: Runner) -> dict[str, dict[str, tuple[float, float]]]:
    """Return the requests per shard and the fixed number, by case and operation."""
    few, many = (count_requests(proxy, f"{url}/{shards}", shards, runner) for shards in (FEW, MANY))
    return {case: each_and_once(few[case], many[case]) for case in few}


def main() -> None:
    from tests.ports import free_ports
    from tests.weed import GRPC, Weed

    parser = argparse.ArgumentParser()
    parser.add_argument("--ray", action="store_true", help="on Ray, else in-process")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Weed(Path(folder), free_ports(4, partner=GRPC))
        server.start()
        try:
            os.environ |= server.environment
            server.wait("benchmarks")
            with CountingProxy(server.endpoint.removeprefix("http://")) as proxy:
                os.environ["AWS_ENDPOINT_URL"] = proxy.url
                runner: Runner
                if given.ray:
                    from gristmill.cluster.ray_runner import RayRunner

                    runner = RayRunner(2)
                else:
                    from gristmill.cluster.inprocess import InProcessRunner

                    runner = InProcessRunner()
                costs = requests_of_steps(proxy, "s3://benchmarks/steps", runner)
        finally:
            server.kill()
    print("| step | operation | per shard | once |\n| --- | --- | ---: | ---: |")
    for case, operations in costs.items():
        for name, (each, once) in operations.items():
            print(f"| {case} | {name} | {each:g} | {once:g} |")
    print(json.dumps(costs))


if __name__ == "__main__":
    main()
