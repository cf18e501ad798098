"""A tiny sentence-transformers model with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest


def make_embedder(folder: Path, seed: int = 0) -> str:
    """Write a model with vectors of 16 dimensions, and return its folder."""
    models = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    sentence_transformers = pytest.importorskip("sentence_transformers")
    transformers = pytest.importorskip("transformers")
    import torch

    letters = [chr(n) for n in (*range(97, 123), *range(0x900, 0x970))]
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(names))
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=len(names),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    base = folder / "base"
    transformers.BertModel(config).save_pretrained(base)
    tokenizer = transformers.BertTokenizer(str(folder / "vocab.txt"), strip_accents=False, model_max_length=64)
    tokenizer.save_pretrained(base)
    transformer = models.Transformer(str(base))
    pooling = models.Pooling(16)
    whole = sentence_transformers.SentenceTransformer(modules=[transformer, pooling], device="cpu")
    whole.save(str(folder / "model"))
    return str(folder / "model")
