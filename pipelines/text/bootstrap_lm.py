"""A language model for a new language, from another language's text of the domain.

Punjabi, Arsikere and Garimella, "Language Model Bootstrapping Using Neural Machine Translation for Conversational
Speech Recognition" (ASRU 2019). The inputs are a little in-domain text in the new language, much in-domain text in
another language, and general pairs of both. A translator is trained on the pairs and translates the in-domain text; a
language model of the translations is mixed with one of the little text. Four techniques, each with a switch, improve
the translations: the pairs nearest to the domain are selected (A), the translator is fine-tuned on its own translations
(B), n-best translations are rescored with the in-domain model (C), and those it finds too improbable are filtered out
(D). All models are mixed with weights that maximise the likelihood of development text (E).
"""

from __future__ import annotations

from gristmill.actors.text.lm_tuning import TuningSettings, Way
from gristmill.models.text.confusions import ChannelSettings
from gristmill.pipelines.report.report import Report
from gristmill.pipelines.run import Run
from gristmill.pipelines.text import scores
from gristmill.pipelines.text.bootstrap_report import make_report, publish
from gristmill.pipelines.text.domain_texts import (
    GeneralSettings,
    InDomainSettings,
    check_domain_texts,
    languages,
    prepare_domain_texts,
)
from gristmill.pipelines.text.ngrams import LanguageModelSettings
from gristmill.pipelines.text.selected import SelectedSettings, check_selected, compare, select
from gristmill.pipelines.text.systems import Bootstrap, FineTuningSettings
from gristmill.pipelines.text.translators import (
    TranslateSettings,
    TranslatorSettings,
    check_translator,
    own_translator,
)
from gristmill.shards.errors import UserError
from gristmill.shards.settings import Settings

SAMPLE = 400  # records of each source in a plan's trial: enough for every part to have some
IN_DOMAIN, RAW, SELECTED, FINE_TUNED = "in_domain", "raw", "selected", "fine_tuned"
RESCORED, FILTERED, COMBINED = "rescored", "filtered", "combined"


class TechniqueSettings(Settings):
    """One switch per technique: off, it has no system of its own and is not in ``combined``."""

    selection: bool = True
    """Selection of the pairs nearest to the domain (A)."""
    fine_tuning: bool = True
    """Fine-tuning of the translator on its own translations (B)."""
    rescoring: bool = True
    """Rescoring of translations with the in-domain model (C)."""
    filtering: bool = True
    """Filtering of translations that the in-domain model finds too improbable (D)."""


class Config(Settings):
    """The recipe's settings; the defaults need no data or models of the user's."""

    pairs: GeneralSettings = GeneralSettings()
    in_domain: InDomainSettings = InDomainSettings()
    techniques: TechniqueSettings = TechniqueSettings()
    selection: SelectedSettings = SelectedSettings()
    translator: TranslatorSettings = TranslatorSettings()
    translation: TranslateSettings = TranslateSettings(n=8, beam=8)
    fine_tuning: FineTuningSettings = FineTuningSettings()
    tuning: TuningSettings = TuningSettings()
    ngrams: LanguageModelSettings = LanguageModelSettings()
    channel: ChannelSettings = ChannelSettings()


def run(config: Config, run: Run) -> Report:
    """Run the recipe and return its report."""
    check(config)
    on, langs = config.techniques, languages(config.pairs)

    own = None if config.translator.train else own_translator(run, "translator", config.translator)

    # General pairs, the in-domain text at each size, and the in-domain text in the other language.
    corpora = prepare_domain_texts(run, config.pairs, config.in_domain)
    make = Bootstrap(
        run,
        corpora,
        config.in_domain.sizes,
        langs,
        config.translator,
        config.translation,
        config.tuning if way(on) else None,
        config.ngrams,
    )

    # A translator trained on all pairs, or the user's own, and its translations of the in-domain text.
    base = make.base("translator", own)
    plain = make.translated(RAW, base)
    translated = {RAW: plain}
    translations = {RAW: make.chosen(RAW, plain.lists, plain.tuned)}

    # A: the pairs most similar to the in-domain text, and a translator trained on them.
    picked = select(run, config.selection, corpora, make.texts) if on.selection else {}
    if on.selection:
        data = {(size, seed): [picked[size]] for size, seed in make.keys}
        init = base if config.selection.start == "base" else None
        near = make.translators("selected_translator", data, init, tune=config.selection.tune)
        learnt = translated[SELECTED] = make.translated(SELECTED, near)
        translations[SELECTED] = make.chosen(SELECTED, learnt.lists, learnt.tuned)

    # B: a translator fine-tuned on its own translations, as chosen by C and D.
    best = translated.get(SELECTED, plain)
    if on.fine_tuning:
        learnt = translated[FINE_TUNED] = make.fine_tuned(FINE_TUNED, plain, config.fine_tuning, way(on))
        translations[FINE_TUNED] = make.chosen(FINE_TUNED, learnt.lists, learnt.tuned)
        best = make.fine_tuned(COMBINED, best, config.fine_tuning, way(on)) if on.selection else learnt

    # C and D: the in-domain model rescores n-best lists, and filters out what it finds too improbable.
    if on.rescoring:
        translations[RESCORED] = make.chosen(RESCORED, plain.lists, plain.tuned, "rescoring")
    if on.filtering:
        translations[FILTERED] = make.chosen(FILTERED, plain.lists, plain.tuned, "filtering")
    translated[COMBINED] = best
    translations[COMBINED] = make.chosen(COMBINED, best.lists, best.tuned, way(on))

    # A language model of each system's translations, mixed with the in-domain model, tuned on development text (E); the
    # combination also mixes in the models of the single techniques.
    in_domain = {key: make.in_domain[key[0]] for key in make.keys}
    single = [name for name in translations if name not in (RAW, COMBINED)]
    models = {IN_DOMAIN: in_domain, **make.language_models(translations, {COMBINED: single})}

    # Each model scores held-out texts and their n-best lists from a confusion channel; translators are tested.
    judged = make.judged(config.channel, models)
    tested = {name: make.tested(name, own.translators) for name, own in translated.items() if name != COMBINED}
    if on.rescoring:
        tested[RESCORED] = make.tested(RESCORED, base, plain.tuned)
    tested[COMBINED] = make.tested(COMBINED, best.translators, best.tuned if on.rescoring else None)
    if on.selection and config.selection.compare:
        tested |= compare(run, make, config.selection, corpora, picked)

    run.finish()
    publish(run.out, {size: models[COMBINED][size, run.seeds[0]] for size in config.in_domain.sizes})
    filters = {name: translations[name] for name in (FILTERED, COMBINED) if on.filtering}
    baselines = (IN_DOMAIN, RAW)
    made = (judged, models, tested, corpora.references, translated, picked, filters)
    return make_report(run, config, baselines, COMBINED, *made)


def check(config: Config) -> None:
    """Check everything that can be checked before any work."""
    check_domain_texts(config.pairs, config.in_domain)
    wanted = languages(config.pairs)
    if (config.translator.source_lang, config.translator.target_lang) != wanted:
        raise UserError(f"translator: its languages differ from the pairs'; expected {wanted[0]} to {wanted[1]}")
    scores.available()
    check_translator(config.translator)
    if config.techniques.selection:
        check_selected(config.selection)


def way(on: TechniqueSettings) -> Way | None:
    """Return the tuning's name for the enabled techniques among rescoring and filtering."""
    if on.rescoring and on.filtering:
        return "together"
    return "rescoring" if on.rescoring else "filtering" if on.filtering else None
