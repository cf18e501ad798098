"""A language model for a new language, from another language's text of the domain.

Punjabi, Arsikere and Garimella, "Language Model Bootstrapping Using Neural Machine Translation for Conversational
Speech Recognition" (ASRU 2019). There is a little text of the domain in the new language, much in another one, and
general pairs of both. A translator is trained on the pairs and translates the domain's text; a language model of the
translations is mixed with that of the little text there is. Four techniques, each with a switch, make the translations
better: the pairs nearest to the domain are selected (A), the translator is fine-tuned on its own translations (B),
n-best translations are rescored by the in-domain model (C), and what it finds too improbable is filtered out (D). All
models are combined by weights that make development text most probable (E).
"""

from __future__ import annotations

from gristmill.actors.text import language_model
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

SAMPLE = 400  # records of each source that a plan tries: some must fall into each part
IN_DOMAIN, RAW, SELECTED, FINE_TUNED = "in_domain", "raw", "selected", "fine_tuned"
RESCORED, FILTERED, COMBINED = "rescored", "filtered", "combined"


class TechniqueSettings(Settings):
    """One switch for each technique: off, it has no system of its own and no part in ``combined``."""

    selection: bool = True
    """The pairs nearest to the domain are selected (A)."""
    fine_tuning: bool = True
    """The translator is fine-tuned on its own translations (B)."""
    rescoring: bool = True
    """The in-domain model rescores translations (C)."""
    filtering: bool = True
    """Translations that the in-domain model finds too improbable are left out (D)."""


class Config(Settings):
    """The recipe's settings; the defaults are the embedded default."""

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

    # General pairs, the little text of the domain at each size, and the domain's text in the other language.
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

    # A translator of all pairs, or the user's own, and what it makes of the domain's text.
    base = make.base("translator", own)
    plain = make.translated(RAW, base)
    translated = {RAW: plain}
    translations = {RAW: make.chosen(RAW, plain.lists, plain.tuned)}

    # A: the pairs that are most like the domain's text, and a translator that learns from them.
    picked = select(run, config.selection, corpora, make.texts) if on.selection else {}
    if on.selection:
        data = {(size, seed): [picked[size]] for size, seed in make.keys}
        init = base if config.selection.start == "base" else None
        near = make.translators("selected_translator", data, init, tune=config.selection.tune)
        learnt = translated[SELECTED] = make.translated(SELECTED, near)
        translations[SELECTED] = make.chosen(SELECTED, learnt.lists, learnt.tuned)

    # B: a translator learns from its own translations, those that C and D leave.
    best = translated.get(SELECTED, plain)
    if on.fine_tuning:
        learnt = translated[FINE_TUNED] = make.fine_tuned(FINE_TUNED, plain, config.fine_tuning, way(on))
        translations[FINE_TUNED] = make.chosen(FINE_TUNED, learnt.lists, learnt.tuned)
        best = make.fine_tuned(COMBINED, best, config.fine_tuning, way(on)) if on.selection else learnt

    # C and D: the in-domain model rescores n-best lists, and what it finds too improbable is left out.
    if on.rescoring:
        translations[RESCORED] = make.chosen(RESCORED, plain.lists, plain.tuned, "rescoring")
    if on.filtering:
        translations[FILTERED] = make.chosen(FILTERED, plain.lists, plain.tuned, "filtering")
    translated[COMBINED] = best
    translations[COMBINED] = make.chosen(COMBINED, best.lists, best.tuned, way(on))

    # A language model of each system's translations, mixed with that of the domain's text by development text (E);
    # in the combination the models of the single techniques are mixed, too.
    in_domain = {key: make.in_domain[key[0]] for key in make.keys}
    single = [name for name in translations if name not in (RAW, COMBINED)]
    models = {IN_DOMAIN: in_domain, **make.language_models(translations, {COMBINED: single})}

    # Texts kept apart are scored by each model, and lists of what a channel makes of them; translators are tested.
    judged = make.judged(config.channel, models)
    tested = {name: make.tested(name, own.translators) for name, own in translated.items() if name != COMBINED}
    if on.rescoring:
        tested[RESCORED] = make.tested(RESCORED, base, plain.tuned)
    tested[COMBINED] = make.tested(COMBINED, best.translators, best.tuned if on.rescoring else None)
    if on.selection and config.selection.compare:
        tested |= compare(run, make, config.selection, corpora, picked)

    publish(run.out, {size: models[COMBINED][size, run.seeds[0]] for size in config.in_domain.sizes})
    filters = {name: translations[name] for name in (FILTERED, COMBINED) if on.filtering}
    return make_report(
        config, IN_DOMAIN, COMBINED, judged, models, tested, corpora.references, translated, picked, filters
    )


def check(config: Config) -> None:
    """Refuse what can be known to be wrong before anything is made."""
    check_domain_texts(config.pairs, config.in_domain)
    wanted = languages(config.pairs)
    if (config.translator.source_lang, config.translator.target_lang) != wanted:
        raise UserError(f"translator: of other languages than the pairs; expected {wanted[0]} to {wanted[1]}")
    for package in (language_model, scores):
        package.available()
    check_translator(config.translator)
    if config.techniques.selection:
        check_selected(config.selection)


def way(on: TechniqueSettings) -> Way | None:
    """Return the name that a tuning has for the techniques that choose among translations."""
    if on.rescoring and on.filtering:
        return "together"
    return "rescoring" if on.rescoring else "filtering" if on.filtering else None
