"""What an assistant learns from the sessions of its users, without labels.

Turns of sessions go in, with what was heard and how it was read. Failures are found by what users do next; the labels
of a rephrase that was understood are projected onto the request that failed, and domain models are trained on them
(Falke et al., COLING 2020). Requests that fail are rewritten by an absorbing Markov chain over interpretations
(Ponnusamy et al., AAAI 2020). Domains that would be right as well become pseudo-labels, and negative feedback counts
(Kim and Kim, ICASSP 2020). Goals that follow others more often than chance are found by pointwise mutual information,
and spans that no catalogue knows by a tagger that was trained with masked values. Each part can be switched off.
"""

from __future__ import annotations

from functools import partial

from gristmill.actors.nlu.folds import TEST
from gristmill.actors.nlu.hypotheses import ListSettings
from gristmill.actors.sessions.candidate_pairs import FRICTION
from gristmill.actors.sources.objects import list_objects
from gristmill.pipelines.inputs import check_listed, urls_of
from gristmill.pipelines.nlu.corpora import RequestCorpusSettings, check_requests, prepare_requests, split_requests
from gristmill.pipelines.nlu.systems import DomainSettings, train_domains
from gristmill.pipelines.report.report import Report
from gristmill.pipelines.run import Run
from gristmill.pipelines.sessions import session_report
from gristmill.pipelines.sessions.corpora import (
    SessionSettings,
    bank_of,
    check_sessions,
    own_turns,
    said,
    simulated_turns,
    wording_groups,
)
from gristmill.pipelines.sessions.goals import GoalSettings, mine_goals
from gristmill.pipelines.sessions.learnt import Learnt, test_models
from gristmill.pipelines.sessions.meanings import MeaningFiles, meaning_groups
from gristmill.pipelines.sessions.projection import SessionProjectionSettings, friction_parts, projection_parts
from gristmill.pipelines.sessions.projection_scores import typed_pairs
from gristmill.pipelines.sessions.retrained import Models, divide
from gristmill.pipelines.sessions.rewrites import RewriteSettings, count_nodes, mine_rewrites
from gristmill.pipelines.sessions.skill_inputs import SkillSourceSettings, check_table, skill_requests_of, turn_requests
from gristmill.pipelines.sessions.skills import SkillSettings, give_feedback, learn_skills
from gristmill.pipelines.sessions.teaching import TeachingSettings, learn_teaching, teach
from gristmill.pipelines.sessions.trigger import OfferSettings, learn_trigger
from gristmill.shards import store
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.settings import Settings

SAMPLE = 4000  # records of a plan's trial


class Config(Settings):
    """The recipe's settings; the defaults are the embedded default."""

    corpus: RequestCorpusSettings = RequestCorpusSettings(records=1500)
    """Annotated requests: of the recogniser that users of simulated sessions speak to, and to add to."""
    sessions: SessionSettings = SessionSettings()
    """The user's own sessions, or simulated ones."""
    domains: DomainSettings = DomainSettings()
    """The models of the domains."""
    lists: ListSettings = ListSettings(n=4, intents=1)
    """Readings of a simulated turn: the interpretation, and its alternatives."""
    projection: SessionProjectionSettings | None = SessionProjectionSettings()
    """Failures, rephrases, and labels from them (``null``: without)."""
    rewrites: RewriteSettings | None = RewriteSettings()
    """Rewrites of requests that fail."""
    meanings: MeaningFiles | None = None
    """Files of texts that mean the same, to learn from what a rephrase is, beside generated and annotated requests."""
    typed: str | None = None
    """The URL of annotated requests with the same requests as they are typed (JSONL: ``annotation``, ``typed``,
    ``changed``), on which the projection is measured by itself."""
    goals: GoalSettings | None = GoalSettings()
    """Goals that follow others."""
    offers: OfferSettings = OfferSettings()
    """Real offers of a goal, and whether they were accepted: when to predict a goal at all."""
    skills: SkillSettings | None = SkillSettings()
    """Several right skills, from pseudo labels and negative feedback."""
    skill_requests: SkillSourceSettings = SkillSourceSettings()
    """The requests by which skills are learnt."""
    teaching: TeachingSettings | None = TeachingSettings()
    """Spans that no catalogue knows."""


def run(config: Config, run: Run) -> Report:
    """Run the recipe and return its report."""
    check(config)

    # Annotated requests; each seed has models and simulated sessions of its own, a user's sessions are there once.
    requests = prepare_requests(run, config.corpus)
    own = config.sessions.places is not None
    meanings = [] if config.meanings is None else [meaning_groups(run, config.meanings)]
    trigger = None if config.offers.places is None else learn_trigger(run, config.offers)
    learnt = [_learnt(run, config, requests, meanings, seed) for seed in (run.seeds[:1] if own else run.seeds)]

    # Several right skills: the same requests for each seed of a training.
    if config.skills is not None and (not own or config.skill_requests.turns):
        if own:
            asked = turn_requests(run, "skill_requests", learnt[0].turns)
        else:
            asked = give_feedback(run, config.skills, skill_requests_of(run, config.skill_requests, run.seed))
        for made in learnt:
            made.skills = learn_skills(run, config.skills, asked, made.seed, f"_{made.seed}")
    run.finish()
    return session_report.report(run, config, learnt, trigger)


def check(config: Config) -> None:
    """Raise a ``UserError`` for mistakes that can be found before anything is made."""
    check_requests(config.corpus)
    check_sessions(config.sessions)
    meanings = None if config.meanings is None else config.meanings.places
    given = {"meanings.places": meanings, "offers.places": config.offers.places}
    for name, places in given.items():
        try:
            check_listed(partial(list_objects, url, name) for url in urls_of(places))
        except UserError as error:
            raise UserError(f"{name}: {error}") from None
    if config.skills is not None and config.skill_requests.table is not None:
        check_table(config.skill_requests.table, config.skill_requests.dialogue)
    if config.typed is not None and config.projection is not None:
        if not store.exists(config.typed):
            raise UserError(f"typed: {config.typed}: no such file; expected JSONL with annotation, typed and changed")
        next(typed_pairs(config.typed), None)
    failure = config.rewrites.interpret.failure if config.rewrites is not None else None
    if failure not in (None, FRICTION.name) or (failure is not None and config.projection is None):
        raise UserError(
            f"rewrites.interpret.failure: turns have no column {failure!r}; expected {FRICTION.name!r}, which the "
            "projection adds, or null"
        )


def _learnt(run: Run, config: Config, requests: SealedSet, meanings: list[SealedSet], seed: int) -> Learnt:
    suffix = f"_{seed}"
    annotated = split_requests(run, config.corpus, requests, seed)
    domains = sorted({name for table in requests.tables(["domain"]) for name in table["domain"].unique().to_pylist()})
    base = train_domains(run, config.domains, {seed: annotated}, domains, 0)[seed][TEST]
    made = _turns(run, config, base, seed)
    turns = made.turns

    # Which turns failed, and which say the same again; labels of what was understood, for what was not.
    if config.projection is not None:
        groups = [*wording_groups(run, config.sessions, annotated, seed), *meanings]
        found = friction_parts(run, config.projection, turns, groups, suffix)
        made.projection = projection_parts(run, config.projection, found, suffix)
        turns = found.turns

    # Rewrites of what fails, whose wins and losses are counted in later sessions; goals that follow others.
    if config.rewrites is not None:
        judged = config.projection is not None  # whether each turn has a probability of failure
        made.rewrites = mine_rewrites(run, config.rewrites.judged(FRICTION.name if judged else None), turns, suffix)
        if made.periods is not None:
            made.later_nodes = count_nodes(run, config.rewrites, made.periods.after, f"{suffix}_later")[1]
    if config.goals is not None:
        made.goals = mine_goals(run, config.goals, made.turns, suffix)

    # Spans that no catalogue knows, in annotated requests with hidden values and in the turns.
    if config.teaching is not None:
        made.teaching = learn_teaching(run, config.teaching, requests, suffix, seed)
        made.taught = teach(run, config.teaching, made.teaching.model, made.turns, suffix)

    # Domain models of annotated requests, and of what was added to them.
    made.read = test_models(run, config.domains, made, annotated, base, domains)
    return made


def _turns(run: Run, config: Config, base: Models, seed: int) -> Learnt:
    """Return the turns that are learnt from."""
    given = config.sessions
    if given.places is not None:
        return Learnt(seed, own_turns(run, given))
    answered = given.bank.system is not None  # by a system of SLURP's, and not by models of ours
    _, bank = bank_of(run, said(run, given.bank, seed), None if answered else base, config.lists, f"_{seed}")
    periods = divide(run, simulated_turns(run, given.simulation, bank, seed), f"_{seed}")
    return Learnt(seed, periods.learnt, periods, bank)
