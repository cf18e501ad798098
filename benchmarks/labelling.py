"""Teacher labelling through the engine, against a bare torch loop over the same batches on the same device.

    python -m benchmarks.labelling [--device cpu|cuda] [--dim 256 --layers 8] [--shards 4] [--records 64]

The bare loop has its features in memory, pads, runs the network in the same precision, takes the top k and copies them
to the host. The engine also reads Parquet, cuts batches, checks, packs, writes and commits. Goal: 0.95.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator

from gristmill.actors.speech.teacher import TeacherSettings, labelling
from gristmill.actors.speech.teacher_source import pad
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.models.speech.acoustic import AcousticModel, AcousticSettings
from gristmill.models.speech.checkpoint import save_acoustic
from gristmill.models.speech.features import METADATA_KEY, FeatureSettings
from gristmill.models.speech.units import phonemes
from gristmill.shards.artifact import put_artifact
from gristmill.shards.batching import canonical_batches
from gristmill.shards.dataset import seal_tables
from gristmill.shards.schema import FEATURE_FIELDS
from gristmill.shards.stage import Resources
from gristmill.shards.step import ShardTask, Step

import numpy as np
import pyarrow as pa
import torch


def corpus(shards: int, records: int, settings: FeatureSettings) -> Iterator[pa.Table]:
    """Yield features of utterances of 2 to 16 s, as made by ingest and the feature stage."""
    rng = np.random.default_rng(0)
    for shard in range(shards):
        seconds = rng.uniform(2.0, 16.0, records)
        made = [rng.standard_normal((int(s / settings.hop_s), settings.n_mels), dtype=np.float32) for s in seconds]
        flat = pa.array([one.astype(np.float16).ravel() for one in made], FEATURE_FIELDS[0].type)
        ids = [f"{shard}-{i}" for i in range(records)]
        table = pa.table({"id": ids, "duration": seconds, "features": flat})
        yield table.replace_schema_metadata({METADATA_KEY: settings.to_json()})


def bare(network: AcousticModel, batches: list[list[np.ndarray]], k: int, device: torch.device) -> float:
    """Return the seconds of a plain loop."""
    begun = clock(device)
    half = device.type == "cuda"
    for batch in batches:
        with torch.inference_mode(), torch.autocast(device.type, torch.float16 if half else None, enabled=half):
            log_probs, _ = network(*pad(batch, device))
            values, ids = log_probs.topk(k, -1)
            tail = (1 - values.exp().sum(-1)).clamp_min(1e-7).log()
            for part in (values.half(), ids.to(torch.int16), tail.half()):
                part.cpu()
    return clock(device) - begun


def clock(device: torch.device) -> float:
    """Return wall time on a GPU, and processor time on a CPU, where other processes may be running."""
    return time.perf_counter() if device.type == "cuda" else time.process_time()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--units", type=int, default=500)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--records", type=int, default=64, help="per shard")
    parser.add_argument("--k", type=int, default=20)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = torch.device(given.device)
    settings = FeatureSettings()
    units = phonemes([f"p{i}" for i in range(given.units - 1)])
    sizes = AcousticSettings(dim=given.dim, layers=given.layers)
    network = AcousticModel(sizes, settings.n_mels, given.units).eval()
    with tempfile.TemporaryDirectory() as folder:
        data = save_acoustic(network, units, settings)
        model = put_artifact(f"{folder}/model", {"model.safetensors": data}, {}).ref
        sealed = seal_tables(f"{folder}/in", "in", corpus(given.shards + 1, given.records, settings))
        resources = Resources(gpus=float(given.device == "cuda"))
        stage = labelling(TeacherSettings(source="checkpoint", k=given.k), model, resources=resources)
        step = Step("label", (stage,), sealed)
        task = ShardTask(f"{folder}/out", step.stages, step.schema, sealed.schema, 0, step.deterministic)
        engine = InProcessRunner().execute(task, step.index())
        network.to(device)
        times: list[tuple[float, float, float]] = []
        for shard in range(given.shards + 1):
            table = sealed.read(shard)
            held = [np.array(one).reshape(-1, settings.n_mels) for one in table["features"].to_numpy()]
            batches = [[held[row] for row in rows] for rows in canonical_batches(table, stage.batch)]
            # The two alternate shard by shard, so that other load affects both equally.
            plain = bare(network, batches, given.k, device)
            begun = clock(device)
            next(engine)
            times.append((plain, clock(device) - begun))
        plain, whole = np.array(times[1:]).sum(axis=0)  # the first shard is a warm-up
        hours = sum(sealed.read(shard)["duration"].to_numpy().sum() for shard in range(1, given.shards + 1)) / 3600
    size = sum(p.numel() for p in network.parameters()) / 1e6
    print(f"{size:.1f} M parameters, {hours:.2f} h of speech, {given.shards} shards, device {given.device}")
    print(f"bare loop {plain:.2f} s, engine {whole:.2f} s")
    print(f"{hours * 3600 / whole:.0f} times real time; engine to bare loop: {plain / whole:.3f} (goal 0.95)")


if __name__ == "__main__":
    main()
