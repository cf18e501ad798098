"""The texts of the bootstrapping recipe: general pairs, and in-domain text in both languages."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
from pydantic import Field, PositiveInt, field_validator

from gristmill.actors.text.parts import DEV, TEST, TRAIN, Subset, SubsetSettings, TextParts, TextPartSettings
from gristmill.actors.text.reference_texts import KeptApart, ReferenceTexts
from gristmill.actors.text.spoken import Spoken, SpokenSettings
from gristmill.models.normalise import words
from gristmill.pipelines.filters import ActorSettings, DomainFilter, check_filters, filtered
from gristmill.pipelines.generated import assistant_pairs
from gristmill.pipelines.generated.assistant_catalogue import catalogue
from gristmill.pipelines.inputs import refuse_empty
from gristmill.pipelines.run import Run
from gristmill.pipelines.text.corpora import PairSettings, TextSettings, check_apart, check_places, prepare_text
from gristmill.shards import store
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.index import Cut
from gristmill.shards.schema import PAIRS, TEXTS
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Stage
from gristmill.shards.step import Step

LEAST_TEXTS = 10  # in-domain texts below which an experiment is pointless


class GeneralSettings(Settings):
    """General pairs: the user's own ``files``, or generated requests.

    As in any large corpus, a few of the generated ones are in-domain, and a small dictionary is included.
    """

    files: PairSettings | None = None
    """The user's own; ``null``: generated."""
    records: int = Field(6000, ge=1)
    """The number of generated requests."""
    near: float = Field(0.05, ge=0, le=1)
    """The share of them that is in-domain."""
    words: int = Field(10, ge=0)
    """How often each entry of the dictionary occurs."""
    domains: tuple[str, ...] = ("fan", "climate", "switch", "cover", "lock", "cleaning", "general")
    """The domains of the other requests."""
    filters: tuple[ActorSettings, ...] = ()
    """The user's own filters, applied to the pairs in spoken form."""


class InDomainFiles(Settings):
    """The user's own in-domain text."""

    target: TextSettings
    """A little text in the language to be modelled."""
    source: TextSettings
    """Much text in the source language."""
    references: PairSettings
    """Pairs to test translators on."""
    catalogue: str | None = None
    """A TSV of names and their translations."""


class InDomainSettings(TextPartSettings):
    """In-domain text: the user's own ``files``, or generated requests to a smart home."""

    files: InDomainFiles | None = None
    """The user's own; ``null``: generated."""
    domains: tuple[str, ...] = ("light", "timer", "media", "weather")
    """The domains of generated requests."""
    target_records: int = Field(2500, ge=20)
    """The number of requests in the language to be modelled."""
    source_records: int = Field(3000, ge=1)
    """The number of requests in the source language."""
    reference_records: int = Field(200, ge=2)
    """The number of requests with translations, to test translators on."""
    sizes: tuple[PositiveInt, ...] = (1, 10, 20)
    """The factors by which the text of each experiment is smaller than the whole training part."""
    shard: Cut = Cut(rows=1000)
    """Maximum size of a shard."""
    filters: tuple[DomainFilter, ...] = ()
    """The user's own filters, applied to texts in spoken form, but not to references."""

    @field_validator("sizes")
    @classmethod
    def _differ(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if not sizes or len(set(sizes)) < len(sizes):
            raise ValueError(f"{list(sizes)}; expected different numbers, such as [1, 10, 20]")
        return sizes


@dataclass(frozen=True)
class DomainTexts:
    """The texts of a run, all in spoken form: lower case without punctuation."""

    pairs: SealedSet  # gristmill.shards.schema.PAIRS
    parts: SealedSet  # in-domain text, with `part` and `draw`
    source: SealedSet  # in-domain text in the source language
    references: SealedSet  # text with `references`
    catalogue: Mapping[str, str]  # names and their translations

    def __post_init__(self) -> None:
        for name in ("pairs", "parts", "source", "references"):
            refuse_empty(getattr(self, name), name)


def check_domain_texts(pairs: GeneralSettings, domain: InDomainSettings) -> None:
    """Check that all texts exist and are consistent, and have the columns that filters read."""
    check_filters(pairs.filters, PAIRS)
    for part in ("target", "source"):
        check_filters(domain.filters, TEXTS, part)
    if pairs.files is None:
        assistant_pairs.check_domains(pairs.domains)
        if domain.files is None and set(pairs.domains) <= set(domain.domains):
            raise UserError(f"pairs.domains: {list(pairs.domains)}, all of in_domain.domains too; expected others")
    else:
        check_places(pairs.files)
    wanted = languages(pairs)
    if domain.files is not None:
        _check_files(domain.files, wanted)
        tested = {"in_domain.files.references": domain.files.references}
        trained = {"in_domain.files.target": domain.files.target, "in_domain.files.source": domain.files.source}
        pairs_given = {} if pairs.files is None else {"pairs.files": pairs.files}
        check_apart({**tested, **trained, **pairs_given}, "translators would be tested on what was trained on")
        return
    assistant_pairs.check_domains(domain.domains)
    if wanted != (assistant_pairs.SOURCE, assistant_pairs.TARGET):
        raise UserError(
            f"in_domain: requests are generated in {assistant_pairs.SOURCE} and {assistant_pairs.TARGET}, and pairs "
            f"are of {' and '.join(wanted)}; expected in_domain.files with them"
        )


def _check_files(files: InDomainFiles, wanted: tuple[str, str]) -> None:
    check_places(files.target)
    check_places(files.source)
    check_places(files.references)
    for name, langs in {
        "target": (wanted[0], files.target.lang),
        "source": (files.source.lang, wanted[1]),
        "references": (files.references.source_lang, files.references.target_lang),
    }.items():
        if langs != wanted:
            raise UserError(
                f"in_domain.files.{name}: its language differs from the pairs'; expected {' to '.join(wanted)}"
            )
    if files.catalogue is not None:
        _read_catalogue(files.catalogue, wanted)


def languages(pairs: GeneralSettings) -> tuple[str, str]:
    """Return the source and the target language."""
    if pairs.files is None:
        return assistant_pairs.SOURCE, assistant_pairs.TARGET
    return pairs.files.source_lang, pairs.files.target_lang


def prepare_domain_texts(run: Run, pairs: GeneralSettings, domain: InDomainSettings) -> DomainTexts:
    """Prepare all texts.

    General pairs whose target is a text of the in-domain development or test part, or whose source is that of a user's
    reference, are rejected. The settings have passed :func:`check_domain_texts`.
    """
    langs = languages(pairs)
    target, source, references = _generated(run, domain) if domain.files is None else _read(run, domain.files, langs)
    target, source = filtered(run, target, domain.filters, "target"), filtered(run, source, domain.filters, "source")
    parts = run.step(Step("in_domain", (TextParts.stage(domain.part(TextPartSettings)),), target, cut=domain.shard))
    refuse_parts(parts)
    apart = None if domain.files is None else references
    found = _pairs(run, pairs, subset(run, parts, DEV, TEST), domain.domains, langs, apart)
    return DomainTexts(
        filtered(run, found, pairs.filters),
        parts,
        source,
        references,
        names(domain, langs),
    )


def subset(run: Run, parts: SealedSet, *names: str, size: int = 1) -> SealedSet:
    """Return some parts of the in-domain text; of training, one in ``size``."""
    name = "_".join(("in_domain", *names, *([f"1-{size}"] if size > 1 else [])))
    made = run.step(Step(name, (Subset.stage(SubsetSettings(parts=names, share=1 / size)),), parts))
    if size > 1 and made.records < LEAST_TEXTS:
        raise UserError(
            f"in_domain.sizes: 1/{size} of the in-domain text is {made.records} texts; expected at least {LEAST_TEXTS}"
        )
    refuse_empty(made, f"in_domain ({' and '.join(names)})")
    return made


def refuse_parts(parts: SealedSet) -> None:
    """Check that no part of the text is empty."""
    found: set[str] = set()
    for table in parts.tables(["part"]):
        found.update(table["part"].to_pylist())
    missing = [part for part in (TRAIN, DEV, TEST) if part not in found]
    if missing:
        raise UserError(
            f"in_domain: {parts.records} texts, none of them for {' or '.join(missing)}; expected more text, or "
            "other shares in_domain.dev and in_domain.test"
        )


def _generated(run: Run, domain: InDomainSettings) -> tuple[SealedSet, SealedSet, SealedSet]:
    chosen = sorted(domain.domains)
    shared = {"domains": chosen, **_made(run)}
    references = run.source(
        "references",
        partial(assistant_pairs.references, domain.reference_records, chosen, run.seed),
        {"records": domain.reference_records, **shared},
    )
    made = []
    for name, lang, records in (
        ("in_domain_target", assistant_pairs.TARGET, domain.target_records),
        ("in_domain_source", assistant_pairs.SOURCE, domain.source_records),
    ):

        def tables(lang: str = lang, records: int = records) -> Iterator[pa.Table]:
            tested = {text for table in references.tables(["text"]) for text in table["text"].to_pylist()}
            return assistant_pairs.texts(records, lang, chosen, run.seed, tested, rows=domain.shard.rows)

        made.append(run.source(name, tables, {"records": records, "without": references, **shared}))
    return made[0], made[1], references


def _spoken(**columns: str) -> Stage:
    """Return the stage that rewrites columns, given with their languages, in spoken form."""
    return Spoken.stage(SpokenSettings(columns=columns))


def _made(run: Run) -> dict[str, Any]:
    return {"seed": run.seed, "made_by": assistant_pairs.made_by()}


def _read(run: Run, files: InDomainFiles, langs: tuple[str, str]) -> tuple[SealedSet, SealedSet, SealedSet]:
    given = prepare_text(run, files.references, "listed_references")
    shape = (_spoken(source=langs[0], target=langs[1]), ReferenceTexts.stage())
    references = run.step(Step("references", shape, given))
    target = prepare_text(run, files.target, "in_domain_target")
    source = prepare_text(run, files.source, "in_domain_source", without=references)
    return (
        run.step(Step("spoken_target", (_spoken(text=langs[1]),), target)),
        run.step(Step("spoken_source", (_spoken(text=langs[0]),), source)),
        references,
    )


def _pairs(
    run: Run,
    pairs: GeneralSettings,
    without: SealedSet,
    domains: tuple[str, ...],
    langs: tuple[str, str],
    references: SealedSet | None,
) -> SealedSet:
    if pairs.files is None:
        chosen = sorted(set(pairs.domains) - set(domains))
        near = round(pairs.near * pairs.records)

        def tables() -> Iterator[pa.Table]:
            kept_apart = {text for table in without.tables(["text"]) for text in table["text"].to_pylist()}
            yield from assistant_pairs.pairs(pairs.records - near, chosen, run.seed, kept_apart)
            yield from assistant_pairs.pairs(near, sorted(domains), run.seed, kept_apart, "near_pairs")
            yield from assistant_pairs.dictionary_pairs(pairs.words)

        identity = {"records": pairs.records, "near": near, "domains": [chosen, sorted(domains)], "words": pairs.words}
        return run.source("pairs", tables, {**identity, "without": without, **_made(run)})
    found = prepare_text(run, pairs.files, "listed_pairs", without=without)
    apart = () if references is None else (KeptApart.stage(references=references.ref),)
    made = run.step(Step("pairs", (_spoken(source=langs[0], target=langs[1]), *apart), found))
    refuse_empty(made, "pairs")
    return made


def names(domain: InDomainSettings, langs: tuple[str, str]) -> dict[str, str]:
    """Return the domain's names and their translations, in spoken form."""
    if domain.files is None:
        return catalogue()
    return _read_catalogue(domain.files.catalogue, langs) if domain.files.catalogue else {}


def _read_catalogue(url: str, langs: tuple[str, str]) -> dict[str, str]:
    """Read names and their translations, one tab-separated pair per line; in spoken form."""
    try:
        text = store.read_bytes(url).decode("utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(
            f"in_domain.files.catalogue: {url}: no such file; expected lines of a name, a tab and its translation"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"in_domain.files.catalogue: {url}: not UTF-8; expected a text file in UTF-8") from None
    values: dict[str, str] = {}
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        row = line.rstrip("\n").split("\t")
        if not line.strip():
            continue
        sides = [" ".join(words(side, lang)) for side, lang in zip(row, langs, strict=False)]
        if len(row) != 2 or not all(sides):
            raise UserError(
                f"in_domain.files.catalogue: {url}, line {number}: expected a name, a tab and its translation"
            )
        values.setdefault(*sides)
    return values
