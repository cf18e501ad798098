"""What a pinned instruction set costs, and which bytes it gives: the same work at each level that this machine offers.

    python -m benchmarks.processor_level [--rounds 5]

One process a level, all on one core, in turns. Prints the digest of each piece of work, its CPU time over that of the
default level (medians over the rounds: below 1 is faster), and the same for the default level with those kernels of MKL
that Intel's processors and others share.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from gristmill.shards import processor

ROOT = Path(__file__).resolve().parent.parent

KINDS = ("rooms", "features", "labelling", "acoustic", "conformer", "translator", "domain")
SHARED = f"{processor.DEFAULT}, MKL shared"

WORKER = """
import gristmill, json, os, sys, time
os.environ |= json.loads(sys.argv[2])  # before torch is loaded
import numpy as np, torch
from gristmill.actors.nlu.domain_trainer import DomainTraining, train as train_domain
from gristmill.actors.speech.phases import AcousticTraining
from gristmill.actors.speech.trainer import train as train_acoustic
from gristmill.actors.text.translator_trainer import TranslatorTraining, train as train_translator
from gristmill.cluster.inprocess import InProcessContext
from gristmill.models.nlu.neural import NeuralSettings
from gristmill.models.speech import features, rooms
from gristmill.models.speech.acoustic import AcousticModel, AcousticSettings
from gristmill.shards import canonical, process

root = sys.argv[1]
process.prepare()
data = {"gold": {"features": f"{root}/speech/gold", "text": "text"}}
data["noisy"] = {"features": f"{root}/speech/noisy", "labels": f"{root}/speech/labels"}
phase = {"soft_weight": 1.0, "ctc_weight": 0.5, "soft": {"k": 2}, "schedule": {"steps": 20}}
lstm = {"encoder": "lstm", "dim": 160, "layers": 2, "subsampling": 2, "channels": 16}
conformer = {"dim": 96, "layers": 2, "channels": 16, "subsampling": 2}
torch.manual_seed(0)
network = AcousticModel(AcousticSettings(**lstm), 64, 29).eval()
speech = np.random.default_rng(0).standard_normal((8, 32000)).astype(np.float32)

def make_rooms(context):
    made = []
    for number in range(60):
        rng = np.random.default_rng(number)
        room = rooms.draw_room(rng, rooms.RoomSettings(rt60=(0.3, 0.3)))
        made.append(rooms.impulse_responses(room, 16000, rng))
    return {"files": {str(number): one.tobytes() for number, one in enumerate(made)}}

def make_features(context):
    given = features.FeatureSettings()
    return {"files": {"mels": b"".join(features.log_mel(one, given).tobytes() for one in speech for _ in range(10))}}

def label(context):
    given = features.FeatureSettings()
    mels = torch.from_numpy(np.stack([features.log_mel(one, given) for one in speech])).float()
    with torch.inference_mode():
        made = [network(mels, torch.full((8,), mels.shape[1]))[0].topk(20, -1)[0] for _ in range(4)]
    return {"files": {"labels": made[0].numpy().tobytes()}}

def acoustic(model):
    given = AcousticTraining(phases=[phase], batch_frames=600, model=model, ema=0.99)
    return lambda context: train_acoustic(given, context, data=data, units=f"{root}/speech/units")

translator = TranslatorTraining(units=120, epochs=None, steps=20, batch_units=400)
domain = DomainTraining(domain="alarm", model=NeuralSettings(epochs=15, negatives=None))
work = {
    "rooms": make_rooms,
    "features": make_features,
    "labelling": label,
    "acoustic": acoustic(lstm),
    "conformer": acoustic(conformer),
    "translator": lambda c: train_translator(translator, c, data=[(f"{root}/pairs", 1.0)]),
    "domain": lambda c: train_domain(domain, c, data=f"{root}/requests"),
}
for line in sys.stdin:
    begun = time.process_time()
    made = work[line.strip()](InProcessContext(f"{root}/none-{os.getpid()}-{time.monotonic_ns()}"))
    spent = time.process_time() - begun
    digest = canonical.digest({name: canonical.sha256(data) for name, data in sorted(made["files"].items())})
    print(json.dumps([spent, digest[:12]]), flush=True)
"""


class Worker:
    """A process that works at one level, with further variables that take effect after the pin."""

    def __init__(self, level: str, root: str, more: dict[str, str]) -> None:
        environment = {**processor.environment(level), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", WORKER, root, json.dumps(more)]
        pipe = subprocess.PIPE
        self.process: Any = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment, cwd=root)

    def work(self, kind: str) -> tuple[float, str]:
        """Work once; return the CPU seconds and the digest of the result."""
        self.process.stdin.write(f"{kind}\n")
        self.process.stdin.flush()
        spent, digest = json.loads(self.process.stdout.readline())
        return spent, digest


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=KINDS)
    given = parser.parse_args()
    processor.keep(processor.DEFAULT)
    from tests.actors.goldens import make_data

    here = processor.PINNED.index(processor.offered())
    levels = [*reversed(processor.PINNED[: here + 1]), processor.NATIVE]
    print(f"{processor.model()} offers {processor.offered()}; CPU seconds over those of {processor.DEFAULT}")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        make_data(Path(folder))
        workers = {level: Worker(level, folder, {}) for level in levels}
        workers[SHARED] = Worker(processor.DEFAULT, folder, {"MKL_CBWR": "COMPATIBLE"})
        for kind in given.kinds:
            spent: dict[str, list[float]] = {name: [] for name in workers}
            digests = {}
            for number in range(given.rounds + 1):
                for name in sorted(workers, reverse=bool(number % 2)):
                    seconds, digests[name] = workers[name].work(kind)
                    spent[name] += [seconds] if number else []  # the first warms up
            base = statistics.median(spent[processor.DEFAULT])
            print(f"{kind} ({base:.2f} s)", flush=True)
            for name in workers:
                print(f"  {name:22} {digests[name]} {statistics.median(spent[name]) / base:6.3f}", flush=True)
        for worker in workers.values():
            worker.process.stdin.close()
            worker.process.wait()


if __name__ == "__main__":
    main()
