"""Train an n-gram model, write it as ARPA and score sentences by it (needs the extra ``translation``, for KenLM).

python examples/train_ngram_model.py
"""

import itertools
import math
import tempfile
from pathlib import Path

from gristmill.actors.text.language_model import LanguageModel
from gristmill.models.ngrams.estimate import NgramSettings, estimate

ACTIONS = ["turn on", "turn off", "dim", "please turn on"]
PLACES = ["the kitchen", "the hall", "my bedroom", "the garden"]


def main(folder: Path) -> None:
    """Estimate a trigram model of generated requests and print perplexities."""
    texts = [f"{action} {place} lights" for action, place in itertools.product(ACTIONS, PLACES)]
    model = estimate([text.split() for text in texts], NgramSettings(order=3))
    print(f"{len(model.words)} words, n-grams by order: {[len(grams) for grams in model.orders]}")

    path = folder / "lm.arpa"
    path.write_bytes(model.to_bytes())
    scorer = LanguageModel(str(path))  # or LanguageModel.of(model), which needs no file
    for text in ("dim my bedroom lights", "lights the dim hall", "open the window"):
        found = scorer.detail(text.split())
        print(f"{text!r}: perplexity {math.exp(-found.logprob / found.words):.1f}, {found.oov} of its words unknown")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
