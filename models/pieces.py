"""Word pieces fitted to texts: unigram models (Kudo 2018) by the SentencePiece library."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

from gristmill.shards.errors import UserError

_NON_JOINER = "\u200c"


def fit_pieces(texts: Iterable[str], size: int, what: str, **special: Any) -> tuple[bytes, list[str]]:
    """Return a model of about ``size`` pieces, as bytes, and its pieces by number.

    ``what`` names the units in errors; ``special`` are SentencePiece's options for special pieces.

    Raises:
        UserError: the texts are empty, or too few for so many pieces.
    """
    import sentencepiece as spm

    lines = [line for line in texts if line]
    if not lines:
        raise UserError(f"{what}: the texts to fit the pieces to are empty")
    # SentencePiece's own rule would make a space of the non-joiner, with which Persian and others spell words.
    rule = {"normalization_rule_name": "identity"} if any(_NON_JOINER in line for line in lines) else {}
    out = io.BytesIO()
    try:
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=out,
            vocab_size=size,
            model_type="unigram",
            character_coverage=1.0,
            hard_vocab_limit=False,
            num_threads=1,  # with more, the pieces are not always the same
            minloglevel=2,
            **{"bos_id": -1, "eos_id": -1, **rule, **special},
        )
    except RuntimeError as error:
        why = str(error).rpartition("] ")[2].partition(" Increase")[0]  # without the position in the library's code
        raise UserError(f"{what}: no {size} pieces can be fitted to these texts: {why}") from None
    processor = spm.SentencePieceProcessor(model_proto=out.getvalue())
    return out.getvalue(), [processor.id_to_piece(number) for number in range(processor.get_piece_size())]
