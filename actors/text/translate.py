"""The actor that translates texts: n-best beam search in CTranslate2, with scores; names and numbers are protected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self, TypedDict, get_args

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

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
from gristmill.shards.schema import REJECT_REASON, TRANSLATIONS_FIELD
from gristmill.shards.settings import Batch, Settings, Size
from gristmill.shards.stage import Actor, ArtifactRef, BatchLimits, Resources, Stage

UNITS = "source_units"  # the cost by which batches are cut
DAMAGED = pa.field("placeholders_damaged", pa.int32())
OnCpus = Literal["float32", "int8", "int8_float32", "int16"]
ComputeType = Literal[OnCpus, "float16", "bfloat16", "int8_float16", "int8_bfloat16"]


class SourceSettings(Settings):
    """The texts to translate."""

    column: str = "source"
    """Their column."""
    prefix: str = ""
    """The token of the target language, for multilingual translators."""


class BeamSearchSettings(Settings):
    """Settings of decoding."""

    n: Size = Field(1, ge=1)
    """The number of best distinct translations of each text."""
    beam: Size = Field(4, ge=1)
    """The beam width; at least ``n`` is used."""
    protect: Literal["none", "catalogue", "all"] = "all"
    """The slot values that become placeholders: those in the catalogue, all (values outside it are copied), or none,
    numbers in digits included."""
    length_penalty: float = Field(1.0, ge=0)
    """The exponent of the length by which a translation's log-probability is divided in the search."""
    compute_type: ComputeType = "float32"
    """CTranslate2's compute type: int8 is faster and slightly worse."""
    gpus: float = Field(0.0, ge=0)
    """GPUs per worker; 0 runs on a CPU."""
    rows: Batch = Field(64, ge=1)
    """Maximum texts of a batch."""
    max_units: float = Field(2048, gt=0)
    """Maximum units of a batch, padding included."""

    @model_validator(mode="after")
    def _computes(self) -> Self:
        expected = get_args(OnCpus)
        if not self.gpus and self.compute_type not in expected:
            raise ValueError(f"compute_type is {self.compute_type}; expected {', '.join(expected)} without gpus")
        return self


class TranslationSettings(SourceSettings):
    """The texts, the decoding and the catalogue of a translation stage."""

    decoding: BeamSearchSettings = BeamSearchSettings()
    catalogue: Mapping[str, str] = Field(default_factory=dict)
    """Values of entities and their translations; they are searched for in texts without ``slots``."""


class Translation(TypedDict):
    """One translation of a text (:data:`gristmill.shards.schema.TRANSLATION`)."""

    text: str
    logprob: float
    units: int


class CountUnits(Actor):
    """Adds the number of the translator's units of a text."""

    name = "count_units"
    adds = (pa.field(UNITS, pa.int32()),)
    batch = BatchLimits(rows=4096)
    settings: SourceSettings

    def __init__(self, settings: SourceSettings, translator: str) -> None:
        super().__init__(settings)
        self.units = read_units(translator, settings.prefix)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``source_units``."""
        texts = batch[self.settings.column].to_pylist()
        counts = [len(self.units.source_tokens(text)) if text else 0 for text in texts]
        return set_column(batch, UNITS, pa.array(counts, pa.int32()))


class Translate(Actor):
    """Adds ``translations``, the ``n`` best distinct ones, and the number of the beam's with damaged placeholders.

    A translation that lost or repeated a placeholder is left out if there is an intact one; otherwise the best one is
    repaired by :func:`gristmill.models.text.placeholders.fill`. A record without text, or with more units than the
    translator has positions, is rejected.
    """

    name = "translate"
    adds = (TRANSLATIONS_FIELD, DAMAGED)
    drops = (UNITS,)
    measures = (DAMAGED.name,)
    settings: TranslationSettings

    def __init__(self, settings: TranslationSettings, translator: str) -> None:
        super().__init__(settings)
        decoding = settings.decoding
        self.catalogue = Catalogue(settings.catalogue)
        files, self.units = load_fast(translator, settings.prefix)
        self.longest = longest(translator)
        self.translator = open_translator(files, decoding.compute_type, "cuda" if decoding.gpus else "cpu")

    @classmethod
    def contract(cls, settings: TranslationSettings) -> Mapping[str, Any]:
        """Return the limits of a batch and the resources of a worker."""
        decoding = settings.decoding
        return {
            "batch": BatchLimits(rows=decoding.rows, cost=UNITS, max_cost=decoding.max_units),
            "resources": Resources(gpus=decoding.gpus),
        }

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``translations``, ``placeholders_damaged`` and ``reject_reason``."""
        decoding = self.settings.decoding
        beam = max(decoding.beam, decoding.n)
        sources = batch[self.settings.column].to_pylist()
        rows = batch.select([name for name in ("tokens", "slots") if name in batch.column_names]).to_pylist()
        rows = rows or [{}] * len(sources)
        protected = [self._protected(text or "", row) for text, row in zip(sources, rows, strict=True)]
        tokens = [self.units.source_tokens(one.text) for one in protected]
        reasons = [_refused(text, found, self.longest) for text, found in zip(sources, tokens, strict=True)]
        todo = [place for place, reason in enumerate(reasons) if reason is None]
        found = self.translator.translate_batch(
            [tokens[place] for place in todo],
            beam_size=beam,
            num_hypotheses=beam,
            length_penalty=decoding.length_penalty,
            return_scores=True,
            disable_unk=True,
            max_batch_size=0,
            max_input_length=0,
            # Stops a translator that never emits its end; the limit depends on the batch only, not on the worker.
            max_decoding_length=min(self.longest, most_units(max((len(tokens[place]) for place in todo), default=0))),
        )
        made: list[list[Translation] | None] = [None] * len(sources)
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
        if self.settings.decoding.protect == "none" or not self.units.placeholders:
            return Protected(text)
        spans: list[Span] = number_spans(text)
        slots = row.get("slots")
        if slots is None:
            spans += self.catalogue.spans(text)
        else:
            spans += self._slot_spans(text, [self.units.form(token) for token in row.get("tokens") or ()], slots)
        return protect(text, spans)

    def _slot_spans(self, text: str, tokens: Sequence[str], slots: Sequence[Mapping[str, Any]]) -> list[Span]:
        every = self.settings.decoding.protect == "all"
        spans: list[Span] = []
        for slot in slots:
            placed = slot["start"] is not None and slot["end"] is not None
            found = token_spans(text, tokens, [(slot["start"], slot["end"])]) if placed else []
            if not found and slot["value"]:
                found = value_spans(text, [slot["value"]])[:1]
            spans += [span for span in found if every or self.catalogue.target(text[slice(*span)]) is not None]
        return spans

    def _best(self, result: Any, protected: Protected) -> tuple[list[Translation], int]:
        """Return a text's translations and the number of the beam's with damaged placeholders."""
        penalty, n = self.settings.decoding.length_penalty, self.settings.decoding.n
        whole: dict[str, Translation] = {}
        mended: dict[str, Translation] = {}
        damaged = 0
        for hypothesis, score in zip(result.hypotheses, result.scores, strict=True):
            filled: Filled = fill(self.units.target_text(hypothesis), protected, self.catalogue)
            count = len(hypothesis) + 1
            one: Translation = {
                "text": filled.text,
                "logprob": score * count**penalty,
                "units": count,
            }
            damaged += not filled.whole
            if filled.text:
                (whole if filled.whole else mended).setdefault(filled.text, one)
        return list((whole or dict(list(mended.items())[:1])).values())[:n], damaged


def open_translator(files: Mapping[str, bytes], compute_type: ComputeType, device: str = "cpu") -> Any:
    """Load CTranslate2's translator from files in memory, on one CPU thread or a GPU."""
    import ctranslate2

    return ctranslate2.Translator(
        "translator", device=device, compute_type=compute_type, inter_threads=1, intra_threads=1, files=dict(files)
    )


def most_units(longest: int) -> int:
    """Return the maximum units of a translation in a batch whose longest source has so many."""
    return 3 * longest + 10


def _refused(text: str | None, tokens: Sequence[str], longest: int) -> str | None:
    if not normalise(text or ""):
        return "no text"
    return f"more than {longest} units" if len(tokens) > longest else None


def stages(
    translator: ArtifactRef, settings: TranslationSettings, *, source_lang: str, target_lang: str
) -> tuple[Stage, Stage]:
    """Return the two stages of translation: texts are measured in units, then translated in batches.

    Raises:
        UserError: the translator has other languages, or a package is missing.
    """
    available()
    check_languages(read_units(translator.url, settings.prefix), translator.url, source_lang, target_lang)
    return (
        CountUnits.stage(settings.part(SourceSettings), translator=translator),
        Translate.stage(settings, translator=translator),
    )
