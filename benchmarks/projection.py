"""Label projection and the paraphrase model on real wordings: how often spans are exact, and AUC on held-out groups.

python -m benchmarks.projection FOLDER

FOLDER has `hwu64_typed_vs_normalised.jsonl.gz` (typed requests and their annotation, which differ inside values),
`hwu64_same_meaning_groups.jsonl.gz` and `snips_same_meaning_groups.jsonl.gz` (requests that mean the same). Intervals
are bootstraps over requests, of AUC over groups.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from gristmill.actors.sessions.meanings import MeaningSettings, ParseMeanings
from gristmill.actors.sessions.pair_models import ParaphraseFit
from gristmill.actors.sources.objects import list_objects
from gristmill.models.measures.calibration import ece_interval
from gristmill.models.measures.discrimination import auc_interval
from gristmill.models.measures.significance import paired_change, wer_interval
from gristmill.models.sessions.calibrated import CalibratedSettings, fit_calibrated
from gristmill.models.sessions.meaning_pairs import TextPair, chosen_texts, draw_pairs
from gristmill.models.sessions.meaning_texts import MeaningText, OneWordChanges
from gristmill.models.sessions.paraphrase import FEATURES, count_words, pair_features
from gristmill.models.sessions.projection import ProjectionSettings
from gristmill.pipelines.sessions.projection_scores import SYSTEMS, WordingPair, group_pairs, score_pairs, typed_pairs

import numpy as np

TYPED = "hwu64_typed_vs_normalised.jsonl.gz"
GROUPS = "hwu64_same_meaning_groups.jsonl.gz"
SNIPS = "snips_same_meaning_groups.jsonl.gz"


def projections(title: str, pairs: list[WordingPair]) -> None:
    """Print the share of exact spans of the projection and of string matching."""
    print(f"\n{title}: {len(pairs)} requests\n")
    print("| slots | n | projection | string match | difference | requests, projection |\n|---|---|---|---|---|---|")
    for name, changed in (("all", None), ("written otherwise", True), ("written alike", False)):
        scores = score_pairs(pairs, ProjectionSettings(), changed=changed)
        ours, theirs = (scores[system] for system in SYSTEMS)
        size = int(ours.slots.words.sum())
        if not size:
            continue
        change = paired_change({0: theirs.slots}, {0: ours.slots}).difference
        print(
            f"| {name} | {size} | {_right(ours.slots)} | {_right(theirs.slots)} | "
            f"{100 * change.value:+.1f} [{100 * change.low:+.1f}, {100 * change.high:+.1f}] | {_right(ours.requests)} |"
        )


def _right(wrong: object) -> str:
    found = wer_interval({0: wrong})  # type: ignore[dict-item]
    return f"{100 * (1 - found.value):.1f} [{100 * (1 - found.high):.1f}, {100 * (1 - found.low):.1f}]"


def paraphrases(folder: Path) -> None:
    """Print AUC and ECE of the paraphrase model on pairs of held-out groups, by corpus and kind of negative pair."""
    texts = [text for name in (GROUPS, SNIPS) for text in _texts(str(folder / name), name.partition("_")[0])]
    settings = ParaphraseFit()
    changes = OneWordChanges(chosen_texts(texts, settings.pairs))
    pairs = draw_pairs(texts, settings.pairs, changes)
    spans = [(text.tokens, [slot[1:] for slot in text.slots or ()]) for text in texts]
    counts = count_words(spans, "en", changes, settings.pairs.politeness)
    rows = np.stack([pair_features(pair.left, pair.right, counts) for pair in pairs])
    positive = np.array([pair.positive for pair in pairs])
    fitted = fit_calibrated(
        rows, positive, [pair.meaning for pair in pairs], FEATURES, settings.part(CalibratedSettings)
    )
    print(f"\nParaphrase model: {len(pairs)} pairs of {len(texts)} texts, five folds of groups\n")
    print("| pairs | n | AUC | ECE |\n|---|---|---|---|")
    _row("all", pairs, fitted.held_out, np.ones(len(pairs), bool))
    for corpus in ("hwu64", "snips"):
        _row(corpus, pairs, fitted.held_out, np.array([pair.meaning.startswith(corpus) for pair in pairs]))
    for kind in ("nearest", "one_word", "other_value", "same_intent", "random"):
        own = np.array([pair.kind in ("same", kind) for pair in pairs])
        _row(f"negatives: {kind}", pairs, fitted.held_out, own)


def _row(name: str, pairs: list[TextPair], scores: np.ndarray, own: np.ndarray) -> None:
    positive = np.array([pair.positive for pair in pairs])[own]
    groups = [pair.meaning for pair, here in zip(pairs, own, strict=True) if here]
    found = auc_interval(scores[own], positive, groups, replicates=500)
    error = ece_interval(scores[own], positive, np.array(groups), replicates=300)
    print(
        f"| {name} | {int(own.sum())} | {found.value:.3f} [{found.low:.3f}, {found.high:.3f}] | "
        f"{error.value:.3f} [{error.low:.3f}, {error.high:.3f}] |"
    )


def _texts(place: str, corpus: str) -> list[MeaningText]:
    parse = ParseMeanings(MeaningSettings())
    rows = [row for table in list_objects(place, corpus, own=()) for row in parse(table).to_pylist()]
    kept = [row for row in rows if row["reject_reason"] is None]
    slots = [tuple((one["name"], one["start"], one["end"]) for one in row["slots"]) for row in kept]
    return [
        MeaningText(row["id"], row["meaning"], tuple(row["tokens"]), row["intent"], own)
        for row, own in zip(kept, slots, strict=True)
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("place", type=Path)
    given = parser.parse_args().place
    projections("Typed requests", list(typed_pairs(str(given / TYPED))))
    projections("Other wordings", list(group_pairs(str(given / GROUPS))))
    paraphrases(given)
