"""The actor that translates texts: n best by beam search in CTranslate2, with scores, names and numbers protected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.actors.audio import set_column
from gristmill.actors.text.translator_files import check_languages, load_fast, longest, read_units
from gristmill.models.normalise import normalise
from gristmill.models.text.placeholders import (
    Catalogue,
    Filled,
    Protected,
    Span,
    fill,
    number_spans,
    protect,
    token_spans,
    value_spans,
)
from gristmill.models.text.translator import available
from gristmill.models.text.translator_units import TranslatorUnits
from gristmill.shards.schema import REJECT_REASON, TRANSLATIONS_FIELD
from gristmill.shards.stage import ArtifactRef, BatchLimits, Resources, Stage

UNITS = "source_units"  # how long a text is, by which batches are cut
DAMAGED = pa.field("placeholders_damaged", pa.int32())
PROTECT = ("none", "catalogue", "all")


class CountUnits:
    """Adds how many units of the translator a text has."""

    def __init__(self, column: str, prefix: str, translator: str) -> None:
        self.column, self.units = column, read_units(translator, prefix)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Work on one batch."""
        texts = batch[self.column].to_pylist()
        counts = [len(self.units.source_tokens(text)) if text else 0 for text in texts]
        return set_column(batch, UNITS, pa.array(counts, pa.int32()))


class Translate:
    """Adds ``translations``: the ``n`` best distinct ones, and how many of the beam had damaged placeholders.

    A translation that lost or doubled a placeholder is left out, as long as a whole one is there; else the best one is
    mended as :func:`gristmill.models.text.placeholders.fill` says. What has no text, or more units than the translator
    has positions for, is turned down.
    """

    def __init__(
        self,
        column: str,
        n: int,
        beam: int,
        protect: str,
        length_penalty: float,
        compute_type: str,
        device: str,
        prefix: str,
        catalogue: Mapping[str, str],
        translator: str,
    ) -> None:
        self.column, self.n, self.beam = column, n, max(beam, n)
        self.protect, self.length_penalty = protect, length_penalty
        self.catalogue = Catalogue(catalogue)
        files, self.units = load_fast(translator, prefix)
        self.longest = longest(translator)
        self.translator = open_translator(files, compute_type, device)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Work on one batch."""
        sources = batch[self.column].to_pylist()
        rows = batch.select([name for name in ("tokens", "slots") if name in batch.column_names]).to_pylist()
        rows = rows or [{}] * len(sources)
        protected = [self._protected(text or "", row) for text, row in zip(sources, rows, strict=True)]
        tokens = [self.units.source_tokens(one.text) for one in protected]
        reasons = [_refused(text, found, self.longest) for text, found in zip(sources, tokens, strict=True)]
        todo = [place for place, reason in enumerate(reasons) if reason is None]
        found = self.translator.translate_batch(
            [tokens[place] for place in todo],
            beam_size=self.beam,
            num_hypotheses=self.beam,
            length_penalty=self.length_penalty,
            return_scores=True,
            disable_unk=True,
            max_batch_size=0,
            max_input_length=0,
            # A translator that does not come to an end is not waited for; a batch is the same wherever it is cut.
            max_decoding_length=min(self.longest, most_units(max((len(tokens[place]) for place in todo), default=0))),
        )
        made: list[list[dict[str, Any]] | None] = [None] * len(sources)
        damaged = np.zeros(len(sources), np.int32)
        for place, result in zip(todo, found, strict=True):
            made[place], damaged[place] = self._best(result, protected[place])
            if not made[place]:
                reasons[place] = "no translation"
        batch = set_column(batch, TRANSLATIONS_FIELD.name, pa.array(made, TRANSLATIONS_FIELD.type))
        batch = set_column(batch, DAMAGED.name, pa.array(damaged))
        return set_column(batch, REJECT_REASON.name, pa.array(reasons, pa.string()))

    def _protected(self, text: str, row: Mapping[str, Any]) -> Protected:
        text = self.units.form(text)
        if self.protect == "none" or not self.units.placeholders:
            return Protected(text)
        spans: list[Span] = number_spans(text)
        slots = row.get("slots")
        if slots is None:
            spans += self.catalogue.spans(text)
        else:
            spans += self._slot_spans(text, [self.units.form(token) for token in row.get("tokens") or ()], slots)
        return protect(text, spans)

    def _slot_spans(self, text: str, tokens: Sequence[str], slots: Sequence[Mapping[str, Any]]) -> list[Span]:
        spans: list[Span] = []
        for slot in slots:
            placed = slot["start"] is not None and slot["end"] is not None
            found = token_spans(text, tokens, [(slot["start"], slot["end"])]) if placed else []
            if not found and slot["value"]:
                found = value_spans(text, [slot["value"]])[:1]
            spans += [
                span for span in found if self.protect == "all" or self.catalogue.target(text[slice(*span)]) is not None
            ]
        return spans

    def _best(self, result: Any, protected: Protected) -> tuple[list[dict[str, Any]], int]:
        """Return the translations of a text, and how many of the beam had damaged placeholders."""
        whole: dict[str, dict[str, Any]] = {}
        mended: dict[str, dict[str, Any]] = {}
        damaged = 0
        for hypothesis, score in zip(result.hypotheses, result.scores, strict=True):
            filled: Filled = fill(self.units.target_text(hypothesis), protected, self.catalogue)
            count = len(hypothesis) + 1
            one = {
                "text": filled.text,
                "logprob": score * count**self.length_penalty,
                "units": count,
            }
            damaged += not filled.whole
            if filled.text:
                (whole if filled.whole else mended).setdefault(filled.text, one)
        return list((whole or dict(list(mended.items())[:1])).values())[: self.n], damaged


def open_translator(files: Mapping[str, bytes], compute_type: str = "float32", device: str = "cpu") -> Any:
    """Return CTranslate2's translator of files in memory, on one CPU thread or a GPU."""
    import ctranslate2

    return ctranslate2.Translator(
        "translator", device=device, compute_type=compute_type, inter_threads=1, intra_threads=1, files=dict(files)
    )


def most_units(longest: int) -> int:
    """Return the most units of a translation in a batch whose longest source has so many."""
    return 3 * longest + 10


def _refused(text: str | None, tokens: Sequence[str], longest: int) -> str | None:
    if not normalise(text or ""):
        return "no text"
    return f"more than {longest} units" if len(tokens) > longest else None


def stages(
    translator: ArtifactRef,
    *,
    source_lang: str,
    target_lang: str,
    column: str = "source",
    n: int = 1,
    beam: int = 4,
    protect: str = "all",
    catalogue: Mapping[str, str] | None = None,
    length_penalty: float = 1.0,
    compute_type: str = "float32",
    device: str = "cpu",
    gpus: float = 0.0,
    prefix: str = "",
    rows: int = 64,
    max_units: float = 2048,
) -> tuple[Stage, Stage]:
    """Return the two stages that translate ``column``: texts are measured in units, then translated in batches.

    ``protect`` says which slot values become placeholders: those in the ``catalogue``, ``all`` (what it lacks stays as
    it is), or none at all; numbers in digits go with them. Records without ``slots`` are searched for its values.

    Raises:
        UserError: the translator is of other languages, or the packages are absent.
    """
    available()
    units: TranslatorUnits = read_units(translator.url, prefix)
    check_languages(units, translator.url, source_lang, target_lang)
    artifacts = {"translator": translator}
    measure = Stage(
        "count_units",
        "gristmill.actors.text.translate:CountUnits",
        adds=(pa.field(UNITS, pa.int32()),),
        params={"column": column, "prefix": prefix},
        artifacts=artifacts,
        batch=BatchLimits(rows=4096),
    )
    params = {
        "column": column,
        "n": n,
        "beam": beam,
        "protect": protect,
        "length_penalty": length_penalty,
        "compute_type": compute_type,
        "device": device,
        "prefix": prefix,
        "catalogue": dict(catalogue or {}),
    }
    translate = Stage(
        "translate",
        "gristmill.actors.text.translate:Translate",
        adds=(TRANSLATIONS_FIELD, DAMAGED),
        drops=(UNITS,),
        params=params,
        artifacts=artifacts,
        batch=BatchLimits(rows=rows, cost=UNITS, max_cost=max_units),
        resources=Resources(gpus=gpus),
        measures=(DAMAGED.name,),
    )
    return measure, translate
