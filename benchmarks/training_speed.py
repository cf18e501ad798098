"""Training speed of this checkout beside another's: acoustic models, translators, neural domain models.

    python -m benchmarks.training_speed OLD [--rounds 5]

Prints, for each training, the ratio of CPU times (old / new: above 1 is faster) of medians over interleaved rounds, one
process a checkout, both on one core: cores differ by what else shares their caches. Data are made by this checkout,
with seeds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("acoustic", "translator", "domain")

WORKER = """
import sys, time
from gristmill.actors.nlu.domain_trainer import DomainTraining, train as train_domain
from gristmill.actors.speech.phases import AcousticTraining
from gristmill.actors.speech.trainer import train as train_acoustic
from gristmill.actors.text.translator_trainer import TranslatorTraining, train as train_translator
from gristmill.cluster.inprocess import InProcessContext
from gristmill.models.nlu.neural import NeuralSettings

root = sys.argv[1]
sources = {"gold": {"features": f"{root}/speech/gold", "text": "text"}}
sources["noisy"] = {"features": f"{root}/speech/noisy", "labels": f"{root}/speech/labels"}
phase = {"soft_weight": 1.0, "ctc_weight": 0.5, "soft": {"k": 2}, "schedule": {"steps": 20}}
model = {"dim": 96, "layers": 2, "channels": 16, "subsampling": 2}
acoustic = AcousticTraining(phases=[phase], batch_frames=600, model=model, ema=0.99)
translator = TranslatorTraining(units=120, epochs=None, steps=20, batch_units=400)
domain = DomainTraining(domain="alarm", model=NeuralSettings(epochs=15, negatives=None))
trainings = {
    "acoustic": lambda c: train_acoustic(acoustic, c, data=sources, units=f"{root}/speech/units"),
    "translator": lambda c: train_translator(translator, c, data=[(f"{root}/pairs", 1.0)]),
    "domain": lambda c: train_domain(domain, c, data=f"{root}/requests"),
}
for line in sys.stdin:
    begun = time.process_time()
    trainings[line.strip()](InProcessContext(f"{root}/none-{time.monotonic_ns()}"))
    print(time.process_time() - begun, flush=True)
"""


class Worker:
    """A process that trains with one checkout's code."""

    def __init__(self, checkout: Path, root: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", WORKER, root]
        pipe = subprocess.PIPE
        self.process: Any = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment, cwd=root)

    def seconds(self, kind: str) -> float:
        """Train once and return the CPU seconds."""
        self.process.stdin.write(f"{kind}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("old", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    from tests.actors.goldens import make_data

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        make_data(Path(folder))
        workers = {"old": Worker(given.old.resolve(), folder), "new": Worker(ROOT, folder)}
        for kind in KINDS:
            found: dict[str, list[float]] = {name: [] for name in workers}
            for number in range(given.rounds + 1):
                for name in sorted(workers, reverse=bool(number % 2)):
                    spent = workers[name].seconds(kind)
                    found[name] += [spent] if number else []  # the first warms up
            old, new = (statistics.median(found[name]) for name in ("old", "new"))
            print(f"{kind}: {old / new:.3f} (CPU seconds {old:.2f} and {new:.2f}, {given.rounds} rounds)", flush=True)
        for worker in workers.values():
            worker.process.stdin.close()
            worker.process.wait()


if __name__ == "__main__":
    main()
