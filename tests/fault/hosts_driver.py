"""A driver on the head of two hosts, controlled line by line: ``python -m tests.fault.hosts_driver``.

``nodes N`` waits for N nodes; ``run OUT SEED`` runs the step and tells the host of each receipt, and at the
end the digest and the number of gaps that the audit finds.
"""

from __future__ import annotations

import sys
import time

from gristmill.cluster import session
from gristmill.cluster.ray_runner import RayRunner
from gristmill.shards.audit import audit_below
from gristmill.shards.dataset import SealedSet
from gristmill.shards.engine import Progress, run_step
from gristmill.shards.receipt import Receipt
from tests.fault.law_actors import corpus, law_step

SHARDS = 40


class PrintedProgress(Progress):
    def advance(self, receipt: Receipt) -> None:
        report("shard", receipt.shard, receipt.attempt["host"])


def report(*words: object) -> None:
    print(*words, flush=True)


def run(source: SealedSet, out: str, seed: int) -> None:
    sealed = run_step(law_step(source, None, 0.3), out, RayRunner(), seed, PrintedProgress())
    gaps = [gap for audit in audit_below(out) for gap in audit.gaps]
    report("sealed", sealed.digest, len(gaps))


def main() -> None:
    session.start()
    import ray

    source = corpus("s3://hosts/corpus", SHARDS)
    for line in sys.stdin:
        match line.split():
            case ["nodes", number]:
                while sum(node["Alive"] for node in ray.nodes()) != int(number):
                    time.sleep(0.5)
                report("nodes", number)
            case ["run", out, seed]:
                run(source, out, int(seed))


if __name__ == "__main__":
    main()
