"""A new function from a few annotated requests: relevance filtering, self-training and diverse selection.

Cho, Xie and Campbell, "Semi-supervised NLU with diversity" (ASRU 2019). A linear model on word n-grams, trained on the
few annotated requests of the function against those of other ones, keeps the most relevant of a large pool without
labels. A recogniser of intent and slots, trained on the annotated requests, labels them; on those it accepts and the
annotated ones it is trained again (``self``). The whole system (``fused``) reads n-grams and sentence embeddings, and
tags slots with other functions' requests beside its own. Of what it added, a selector keeps a diverse half and quarter
that teach almost as much.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from gristmill.actors.embed import EmbedderSettings
from gristmill.actors.near_duplicates import DuplicateSettings
from gristmill.actors.requests.function_reader import Detect, DetectSettings
from gristmill.actors.requests.functions import FunctionSettings
from gristmill.actors.requests.paraphrase_trainer import ParaphraseTraining, pair_similarity
from gristmill.actors.requests.propagation import PropagationSettings
from gristmill.models.requests.diversity import DiversitySettings, Selector
from gristmill.pipelines.inputs import Places
from gristmill.pipelines.nlu.corpora import RequestCorpusSettings, check_requests
from gristmill.pipelines.record_scores import keep_scores
from gristmill.pipelines.report.measures import SEMER
from gristmill.pipelines.report.report import Report, TestSet
from gristmill.pipelines.requests import expand_scores as scores
from gristmill.pipelines.requests import expand_tables as tables
from gristmill.pipelines.requests.diversity import choose
from gristmill.pipelines.requests.expand_files import write_proposals
from gristmill.pipelines.requests.expand_parts import (
    FunctionCell,
    OwnFunctionSettings,
    own_cells,
    study_cells,
)
from gristmill.pipelines.requests.expand_systems import (
    FUSED,
    CellSystems,
    Expansion,
    FunctionRecogniserSettings,
    SelfTrainingSettings,
)
from gristmill.pipelines.run import Run
from gristmill.shards.dataset import SealedSet
from gristmill.shards.settings import Settings
from gristmill.shards.step import Step

SAMPLE = 1000  # records of a plan's trial: the functions of a smaller one have too few requests
SHARES = {"half": 0.5, "quarter": 0.25}


class Config(Settings):
    """The recipe's settings; the defaults are the embedded default."""

    corpus: RequestCorpusSettings = RequestCorpusSettings(test_share=0.35)
    """Annotated requests: of other functions, and of those that are taken for new ones."""
    functions: tuple[FunctionSettings, ...] = ()
    """Functions of the corpus that are taken for new ones, each in turn, to measure."""
    own: tuple[OwnFunctionSettings, ...] = ()
    """New functions of the user's own, with the ``pool``."""
    pool: Places | None = None
    """Text without labels for the user's own functions: any that is read as text or requests."""
    requests: tuple[int, ...] = Field((20,), min_length=1)
    """Annotated requests of a function that is taken from the corpus; the first is that of the test set ``target``."""
    duplicates: DuplicateSettings = DuplicateSettings()
    """Near duplicates of corpus and pool, which count once."""
    embedder: EmbedderSettings = EmbedderSettings()
    """The sentence embeddings of ``fused`` and of selectors."""
    recogniser: FunctionRecogniserSettings = FunctionRecogniserSettings()
    """The article's recogniser: of ``seeds``, ``random`` and ``self``."""
    fused: FunctionRecogniserSettings = FUSED
    """The recogniser of the whole system."""
    training: SelfTrainingSettings = SelfTrainingSettings()
    """The filter and self-training."""
    propagation: PropagationSettings | None = PropagationSettings()
    """Label propagation, by which ``fused`` accepts requests beside its recogniser (``null``: without it)."""
    selector: Selector = "facility_location"
    """What chooses the rows of ``diverse_half`` and ``diverse_quarter``."""
    selectors: tuple[Selector, ...] = ("random", "top")
    """Further selectors, which choose as many: systems ``<selector>_half`` and ``<selector>_quarter``."""
    detector: ParaphraseTraining | None = None
    """A paraphrase detector, trained on other functions' templates, by which ``worst_paraphrase`` compares requests;
    ``null``: by the cosine."""
    annotate: int = Field(50, ge=0)
    """Requests of the pool to propose to annotators (``to_annotate_<function>``, and a file of them)."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if bool(self.functions) == bool(self.own):
            raise ValueError("functions and own: expected one of them: functions of the corpus, or the user's own")
        if bool(self.own) != (self.pool is not None):
            raise ValueError("pool: expected the URL of text without labels with own, and none with functions")
        names = [*(one.name for one in self.functions), *(one.name for one in self.own)]
        if len(set(names)) < len(names):
            raise ValueError(f"functions: {', '.join(names)}; expected a name of its own for each")
        return self


def run(config: Config, run: Run) -> Report:
    """Run the recipe and return its report."""
    check_requests(config.corpus)

    # A few annotated requests of each function, those of other functions, a pool without labels, and a test.
    if config.functions:
        made = (config.functions, config.requests, config.duplicates, config.embedder)
        cells = study_cells(run, config.corpus, *made)
    else:
        lang = config.corpus.languages[0]
        cells = own_cells(run, config.corpus, config.own, config.pool or (), lang, config.duplicates, config.embedder)

    # The recognisers of each function, and what each reads in the test.
    expansions = [_expanded(run, config, cell) for cell in cells]
    tested = [_tested(run, one) for one in expansions]
    run.finish()
    report = _report(run, config, expansions, tested)
    if config.own:
        proposed = {one.cell.function: one.proposed for one in expansions if one.proposed}
        report.to_do = write_proposals(run.out, proposed)
    return report


def _expanded(run: Run, config: Config, cell: FunctionCell) -> Expansion:
    plain, fused, found = config.recogniser, config.fused, Expansion(cell)
    systems = CellSystems(run, cell, config.training, config.embedder, plain.relevance)

    # The article's system, and as many random requests of the pool in the place of the relevant ones.
    found.models["seeds"] = systems.recogniser("seeds", plain)
    own = systems.self_trained("self", plain, found.models["seeds"])
    found.trained["self"], found.models["self"], found.added["self"] = own, own.model, own.added
    drawn = systems.labelled("random", systems.drawn("pool", cell.pool, own.added), found.models["seeds"])
    found.models["random"] = systems.recogniser("random", plain, drawn)

    # The whole system, and the same without the pool.
    found.models["fused_seeds"] = systems.recogniser("fused_seeds", fused)
    whole = systems.self_trained("fused", fused, found.models["fused_seeds"], config.propagation)
    found.trained["fused"], found.models["fused"], found.added["fused"] = whole, whole.model, whole.added

    # Fewer requests: diverse ones, and by other selectors as many.
    for selector in dict.fromkeys((config.selector, *config.selectors)):
        name = "diverse" if selector == config.selector else selector
        given: dict[str, Any] = {}
        if selector == "worst_paraphrase" and config.detector is not None:
            given = {"load": pair_similarity, "detector": systems.detector(config.detector)}
        for part, share in SHARES.items():
            settings = DiversitySettings(selector=selector, share=share, seed=cell.draw)
            system = f"{name}_{part}"
            chosen = choose(run, f"{system}_{cell.name}", whole.added, settings, cell.seeds, **given)
            found.added[system] = chosen
            found.models[system] = systems.recogniser(system, fused, chosen)

    # What to annotate next, and where the annotation is known what that is worth, and what all of it would be.
    taken = next((one for one in config.functions if one.name == cell.function), None)
    if config.annotate:
        wanted = DiversitySettings(selector=config.selector, count=config.annotate, seed=cell.draw)
        found.proposed = choose(run, f"to_annotate_{cell.name}", whole.added, wanted, cell.seeds)
    if taken:
        known = {"all_gold": cell.pool} | ({"annotated": found.proposed} if found.proposed else {})
        for system, requests in known.items():
            found.added[system] = systems.gold(system, requests, taken)
            found.models[system] = systems.recogniser(system, fused, found.added[system])
    return found


def _tested(run: Run, made: Expansion) -> SealedSet | None:
    if made.cell.test is None:
        return None
    refs: Any = {f"read_{name}": model.ref for name, model in made.models.items()}
    stage = Detect.stage(DetectSettings(systems=tuple(made.models)), **refs)
    return run.step(Step(f"tested_{made.cell.name}", (stage,), made.cell.test))


def _report(run: Run, config: Config, made: list[Expansion], tested: list[SealedSet | None]) -> Report:
    by_set: dict[str, list[scores.TestedCell]] = {}
    for one, read in zip(made, tested, strict=True):
        if read is not None:
            name = "target" if one.cell.count in (0, config.requests[0]) else f"target_{one.cell.count}"
            cell = scores.read_cell(one.cell.function, one.cell.draw, read, list(one.models))
            by_set.setdefault(name, []).append(cell)
    baselines = ["seeds", "random", "fused_seeds"]
    if by_set:
        made_of = {"tested": {one.cell.name: read for one, read in zip(made, tested, strict=True) if read is not None}}
        keep_scores(run, SEMER.name, scores.record_scores(by_set), made_of)
    rows = [row for name, cells in by_set.items() for row in scores.metrics(cells, name, baselines)]
    return Report(
        title="A new function from a few requests",
        recipe={"name": "expand", **config.model_dump(mode="json")},
        measures=scores.MEASURES,
        baseline="seeds",
        baselines=baselines,
        headline=("fused", "target") if by_set else None,
        proposals=["self", "fused", "diverse_half", "diverse_quarter"],
        labels=tables.LABELS,
        tested="requests",
        metrics=rows,
        test_sets={name: TestSet(scores.sizes(cells)) for name, cells in by_set.items()},
        measured=tables.measured(made, rows),
    )
