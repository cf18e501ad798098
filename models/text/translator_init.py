"""Initialisation of translators with little training text: the network starts as a word-by-word translator.

Training on some ten thousand pairs spends most of its time learning which units correspond, which counting finds in
seconds: target units get the leading singular vectors of their co-occurrence in pairs (as in latent semantic
analysis, Deerwester et al. 1990), and source units the mean of target units by their probability under IBM model 1
(Brown et al. 1993). Cross-attention starts as the identity, so that the decoder copies the attended unit, and the other
sublayers are scaled down. Only the training pairs are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

MOST_PAIRS = 200_000  # used for counting
ROUNDS = 6  # of EM
_DRAWN = 0.5  # weight of a random direction in a target unit's vector: separates units that always co-occur
_ITERATIONS = 3
_DAMPED = 0.3  # factor of the random weights of sublayers that would blur the attended unit


def bilingual_start(model: Any, source: Sequence[np.ndarray], target: Sequence[np.ndarray], seed: int) -> None:
    """Initialise a new network from its training pairs, given as unit numbers with their ends.

    Units that are in no pair keep their random vectors. Networks with one embedding for both sides, where the vectors
    of source and target cannot differ, get the target's.
    """
    _pass_through(model)
    config = model.config
    source, target = ([row[:-1] for row in rows[:MOST_PAIRS]] for rows in (source, target))
    vocabulary = config.decoder_vocab_size
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        vectors = _target_vectors(source, target, vocabulary, config.d_model, generator)
        links = lexicon(source, target, vocabulary)
        both = links @ vectors
        seen = [torch.zeros(vocabulary, dtype=torch.bool) for _ in range(2)]
        for mask, rows in zip(seen, (source, target), strict=True):
            mask[torch.from_numpy(np.unique(np.concatenate(rows)))] = True
        encoder, decoder = model.model.encoder.embed_tokens.weight, model.model.decoder.embed_tokens.weight
        if encoder is decoder:
            both[seen[1]] = vectors[seen[1]]
            encoder[seen[0] | seen[1]] = _unit(both)[seen[0] | seen[1]]
            return
        encoder[seen[0]] = _unit(both)[seen[0]]
        decoder[seen[1]] = vectors[seen[1]]


def _pass_through(model: Any) -> None:
    with torch.no_grad():
        for layer in (*model.model.encoder.layers, *model.model.decoder.layers):
            layer.self_attn.out_proj.weight.mul_(_DAMPED)
            layer.fc2.weight.mul_(_DAMPED)
        for layer in model.model.decoder.layers:
            torch.nn.init.eye_(layer.encoder_attn.v_proj.weight)
            torch.nn.init.eye_(layer.encoder_attn.out_proj.weight)


def lexicon(source: Sequence[np.ndarray], target: Sequence[np.ndarray], vocabulary: int) -> Tensor:
    """Return p(target unit | source unit) of IBM model 1 as a sparse matrix (source units, target units)."""
    sizes = np.array([len(row) for row in target])
    linked = np.concatenate([np.repeat(s, len(t)) for s, t in zip(source, target, strict=True)])
    others = np.concatenate([np.tile(t, len(s)) for s, t in zip(source, target, strict=True)])
    # The target position, over all pairs, of each link.
    starts = np.cumsum(sizes) - sizes
    place = np.concatenate(
        [start + np.tile(np.arange(len(t)), len(s)) for s, t, start in zip(source, target, starts, strict=True)]
    )
    keys, link = np.unique(linked.astype(np.int64) * vocabulary + others, return_inverse=True)
    unit = keys // vocabulary
    share: np.ndarray = np.ones(len(keys))
    for _ in range(ROUNDS):
        mass = share[link]
        mass = mass / np.bincount(place, mass)[place]
        share = np.bincount(link, mass, len(keys))
        share = share / np.bincount(unit, share, vocabulary)[unit]
    indices = torch.from_numpy(np.stack([unit, keys % vocabulary]))
    return torch.sparse_coo_tensor(
        indices, torch.from_numpy(share).float(), (vocabulary, vocabulary), check_invariants=True
    ).coalesce()


def _target_vectors(
    source: Sequence[np.ndarray], target: Sequence[np.ndarray], vocabulary: int, dim: int, generator: torch.Generator
) -> Tensor:
    units, pairs = [], []
    for number, (one, other) in enumerate(zip(source, target, strict=True)):
        held = np.concatenate([np.unique(one), vocabulary + np.unique(other)])
        units.append(held)
        pairs.append(np.full(len(held), number))
    unit = np.concatenate(units).astype(np.int64)
    found = np.bincount(unit, minlength=2 * vocabulary)
    weight = np.log1p(len(source) / np.maximum(found, 1))[unit]  # rare units are more informative
    indices = torch.from_numpy(np.stack([unit, np.concatenate(pairs)]))
    counts = torch.sparse_coo_tensor(
        indices, torch.from_numpy(weight).float(), (2 * vocabulary, len(source)), check_invariants=True
    ).coalesce()
    rank = min(dim, *counts.shape)
    # Subspace iteration (Halko et al. 2011), with the given generator.
    basis = torch.linalg.qr(counts @ torch.randn(len(source), rank, generator=generator))[0]
    for _ in range(_ITERATIONS):
        basis = torch.linalg.qr(counts @ (counts.T @ basis))[0]
    left, scale, _ = torch.linalg.svd((counts.T @ basis).T, full_matrices=False)
    vectors = torch.zeros(vocabulary, dim)
    vectors[:, :rank] = ((basis @ left) * scale.sqrt())[vocabulary:]
    drawn = _unit(torch.randn(vocabulary, dim, generator=generator))
    return _unit((1 - _DRAWN) * _unit(vectors) + _DRAWN * drawn)


def _unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=1, keepdim=True).clamp_min(1e-6)
