"""A re-ranker that makes the readings of independently trained domains comparable.

Su et al., "A Re-ranker Scheme for Integrating Large Scale NLU Models" (SLT 2018). Each domain reads a request with
models of its own for domain, intent and slots. All domains' readings are one list of hypotheses, made by models that
were not trained on the request. Each domain's weights of its three scores and the context (the device, the hour) are
then trained independently again: by the expected semantic error rate of the list (R1), by the cross-entropy of
correctness (R2), or by both (R3). R0 is the product of the three scores. Each seed is another random split of the
requests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from gristmill.actors.nlu.hypotheses import Hypotheses, ListSettings, readers
from gristmill.actors.nlu.rerank import Rerank, RerankSettings, artifacts_of
from gristmill.actors.nlu.weight_trainer import WeightSettings
from gristmill.actors.requests import lambdarank
from gristmill.actors.requests.lambdarank import Lambdarank, LambdarankSettings, Scaling
from gristmill.pipelines.nlu.corpora import (
    RequestCorpusSettings,
    check_columns,
    check_requests,
    prepare_requests,
    split_requests,
    without_small_domains,
)
from gristmill.pipelines.nlu.systems import (
    ALONE,
    DomainSettings,
    train_domains,
    train_weights,
)
from gristmill.pipelines.record_scores import keep_scores
from gristmill.pipelines.report.measures import SEMER
from gristmill.pipelines.report.report import Report
from gristmill.pipelines.requests import scores
from gristmill.pipelines.requests.files import publish
from gristmill.pipelines.requests.peers import train_peers
from gristmill.pipelines.run import Run
from gristmill.shards import canonical
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Stage
from gristmill.shards.step import Step

SAMPLE = 2000  # records of a plan's trial: each domain needs some in each fold
UNWEIGHTED, CHOSEN = "R0", "R3"
PEERS: dict[str, Scaling] = {
    "lambdarank": "none",
    "lambdarank_temperature": "temperature",
    "lambdarank_platt": "platt",
}


class Config(Settings):
    """The recipe's settings; the defaults are the embedded default."""

    corpus: RequestCorpusSettings = RequestCorpusSettings()
    """Source of the requests."""
    domains: DomainSettings = DomainSettings()
    """The models of the domains."""
    lists: ListSettings = ListSettings()
    """The lists of hypotheses."""
    weights: WeightSettings = WeightSettings()
    """Training of each domain's weights."""
    slice: str | None = None
    """A boolean column: the requests for which it is true are an additional test set."""
    peer: Literal["lambdarank"] | None = None
    """A system to compare with."""


def run(config: Config, run: Run) -> Report:
    """Run the recipe and return its report."""
    check(config)

    # Annotated requests, and for each seed another random split into a test part and folds.
    requests = prepare_requests(run, config.corpus)
    splits = {seed: split_requests(run, config.corpus, requests, seed) for seed in run.seeds}
    splits, small = without_small_domains(run, splits, config.slice)
    domains = [name for name in _domains(run, requests) if name not in small]

    # Each domain independently: models of all training data, for the test part, and one without each fold.
    models = train_domains(run, config.domains, splits, domains, config.corpus.folds)

    # All domains' readings of each request, by models not trained on it; errors are counted here, once.
    lists = {}
    for seed in run.seeds:
        refs: Any = readers(models[seed])
        read = Hypotheses.stage(config.lists, **refs)
        lists[seed] = run.step(Step(f"hypotheses_{seed}", (read,), splits[seed]))

    # The weights of each domain, independently again, and the peer.
    weights = train_weights(run, config.weights, lists, domains)
    peers = train_peers(run, config.weights.context, lists) if config.peer else {}

    # Every system ranks the same lists.
    ranked = {}
    for seed in run.seeds:
        stages = [_ranking(UNWEIGHTED, {}), *(_ranking(system, own) for system, own in weights[seed].items())]
        if peers:
            suffixes = {scaling: f"_{name}" for name, scaling in PEERS.items()}
            peer = LambdarankSettings(context=config.weights.context, suffixes=suffixes)
            stages.append(Lambdarank.stage(peer, model=peers[seed].ref))
        ranked[seed] = run.step(Step(f"ranked_{seed}", tuple(stages), lists[seed]))

    run.finish()
    publish(run.out, weights[run.seeds[0]][CHOSEN])
    return _report(run, config, ranked, [UNWEIGHTED, *weights[run.seeds[0]], *(PEERS if peers else ())])


def check(config: Config) -> None:
    """Raise a ``UserError`` for mistakes that can be found before anything is made."""
    check_requests(config.corpus)
    sliced = [config.slice] if config.slice else []
    check_columns(config.corpus, {"weights.context": config.weights.context, "slice": sliced})
    if config.slice and not config.corpus.columns[config.slice]:
        raise UserError(f"slice: {config.slice!r} is not boolean; expected a column of corpus.context: boolean")
    if config.peer:
        lambdarank.available()


def _ranking(system: str, weights: Mapping[str, Artifact]) -> Stage:
    refs: Any = artifacts_of({domain: artifact.ref for domain, artifact in weights.items()})
    return Rerank.stage(RerankSettings(suffix=f"_{system}"), name=system, **refs)


def _domains(run: Run, requests: SealedSet) -> list[str]:
    """Return the domains of the requests; stored as an artifact."""

    def found(url: str) -> dict[str, bytes]:
        names: set[str] = set()
        for table in requests.tables(["domain"]):
            names.update(table["domain"].unique().to_pylist())
        return {"domains.json": canonical.dumps(sorted(names))}

    return json.loads(run.artifact("domains", found, {"version": 1}, [requests]).read("domains.json"))


def _report(run: Run, config: Config, ranked: Mapping[int, SealedSet], systems: Sequence[str]) -> Report:
    tests = {"test": None} | ({config.slice: config.slice} if config.slice else {})
    alone = [CHOSEN + ALONE] if config.weights.context else []
    baselines = [UNWEIGHTED, *alone, *(PEERS if config.peer else ())]
    judged = {
        name: {seed: scores.read_lists(made, systems, only) for seed, made in ranked.items()}
        for name, only in tests.items()
    }
    made_of = {"lists": {str(seed): made for seed, made in ranked.items()}, "tests": tests}
    keep_scores(run, SEMER.name, scores.record_scores(judged), made_of)
    rows = [scores.metrics(splits, name, UNWEIGHTED, baselines[1:]) for name, splits in judged.items()]
    return Report(
        title="Re-ranking the readings of independent domains",
        recipe={"name": "rerank", **config.model_dump(mode="json")},
        measures=scores.MEASURES,
        baseline=UNWEIGHTED,
        baselines=baselines,
        headline=(CHOSEN, "test"),
        labels=scores.LABELS,
        tested="requests",
        metrics=[row for some in rows for row in some],
        test_sets={name: scores.describe(splits) for name, splits in judged.items()},
        reliability=scores.diagrams(judged["test"]),
    )
