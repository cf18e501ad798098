"""Label projection from rephrases: annotated requests from sessions, without an annotator.

Falke, Boese, Sorokin, Tirkaz and Lehnen, "Leveraging user paraphrasing behavior in dialog systems to automatically
collect annotations for long-tail utterances" (COLING 2020, industry): a user who is not understood says it in other
words. Pairs of turns of which the first failed, the second did not, and both mean the same give the first the label
of the second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from gristmill.actors.sessions.candidate_pairs import (
    TRUTH,
    CandidatePairs,
    FollowedSettings,
    FollowedTurns,
    PairingSettings,
)
from gristmill.actors.sessions.outcomes import (
    COUNTED,
    READ_SO,
    READING,
    UTTERANCE,
    Outcomes,
    OutcomeSettings,
    PooledFriction,
    TurnKeys,
    train_outcomes,
)
from gristmill.actors.sessions.pair_models import (
    Friction,
    FrictionFit,
    Paraphrase,
    ParaphraseFit,
    ParaphraseSettings,
    train_friction,
    train_paraphrase,
)
from gristmill.actors.sessions.projecting import (
    FAILED,
    NO_READING,
    NOT_SAME,
    READ,
    RIGHT,
    SAME_WORDS,
    UNDERSTOOD,
    Agreed,
    AgreementSettings,
    Project,
    ProjectSettings,
    Rephrases,
    RephraseSettings,
    UtteranceReadings,
    UtteranceReadingsSettings,
)
from gristmill.models.measures.significance import Ratio
from gristmill.models.sessions.pairs import WindowSettings
from gristmill.pipelines.run import Run
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.exchange import deal, merge, parts_of
from gristmill.shards.job import TrainJob
from gristmill.shards.reducers import join
from gristmill.shards.schema import TRUTH_FIELDS, TURN_FIELDS
from gristmill.shards.settings import Settings
from gristmill.shards.stage import MERGED
from gristmill.shards.step import Step


class SessionProjectionSettings(Settings):
    """Label projection from rephrases."""

    window: WindowSettings = WindowSettings()
    """Which turns of a session are candidate pairs."""
    paraphrase: ParaphraseFit = ParaphraseFit()
    """The model of whether two turns mean the same."""
    friction: FrictionFit = FrictionFit()
    """The model of whether a turn failed."""
    outcomes: OutcomeSettings = OutcomeSettings()
    """How far known outcomes are trusted."""
    rephrases: RephraseSettings = RephraseSettings()
    """Which pairs are used."""
    project: ProjectSettings = ProjectSettings()
    """How labels are projected."""
    agreement: AgreementSettings = AgreementSettings()
    """Which labels are kept."""


@dataclass(frozen=True)
class FrictionParts:
    """The models of turns, and the turns with ``paraphrase`` (that the next turn means the same) and ``friction``."""

    paraphrase_model: Artifact
    friction_model: Artifact
    outcome_model: Artifact
    turns: SealedSet
    truth: bool  # whether the turns have the truth, for scoring


@dataclass(frozen=True)
class ProjectionParts:
    """The sets of a projection.

    ``pairs`` are candidate pairs, ``projected`` those that were projected, with rejects and their reasons; ``readings``
    has how often each utterance was read and understood; ``emitted`` are the annotated requests, with ``confidence``,
    ``support`` and ``agreement``.
    """

    turns: SealedSet
    pairs: SealedSet
    projected: SealedSet
    readings: SealedSet
    emitted: SealedSet


@dataclass(frozen=True)
class ProjectionFunnel:
    """How many records each part of a projection left over."""

    turns: int
    pairs: int
    paraphrases: int  # of the pairs, those that mean the same
    rephrases: int  # of these, those whose first turn failed and second did not
    projected: int
    refused: Mapping[str, int]  # by reason: pairs that were not projected, and utterances that were not emitted
    utterances: int  # that have a projection
    emitted: int


def paraphrase_model(
    run: Run, settings: ParaphraseFit, groups: Sequence[SealedSet], name: str = "paraphrase_model"
) -> Artifact:
    """Declare the fit of the paraphrase model to sets of texts with their ``meaning``."""
    job = TrainJob(name, train_paraphrase, settings, {"groups": list(groups)}, version=2, stepwise=False)
    return run.train(job)


def friction_parts(
    run: Run, settings: SessionProjectionSettings, turns: SealedSet, groups: Sequence[SealedSet], suffix: str = ""
) -> FrictionParts:
    """Declare the two models, and the turns with their probabilities.

    ``turns`` are sessions (``shards.schema.TURN_FIELDS``; with the fields of ``TRUTH_FIELDS``, the results can be
    scored); ``groups`` are sets of texts with ``meaning`` and ``tokens`` on which the paraphrase model is fitted.
    """
    means = paraphrase_model(run, settings.paraphrase, groups)
    truth = has_truth(turns)
    known = [field.name for field in (*TURN_FIELDS, *(TRUTH_FIELDS if truth else ())) if field.name != "id"]
    dealt = run.step(deal(f"rephrase_turns{suffix}", turns, ["session"], known))
    stages = (
        FollowedTurns.stage(FollowedSettings(keeps=tuple(known))),
        Paraphrase.stage(ParaphraseSettings(lang=settings.paraphrase.lang), model=means.ref),
    )
    followed = run.step(merge(f"followed{suffix}", dealt, *stages))
    job = TrainJob(f"friction_model{suffix}", train_friction, settings.friction, {"turns": followed}, stepwise=False)
    fails = run.train(job)
    alone = run.step(Step(f"turns_alone{suffix}", (Friction.stage(model=fails.ref), TurnKeys.stage()), followed))

    # What became of the same reading in other turns, joined to each turn.
    counted = [field.name for field in COUNTED]
    read = run.step(deal(f"by_reading{suffix}", alone, [READING.name], list(Outcomes.columns)))
    found = run.step(merge(f"outcomes{suffix}", read, Outcomes.stage()))
    kept = [*known, *(name for name in alone.schema.names if name not in (*known, *MERGED.names))]
    own = run.step(deal(f"turns_read_so{suffix}", alone, [READ_SO.name], kept))
    beside = run.step(deal(f"outcomes_read_so{suffix}", found, [READ_SO.name], counted, parts=parts_of(own)))
    joined = run.step(join(f"turns_outcomes{suffix}", own, beside, counted, kept))
    job = TrainJob(f"outcome_model{suffix}", train_outcomes, settings.friction, {"turns": joined}, stepwise=False)
    pooled = run.train(job)
    stage = PooledFriction.stage(settings.outcomes, model=pooled.ref)
    return FrictionParts(means, fails, pooled, run.step(Step(f"turns_friction{suffix}", (stage,), joined)), truth)


def projection_parts(
    run: Run, settings: SessionProjectionSettings, made: FrictionParts, suffix: str = ""
) -> ProjectionParts:
    """Declare the pairs of the turns, their projections and the requests that come of them."""
    truth = made.truth
    dealt = run.step(deal(f"friction_turns{suffix}", made.turns, ["session"]))
    pairing = PairingSettings(truth=truth, seconds=settings.window.seconds, turns=settings.window.turns)
    pairs = run.step(merge(f"pairs{suffix}", dealt, CandidatePairs.stage(pairing)))
    stages = (
        Paraphrase.stage(ParaphraseSettings(lang=settings.paraphrase.lang), model=made.paraphrase_model.ref),
        Rephrases.stage(settings.rephrases),
        Project.stage(settings.project),
        TurnKeys.stage(),
    )
    projected = run.step(Step(f"projected{suffix}", stages, pairs))

    # How often each utterance was read and understood, joined to the projections onto it.
    outcome = ["succeeded", "friction", *(["failed"] if truth else [])]
    read = run.step(deal(f"turns_by_utterance{suffix}", made.turns, [UTTERANCE.name], outcome))
    readings = run.step(
        merge(f"readings{suffix}", read, UtteranceReadings.stage(UtteranceReadingsSettings(truth=truth)))
    )
    own = ["session", "user", "lang", "tokens", "next_domain", "next_intent", "projected_slots", "confidence"]
    own += [name for name in TRUTH if truth and name.startswith("true_")]
    onto = run.step(deal(f"projected_by_utterance{suffix}", projected, [UTTERANCE.name], [*own, UTTERANCE.name]))
    counts = [READ.name, UNDERSTOOD.name]
    beside = run.step(deal(f"readings_by_utterance{suffix}", readings, ["id"], counts, parts=parts_of(onto)))
    joined = run.step(join(f"projected_read{suffix}", onto, beside, counts, [*own, UTTERANCE.name]))
    again = run.step(deal(f"labels_by_utterance{suffix}", joined, [UTTERANCE.name], [*own, *counts]))
    kept = settings.agreement.but(truth=truth)
    emitted = run.step(merge(f"emitted{suffix}", again, Agreed.stage(kept)))
    return ProjectionParts(made.turns, pairs, projected, readings, emitted)


def has_truth(turns: SealedSet) -> bool:
    """Return whether turns have what is true of them, for scoring."""
    return {field.name for field in TRUTH_FIELDS} <= set(turns.schema.names)


def funnel(made: ProjectionParts) -> ProjectionFunnel:
    """Return the counts of a projection, from the seals of its sets."""
    reasons = _reasons(made.projected.seal["reasons"])
    paraphrases = made.pairs.records - sum(reasons.get(name, 0) for name in (NO_READING, SAME_WORDS, NOT_SAME))
    refused = {name: count for name, count in reasons.items() if name.startswith("projection")}
    rephrases = made.projected.records + sum(refused.values())
    of_utterances = _reasons(made.emitted.seal["reasons"])
    return ProjectionFunnel(
        turns=made.turns.records,
        pairs=made.pairs.records,
        paraphrases=paraphrases,
        rephrases=rephrases,
        projected=made.projected.records,
        refused=dict(sorted((reasons | of_utterances).items())),
        utterances=made.emitted.records + sum(of_utterances.values()),
        emitted=made.emitted.records,
    )


def _reasons(told: Mapping[str, int]) -> dict[str, int]:
    """Return the counts by reason, without the names of stages."""
    return {name.partition(": ")[2]: count for name, count in sorted(told.items())}


@dataclass(frozen=True)
class EmissionScores:
    """Per emitted utterance the share of its label that is wrong, and per failing utterance whether one was emitted.

    Both are counts for :func:`gristmill.models.measures.significance.wer_interval`: the rate of ``wrong`` is 1 less the
    precision, that of ``missed`` 1 less the emission rate. Of no more than ``rephrased`` of the failing utterances a
    pair with a rephrase of the same meaning that was understood is in the logs.
    """

    wrong: Ratio
    missed: Ratio
    rephrased: int

    @property
    def precision(self) -> float:
        """Share of the emitted labels that are right; not a number where there is none."""
        return 1 - self.wrong.value

    @property
    def emission_rate(self) -> float:
        """Share of the failing utterances that have an emitted label."""
        return 1 - self.missed.value


def score_emitted(made: ProjectionParts) -> EmissionScores:
    """Return the scores of emitted labels of simulated turns, by utterance.

    A label is right as far as it is the truth of the failing turns that it comes from, slots by name and value. What
    fails is an utterance with a turn that failed.

    Raises:
        UserError: the turns have no truth.
    """
    if RIGHT.name not in made.emitted.schema.names:
        raise UserError(f"{made.emitted.name}: no truth of its turns; expected those of simulated sessions")
    emitted = [row for table in made.emitted.tables(["parent_id", RIGHT.name]) for row in table.to_pylist()]
    wrong = np.array([1 - row[RIGHT.name] for row in emitted])
    labelled = {row["parent_id"] for row in emitted}
    names = (table.filter(pc.greater(table[FAILED.name], 0)) for table in made.readings.tables(["id", FAILED.name]))
    failing = [name for table in names for name in table["id"].to_pylist()]
    missed = np.array([float(name not in labelled) for name in failing])
    columns = ["tokens", "failed", "next_failed", "meaning", "next_meaning"]
    pairs = (row for table in made.pairs.tables(columns) for row in table.to_pylist())
    true = {
        " ".join(row["tokens"]).lower()
        for row in pairs
        if row["failed"] and not row["next_failed"] and row["meaning"] == row["next_meaning"]
    }
    return EmissionScores(
        Ratio(wrong, np.ones(len(wrong)), tuple(row["parent_id"] for row in emitted)),
        Ratio(missed, np.ones(len(missed)), tuple(failing)),
        len(true),
    )


def examples(made: ProjectionParts, count: int = 5) -> dict[bool, list[dict[str, Any]]]:
    """Return a few emitted labels that are right (``True``) and wrong, the most certain first; of turns with truth.

    Without truth all are under ``True``.
    """
    found: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    truth = RIGHT.name in made.emitted.schema.names
    columns = ["id", "text", "domain", "intent", "slots", "confidence", "support", *([RIGHT.name] if truth else [])]
    for table in made.emitted.tables(columns):
        for row in table.to_pylist():
            kind = not truth or row[RIGHT.name] >= 0.5
            own = sorted([*found[kind], row], key=lambda one: (-one["confidence"], one["id"]))
            found[kind] = own[:count]
    return found
