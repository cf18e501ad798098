"""The report of the bootstrapping recipe, and the models it publishes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from gristmill.actors.ngram_files import FILE
from gristmill.actors.text.ngram_mixer import WEIGHTS
from gristmill.pipelines.evaluation import evaluate
from gristmill.pipelines.record_scores import keep_scores
from gristmill.pipelines.report.measures import BLEU, CER, CHRF, OOV, PERPLEXITY, WER
from gristmill.pipelines.report.report import FilterFlow, MetricRow, Report, TestSet
from gristmill.pipelines.run import Run
from gristmill.pipelines.text import scores, selection
from gristmill.pipelines.text.systems import Key, Translated, read_choice
from gristmill.shards import store
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet

FOLDER = "language_models"  # below OUT
MEASURES = [PERPLEXITY, OOV, WER, CER, CHRF, BLEU, PERPLEXITY.relative()]
LABELS = {
    "in_domain": "In-domain only",
    "raw": "Raw translations",
    "selected": "Selected pairs",
    "fine_tuned": "Fine-tuned",
    "rescored": "Rescored",
    "filtered": "Filtered",
    "combined": "Combined",
    "centroid_share": "Nearest to the centroid",
    "moore_lewis_share": "Moore-Lewis selection",
    "random_share": "Random selection",
}


def publish(out: str, models: Mapping[int, Artifact]) -> None:
    """Write the model of each size below OUT, unless it is there unchanged: ``language_models/1-10.arpa``.

    Files of sizes of earlier runs are removed; the artifacts that they were copied from stay.
    """
    folder = store.join(out, FOLDER)
    names = {f"1-{size}.arpa": artifact for size, artifact in models.items()}
    for name, artifact in names.items():
        store.write_changed(store.join(folder, name), artifact.read(FILE))
    for name in store.list_names(folder):
        if re.fullmatch(r"1-\d+\.arpa", name) and name not in names:
            store.remove_file(store.join(folder, name))


def make_report(
    run: Run,
    config: BaseModel,
    baselines: Sequence[str],
    combined: str,
    judged: Mapping[Key, SealedSet],
    models: Mapping[str, Mapping[Key, Artifact]],
    tested: Mapping[str, Mapping[Key, SealedSet]],
    references: SealedSet,
    translated: Mapping[str, Translated],
    picked: Mapping[int, SealedSet],
    filters: Mapping[str, Mapping[Key, SealedSet]],
) -> Report:
    """Return the report of all systems, from their models' scores of the test texts and their translators' tests."""
    systems, sizes = list(models), sorted({size for size, _ in judged})
    metrics: list[MetricRow] = []
    test_sets: dict[str, TestSet] = {}
    errors: dict[str, dict[str, dict[int, Any]]] = {system: {} for system in systems}
    losses: dict[str, dict[str, dict[int, Any]]] = {system: {} for system in systems}
    for size in sizes:
        sets = {seed: made for (of, seed), made in judged.items() if of == size}
        rows, found, lost = scores.text_metrics(sets, systems, named(size), baselines)
        metrics += rows
        for system, runs in found.items():
            errors[system][named(size)] = runs
            losses[system][named(size)] = lost[system]
        tested_texts = next(iter(found[baselines[0]].values()))
        words = int(tested_texts.words.sum())
        test_sets[named(size)] = TestSet({"texts": len(tested_texts), "words": words}, "texts")
    keep_scores(run, PERPLEXITY.name, losses, {"sets": [made.digest for made in judged.values()]}, "log")
    metrics += evaluate(errors, baseline=baselines[0], also_against=baselines[1:])
    signatures: dict[str, str] = {}
    expected = scores.read_references(references)
    for system, by_key in tested.items():
        for size in sorted({of for of, _ in by_key}):
            made = {
                seed: scores.read_translations(found, expected) for (of, seed), found in by_key.items() if of == size
            }
            rows, signatures = scores.translation_metrics(system, named(size), made)
            metrics += rows
    return Report(
        title="A language model from another language's text",
        recipe={"name": "bootstrap_lm", **config.model_dump(mode="json")},
        measures=MEASURES,
        baseline=baselines[0],
        baselines=baselines,
        headline=(combined, named(sizes[-1])),
        labels=LABELS,
        tested="of the in-domain text",
        metrics=metrics,
        test_sets=test_sets,
        filters=_filters(picked, filters),
        notes=[
            "Perplexity is over one closed vocabulary for all models; OOV is the share of test words that none of a "
            "system's texts contains.",
            "Word and character error rates are of n-best lists of a confusion channel, rescored with each model; its "
            "weight is tuned on development lists. Characters are counted without spaces.",
            *(f"{metric.upper()}: {signature}" for metric, signature in signatures.items()),
            *_tuned(translated, models),
        ],
    )


def named(size: int) -> str:
    """Return the name of a size's test set."""
    return f"1/{size}"


def _filters(picked: Mapping[int, SealedSet], filters: Mapping[str, Mapping[Key, SealedSet]]) -> list[FilterFlow]:
    """Return the counts of each filter, with examples of the first seed."""
    made = []
    for size, kept in picked.items():
        numbers = selection.summary(kept)
        counts, sides = (int(numbers.pop("kept")), int(numbers.pop("dropped"))), selection.examples(kept)
        made.append(FilterFlow(f"selected pairs, {named(size)}", *counts, sides["kept"], sides["dropped"], numbers))
    for name, by_key in filters.items():
        for (size, seed), kept in by_key.items():
            if seed == next(iter(by_key))[1]:
                title, sides = f"{name.replace('_', ' ')} translations, {named(size)}", scores.filtered_examples(kept)
                made.append(FilterFlow(title, kept.records, kept.seal["rejected"], sides["kept"], sides["dropped"]))
    return made


def _tuned(translated: Mapping[str, Translated], models: Mapping[str, Mapping[Key, Artifact]]) -> Sequence[str]:
    """Return a sentence each on how translations were chosen and models mixed."""
    notes = []
    for name, one in translated.items():
        if not one.tuned:
            continue
        rules = [
            f"{named(size)} seed {seed}: weight {found['together']['weight']:g}, kept {found['keep_together']:.0%}"
            for (size, seed), found in ((key, read_choice(made)) for key, made in one.tuned.items())
        ]
        notes.append(f"Rescoring and filtering of {name.replace('_', ' ')}: {'; '.join(rules)}.")
    for name, by_key in models.items():
        shares = [
            f"{named(size)} seed {seed}: {json.loads(model.read(WEIGHTS))['weights'][0]:.2f}"
            for (size, seed), model in by_key.items()
            if WEIGHTS in model.files
        ]
        if shares:
            notes.append(f"Share of the in-domain model in {name.replace('_', ' ')}: {'; '.join(shares)}.")
    return notes
