"""Texts translated by a trained translator.

    from gristmill.pipelines.text.translate import TextTranslator
    for one in TextTranslator("out/bootstrap-lm").translate("turn on the light"):
        print(one.text, one.logprob)

Over records the same is done by the actors of :mod:`gristmill.actors.text.translate`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from gristmill.actors.text.translate import BeamSearchSettings, TranslationSettings, stages
from gristmill.actors.text.translator_files import read_units
from gristmill.models.text.translator import WEIGHTS, available
from gristmill.models.text.translator_units import SOURCE_SPM
from gristmill.pipelines.finished import Finished, best_system, open_finished
from gristmill.pipelines.inline import Inline, in_batches, lost, texts_of
from gristmill.pipelines.report.measures import CHRF
from gristmill.shards import canonical, processor, store
from gristmill.shards.artifact import Artifact, get_artifact
from gristmill.shards.errors import Damaged, GristmillError, UserError
from gristmill.shards.stage import ArtifactRef
from gristmill.shards.wording import nearest, or_else

_BY_THEMSELVES = ("raw", "selected", "fine_tuned")  # systems whose translators translate without a language model


@dataclass(frozen=True)
class TranslatedText:
    """A text and its translation, with the natural logarithm of its probability."""

    source: str
    text: str = ""
    logprob: float | None = None
    others: tuple[tuple[str, float], ...] = ()
    """The next best translations and theirs."""
    problem: str | None = None
    """Why there is no translation."""


class TextTranslator:
    """Translates texts by a translator: its folder, or the output of a run, of which it is the one of the highest chrF.

    ``system`` chooses another of the run's. ``n`` are the translations of a text; ``prefix`` is the token of the target
    language, for multilingual translators.

    Raises:
        UserError: there is no such translator, a package is missing, or this machine does not offer the instruction
            set.
        GristmillError: it is damaged.
    """

    def __init__(
        self, model: store.Place, *, system: str | None = None, beam: int = 4, n: int = 1, prefix: str = ""
    ) -> None:
        processor.check()
        available()
        ref, self.said = find_translator(model, system)
        settings = TranslationSettings(column="source", prefix=prefix, decoding=BeamSearchSettings(beam=beam, n=n))
        try:
            units = read_units(ref.url, prefix)
            self.source_lang, self.target_lang = units.source_lang, prefix.strip("<>") or units.target_lang
            languages = {"source_lang": self.source_lang, "target_lang": self.target_lang}
            self._translates = Inline(*stages(ref, settings, **languages))
        except Damaged as error:
            raise GristmillError(f"{error.url}: {error.fault}; expected the translator as it was written") from None

    def translate(self, *texts: str | Iterable[str | None] | None) -> Iterator[TranslatedText]:
        """Yield the translation of each text, in their order: of single ones, and of those of iterables."""
        for some in in_batches(texts_of(texts)):
            ids = [str(number) for number in range(len(some))]
            made = self._translates(pa.table({"id": ids, "source": pa.array(some, pa.string())}))
            problems = {name: problem for _, name, problem in lost(made)}
            found = {row["id"]: row["translations"] for row in made.table.select(["id", "translations"]).to_pylist()}
            for name, text in zip(ids, some, strict=True):
                if name in problems:
                    yield TranslatedText(text or "", problem=problems[name])
                else:
                    first, *rest = found[name]
                    others = tuple((one["text"], one["logprob"]) for one in rest)
                    yield TranslatedText(text or "", first["text"], first["logprob"], others)


def find_translator(place: store.Place, system: str | None = None) -> tuple[ArtifactRef, str]:
    """Return a translator, and which it is in words, from its folder or from the output of a run.

    Raises:
        UserError: there is none.
    """
    url = store.absolute(place)
    made = get_artifact(url)
    if made is not None or store.exists(store.join(url, SOURCE_SPM)):
        if system is not None:
            raise UserError(f"{url}: one translator; a system can be chosen of the output of a run only")
        if made is not None and WEIGHTS not in made.files:
            raise UserError(f"{url}: holds {', '.join(sorted(made.files))}; expected the files of a translator")
        return (ArtifactRef(url, canonical.sha256(url.encode())) if made is None else made.ref), url
    found = open_finished(url, "translate", "a translator (a folder with its weights and source.spm)")
    tested = {name: one for name in _BY_THEMSELVES if (one := _tested(found, name)) is not None}
    best = best_system(found.report["metrics"], CHRF.name, CHRF.better, tested)
    if system is not None and system not in tested:
        expected = f"one of {', '.join(tested)}" if tested else "a run that trains translators"
        raise UserError(f"{url}: has no system {system!r}{or_else(nearest(system, tested), expected)}")
    if best is None:
        raise UserError(f"{url}: the recipe {found.recipe} trained no translator; expected the output of bootstrap_lm")
    if system is not None:
        return tested[system].ref, f"{system}, as asked for: {tested[system].url}"
    values = ", ".join(f"{value:.1f} {name}" for name, value in best.values.items())
    why = f", {best.standing}" if best.standing else ""
    return tested[best.system].ref, f"{best.system}{why} (chrF {values}): {tested[best.system].url}"


def _tested(found: Finished, system: str) -> Artifact | None:
    """Return the translator that a system was tested with, on the whole of the in-domain text."""
    nodes = {node["name"]: node for node in found.report["lineage"]}
    steps = [(match, name) for name in nodes if (match := re.match(rf"tested_{system}_1-(\d+)_(\d+)\b", name))]
    if not steps:
        return None
    _, step = min(steps, key=lambda one: (int(one[0][1]), found.report["run"]["seeds"].index(int(one[0][2]))))
    digests = {nodes[name]["digest"] for name in nodes[step]["inputs"] if name in nodes}
    for name in found.trained:
        if name.endswith("translator"):
            for made in found.artifacts(name):
                if made.digest in digests:
                    return made
    return None
