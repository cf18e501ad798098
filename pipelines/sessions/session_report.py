"""The report of what sessions taught: errors on later turns, labels, rewrites, goals, and where the turns went."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gristmill.actors.sessions.simulate import planted_in
from gristmill.models.measures.significance import Interval, Ratio, wer_interval
from gristmill.pipelines.record_scores import RecordScores, keep_scores
from gristmill.pipelines.report.measures import CHANGE, PERCENT, SEMER, Measure
from gristmill.pipelines.report.report import MetricRow, NumberTable, Picture, Report, TestSet
from gristmill.pipelines.run import Run
from gristmill.pipelines.sessions import rewrite_scores
from gristmill.pipelines.sessions.corpora import repeated_turns
from gristmill.pipelines.sessions.goals import goal_truth, score_goals
from gristmill.pipelines.sessions.learnt import PROJECTED, SUCCESSES, Learnt
from gristmill.pipelines.sessions.projection import EmissionScores, examples, funnel, score_emitted
from gristmill.pipelines.sessions.projection_scores import score_pairs, typed_pairs
from gristmill.pipelines.sessions.retrained import BASE, FEWEST, pooled, score_tests, semer_rows
from gristmill.pipelines.sessions.rewrite_picture import rewrite_picture
from gristmill.pipelines.sessions.rewrites import RewriteSettings
from gristmill.pipelines.sessions.skill_scores import score_skills
from gristmill.pipelines.sessions.teaching import score_teaching, teaching_metrics
from gristmill.pipelines.sessions.trigger import LearnedTrigger, trigger_metrics

PRECISION = Measure("precision", "Precision", PERCENT, 1, better="higher", interval=True)
EMISSION = Measure("emission_rate", "Failing utterances with a label", PERCENT, 1, better="higher")
LOST = Measure("lost", "SemER where all was right", PERCENT, 1, interval=True)
OTHERS = (
    Measure("span_exact", "Exact spans", PERCENT, 1, better="higher", interval=True),
    Measure("string_match", "By string matching", PERCENT, 1, better="higher", interval=True),
    Measure("precision_at_100", "Precision of the first 100", PERCENT, 1, better="higher", interval=True),
    Measure("macro_f1", "Macro-F1", PERCENT, 1, better="higher", interval=True),
    Measure("macro_f1_relative", "Change of macro-F1", CHANGE, 1, better="higher", interval=True),
    Measure("wrong_negative", "Wrong first choices, negative feedback", PERCENT, 1, interval=True),
    Measure("wrong_negative_relative", "Change of these", CHANGE, 1, interval=True),
    Measure("ece_negative", "ECE there", PERCENT, 1),
    Measure("auc", "AUC", digits=3, better="higher", interval=True),
    Measure("span_f1", "Span F1", PERCENT, 1, better="higher", interval=True),
)
LABELS = {
    BASE: "Annotated requests alone",
    SUCCESSES: "Self-training",
    PROJECTED: "Projected labels",
    "markov": "Absorbing Markov chain",
    "last": "The last reformulation",
    "npmi": "Pointwise mutual information",
    "count": "Sessions with both",
    "tail": "Later failing",
    "unheard": "Later failing, never said before",
    "kept": "Later right",
    "head": "Annotated",
    "projection": "Typed requests",
    "projection_changed": "Typed, values written otherwise",
    "emitted": "Labels from rephrases",
    "rewrite": "Rewrites",
    "goals": "Goals that follow",
    "skills": "Skills",
    "single": "One label",
    "pseudo": "and pseudo labels",
    "negative": "and negative feedback",
    "both": "and both",
    "offers": "Offers of a goal",
    "trigger": "Trigger model",
    "rate": "Rate of each goal",
    "teaching": "Unknown spans",
    "masked": "Tagger, masked values",
    "plain": "Tagger, no masks",
    "new_words": "Words never seen",
}
INVENTED = (
    "Of simulated sessions, what is said, what was heard, how it was read and whether that was wrong are real; who "
    "speaks, what they want, whether they try again, the seconds between turns, barge-in, which outcomes are known and "
    "false rephrases are drawn (settings: sessions.simulation)."
)
_SHOWN = 5


def report(run: Run, config: Any, learnt: Sequence[Learnt], trigger: LearnedTrigger | None) -> Report:
    """Return the report of all seeds."""
    rows, sizes = _errors(run, learnt)
    truths = _truths(config.rewrites, learnt)
    rows += [*_emitted(learnt), *_rewrites(config.rewrites, learnt, truths), *_goals(config, learnt)]
    rows += _typed(config)
    rows += [] if trigger is None else trigger_metrics(trigger, config.offers.training)
    skills = {made.seed: made.skills for made in learnt if made.skills is not None and made.periods is not None}
    rows += score_skills(skills, config.skills) if skills else []
    taught = {made.seed: score_teaching(made.teaching) for made in learnt if made.teaching is not None}
    rows += teaching_metrics(taught) if taught else []
    simulated = learnt[0].periods is not None
    proposed = PROJECTED if learnt[0].projection is not None else SUCCESSES
    return Report(
        title="What sessions teach",
        recipe={"name": "sessions", **config.model_dump(mode="json")},
        measures=[SEMER, SEMER.relative(), LOST, *_of_parts()],
        baseline=BASE,
        baselines=[BASE, SUCCESSES],
        headline=(proposed, "tail" if simulated else "head"),
        proposals=[PROJECTED],
        labels=LABELS,
        tested="turns",
        metrics=rows,
        test_sets=sizes,
        measured=[table for table in (_parts(rows), *_tables(learnt[0], truths)) if table.rows],
        pictures=_pictures(learnt[0]),
        notes=[INVENTED] if simulated else _of_own(config, learnt[0]),
    )


def _of_own(config: Any, made: Learnt) -> list[str]:
    """Return what is to be known of a user's own sessions."""
    notes = ["Nothing is known to be true of these sessions: only annotated requests are a test."]
    if any(table["user"].null_count for table in made.turns.tables(["user"])):
        notes.append("Some turns name no user: there, sessions are counted as users.")
    if config.sessions.kind == "dialogues":
        notes.append("Domains, intents and slots of these dialogues are annotators', and no recogniser's readings.")
    if config.skills is not None and not config.skill_requests.turns:
        notes.append("Skills are not learnt from these turns (skill_requests.turns=true does).")
    return notes


def _of_parts() -> list[Measure]:
    """Return the measures of single parts, those of one name once: precision is of labels, skills and spans alike.

    They have a table of their own: each is of one or two test sets.
    """
    given = (PRECISION, EMISSION, *rewrite_scores.MEASURES, *OTHERS)
    return [replace(one, column=False) for one in {one.name: one for one in given}.values()]


def _parts(rows: Sequence[MetricRow]) -> NumberTable:
    """Return the scores of each part, in words."""
    measures = {one.name: one for one in _of_parts()}
    shown = []
    for row in rows:
        if row.seed is not None or row.metric not in measures or row.value is None:
            continue
        measure = measures[row.metric]
        ends = "" if row.low is None or row.high is None else f"{measure.show(row.low)} to {measure.show(row.high)}"
        label = {"part": LABELS.get(row.test_set, row.test_set), "system": LABELS.get(row.system, row.system)}
        shown.append(
            {**label, "measure": measure.label, "value": measure.show(row.value), "interval": ends, "n": row.n}
        )
    return NumberTable("Each part against what is true", shown, "Means over seeds, with 95 % intervals.")


def _pictures(made: Learnt) -> list[Picture]:
    svg = "" if made.rewrites is None else rewrite_picture(made.rewrites)
    caption = (
        "Circles: interpretations, by their turns; green: the share that succeeds at once. Bold: rewrites. Thin: what "
        "users went on to. Shown is the largest component with a rewrite that has at most 40 interpretations."
    )
    return [Picture("A component of interpretations, and its rewrites", svg, caption)] if svg else []


def _errors(run: Run, learnt: Sequence[Learnt]) -> tuple[list[MetricRow], dict[str, TestSet]]:
    """Return SemER on later turns and annotated requests, and the sizes of these tests."""
    scored: dict[str, dict[str, dict[int, Any]]] = {}
    for made in learnt:
        for system, tests in score_tests(made.read, made.turns).items():
            for name, one in tests.items():
                scored.setdefault(system, {}).setdefault(name, {})[made.seed] = one
    sets = {f"{made.seed}/{system}": read.head for made in learnt for system, read in made.read.items()}
    later = {f"{made.seed}/{s}": read.later for made in learnt for s, read in made.read.items() if read.later}
    sizes = {name: TestSet({"turns": len(pooled(runs)[0].ids)}, "meanings") for name, runs in scored[BASE].items()}
    lost = [row for system, tests in scored.items() for row in _lost(system, tests.pop("kept", None))]
    keep_scores(run, SEMER.name, scored, {"head": sets, "later": later})
    return [*semer_rows(scored, [BASE, SUCCESSES]), *lost], sizes


def _lost(system: str, runs: Mapping[int, RecordScores] | None) -> list[MetricRow]:
    """Return the errors of a system where that of the logs makes none: what was lost, which is no fair comparison."""
    if not runs:
        return []
    whole = pooled(runs)
    if system == BASE and not whole[0].errors.any():  # it is what reads the logs
        return []
    found = wer_interval(whole, min_speakers=FEWEST)
    return [MetricRow(system, "kept", LOST.name, found.value, found.low, found.high, len(whole[0].words), None)]


def _emitted(learnt: Sequence[Learnt]) -> list[MetricRow]:
    scores = {one.seed: score_emitted(one.projection) for one in learnt if one.projection and one.periods}
    if not scores:
        return []
    rows = []
    for name, part in ((PRECISION.name, "wrong"), (EMISSION.name, "missed")):
        whole = _pooled(scores, part)
        if not len(whole.words):
            continue
        found = _less(wer_interval({0: whole}))
        rows.append(MetricRow(PROJECTED, "emitted", name, found.value, found.low, found.high, len(whole.words), None))
        for seed, one in scores.items():
            own: Ratio = getattr(one, part)
            rows.append(MetricRow(PROJECTED, "emitted", name, 1 - own.value, None, None, len(own.words), seed))
    return [row for row in rows if row.value is not None and not math.isnan(row.value)]


def _pooled(scores: Mapping[int, EmissionScores], part: str) -> Ratio:
    """Return the counts of all seeds as one: each seed has utterances of its own."""
    parts: list[tuple[int, Ratio]] = [(seed, getattr(one, part)) for seed, one in scores.items()]
    return Ratio(
        np.concatenate([one.errors for _, one in parts]),
        np.concatenate([one.words for _, one in parts]),
        tuple(f"{seed}/{name}" for seed, one in parts for name in one.speakers),
    )


def _less(found: Interval) -> Interval:
    """Return 1 less a rate."""
    return Interval(1 - found.value, 1 - found.high, 1 - found.low, found.blocks)


def _typed(config: Any) -> list[MetricRow]:
    """Return the share of slots whose whole value and no more is found in typed requests, and by string matching."""
    if config.typed is None or config.projection is None:
        return []
    pairs, rows = list(typed_pairs(config.typed)), []
    for name, changed in (("projection", None), ("projection_changed", True)):
        for metric, one in score_pairs(pairs, config.projection.project, changed=changed).items():
            found, size = _less(wer_interval({0: one.slots})), int(one.slots.words.sum())
            rows.append(MetricRow(PROJECTED, name, metric, found.value, found.low, found.high, size, None))
    return rows


def _truths(settings: RewriteSettings | None, learnt: Sequence[Learnt]) -> dict[int, rewrite_scores.Truth]:
    """Return what is true of the interpretations of simulated turns, by seed."""
    if settings is None:
        return {}
    given = ((made.seed, made.rewrites, made.turns) for made in learnt if made.periods is not None)
    return {
        seed: rewrite_scores.read_truth(mined, turns, settings) for seed, mined, turns in given if mined is not None
    }


def _rewrites(
    settings: RewriteSettings | None, learnt: Sequence[Learnt], truths: Mapping[int, rewrite_scores.Truth]
) -> list[MetricRow]:
    scores: dict[str, dict[str, dict[int, Any]]] = {}
    for made in learnt:
        truth = truths.get(made.seed)
        if settings is None or made.rewrites is None or truth is None:
            continue
        systems = {
            "markov": rewrite_scores.emitted(made.rewrites.rewrites),
            "last": rewrite_scores.last_reformulations(made.rewrites.nodes),
        }
        for system, rewrites in systems.items():
            support = settings.guard.support
            own = rewrite_scores.score(rewrites, made.rewrites, truth, support, made.later_nodes)
            for name, shares in own.items():
                scores.setdefault(system, {}).setdefault(name, {})[made.seed] = shares
    rows = (row for system, own in scores.items() for row in rewrite_scores.metric_rows(system, own))
    return [row for row in rows if row.value is not None]


def _goals(config: Any, learnt: Sequence[Learnt]) -> list[MetricRow]:
    rows = []
    for made in learnt:
        if made.goals is None or made.periods is None or made.bank is None:
            continue
        planted = planted_in(made.bank, config.sessions.simulation.follow_ups)
        names = [(f"{one[0]}/{one[1]}", f"{other[0]}/{other[1]}") for one, other in planted]
        truth = goal_truth(made.turns, names)
        rank = config.goals.follow_ups.rank
        for system, found in ((rank, made.goals.ranked(rank)), ("count", made.goals.by_count(config.goals.follow_ups))):
            own = score_goals(found, truth)
            if own.found:
                value = own.precision
                rows.append(MetricRow(system, "goals", "precision_at_100", value, None, None, own.found, made.seed))
    return [*rows, *_means(rows)]


def _means(rows: Iterable[MetricRow]) -> list[MetricRow]:
    """Return the means over seeds, with the least and the most of them in the place of an interval."""
    by_system: dict[str, list[MetricRow]] = {}
    for row in rows:
        by_system.setdefault(row.system, []).append(row)
    made = []
    for system, own in by_system.items():
        values = [row.value for row in own if row.value is not None]
        size = sum(row.n for row in own)
        made.append(
            MetricRow(
                system, own[0].test_set, own[0].metric, sum(values) / len(values), min(values), max(values), size, None
            )
        )
    return made


def _tables(first: Learnt, truths: Mapping[int, rewrite_scores.Truth]) -> list[NumberTable]:
    rewritten = rewrite_scores.rewritten_table(first.rewrites, truths.get(first.seed))
    return [_funnel(first), *_labels(first), rewritten, _following(first), _unknown(first)]


def _funnel(made: Learnt) -> NumberTable:
    rows: list[dict[str, Any]] = []
    if made.periods is None:  # simulated turns are there once
        rows.append({"records": "repeats of a turn, which are dropped", "number": repeated_turns(made.turns)})
    if made.projection is not None:
        found = funnel(made.projection)
        counts = {
            "turns": found.turns,
            "candidate pairs": found.pairs,
            "that mean the same": found.paraphrases,
            "of which the first failed and the second did not": found.rephrases,
            "projected": found.projected,
            "utterances with a projection": found.utterances,
            "labels that are used": found.emitted,
        }
        rows += [{"records": name, "number": number} for name, number in counts.items()]
        rows += [{"records": f"refused: {name}", "number": number} for name, number in found.refused.items()]
    return NumberTable("Where the turns went", rows, f"Sessions of seed {made.seed}.")


def _labels(made: Learnt) -> list[NumberTable]:
    if made.projection is None:
        return []
    tables = []
    for right, own in examples(made.projection, _SHOWN).items():
        title = ("Labels from rephrases" if right else "Wrong labels from rephrases") + ", the most certain"
        rows = [
            {
                "utterance": one["text"],
                "label": f"{one['domain']}/{one['intent']}",
                "slots": ", ".join(f"{slot['name']}: {slot['value']}" for slot in one["slots"]),
                "users": one["support"],
                "confidence": round(one["confidence"], 3),
            }
            for one in own
        ]
        tables.append(NumberTable(title, rows))
    return tables


def _following(made: Learnt) -> NumberTable:
    if made.goals is None:
        return NumberTable("Goals that follow others", [])
    rows = [
        {"goal": row["direct"], "then": row["latent"], "sessions": row["support"], "npmi": round(row["npmi"], 3)}
        for row in made.goals.ranked("npmi")[: 2 * _SHOWN]
    ]
    return NumberTable("Goals that follow others", rows)


def _unknown(made: Learnt) -> NumberTable:
    if made.taught is None:
        return NumberTable("Unknown spans in turns", [])
    counts: dict[tuple[str, str], int] = {}
    for table in made.taught.tables(["slots"]):
        for slots in table["slots"].to_pylist():
            for slot in slots:
                key = slot["name"], slot["value"]
                counts[key] = counts.get(key, 0) + 1
    often = sorted(counts, key=lambda key: (-counts[key], key))[: 2 * _SHOWN]
    rows = [{"span": value, "slot": name, "turns": counts[name, value]} for name, value in often]
    return NumberTable("Unknown spans in turns", rows, f"{made.taught.records} turns have one.")
