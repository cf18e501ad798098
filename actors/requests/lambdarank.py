"""The peer of the re-rankers: one LightGBM lambdarank over the lists of all domains, with calibrated scores.

Burges, From RankNet to LambdaRank to LambdaMART, 2010. Its scores only order a list, so each domain also has a
temperature (Guo et al., ICML 2017), or a scale and an offset (Platt, 1999), fitted on the last fold, on which the trees
are not trained.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.actors.nlu.rerank import labelled_lists, lists_of, score_fields, with_scores
from gristmill.models.nlu.reranker_fit import context_specs
from gristmill.models.nlu.rerankers import Context, Lists, best_of, context_json, context_of
from gristmill.shards import canonical
from gristmill.shards.artifact import read_file
from gristmill.shards.dataset import open_sealed
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits

Scaling = Literal["none", "temperature", "platt"]
GRADES = 3  # grades of relevance above 0, by the part of the reference that a hypothesis has right
ROUNDS, PATIENCE = 400, 30
PARAMETERS = {  # of LightGBM
    "objective": "lambdarank",
    "metric": "ndcg",
    "eval_at": [1],
    "num_leaves": 15,
    "learning_rate": 0.1,
    "min_data_in_leaf": 50,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}
TREES, SCALES = "trees.txt", "scales.json"


def available() -> None:
    """Raise a ``UserError`` unless LightGBM is installed."""
    try:
        import lightgbm  # noqa: F401
    except ImportError:
        raise UserError("LightGBM is not installed: run `pip install '.[peers]'`, or set peer: null") from None


class LambdarankTraining(Settings):
    """Training of the peer."""

    context: tuple[str, ...] = ()
    """Feature columns of the trees in addition to the domain and the three scores."""
    seed: int = 0
    """Of LightGBM."""


def train(settings: LambdarankTraining, context: TrainContext, *, data: str) -> dict[str, Any]:
    """Fit trees on the sealed hypotheses at ``data``, on all folds but the last; the test part is left out.

    The last fold is for early stopping, and for the scaling of the scores.

    Raises:
        UserError: the last fold, or all others, have no hypothesis.
    """
    import lightgbm

    hypotheses, columns = open_sealed(data), settings.context
    table = pa.concat_tables(hypotheses.tables(["fold", "reference_length", "hypotheses", *columns]))
    table = table.filter(pc.greater_equal(table["fold"], 0))
    last = pc.max(table["fold"])
    parts = [
        labelled_lists(
            table.filter(pc.equal(table["fold"], last) if held else pc.not_equal(table["fold"], last)),
            columns,
            hypotheses.name,
        )
        for held in (False, True)
    ]
    counts = [len(lists.domain) for lists in parts]
    if not all(counts):
        raise UserError(
            f"lambdarank: {hypotheses.name} has {counts[0]} hypotheses outside the last fold and {counts[1]} in it; "
            "expected some in both"
        )
    domains = sorted(set(parts[0].domains) | set(parts[1].domains))
    specs = context_specs(parts[0].context)
    sets: list[Any] = []
    for lists in parts:
        assert lists.semer is not None
        grades = np.round(GRADES * np.clip(1 - lists.semer, 0, 1)).astype(int)
        sizes = np.diff(lists.offsets)
        reference = sets[0] if sets else None
        sets.append(
            lightgbm.Dataset(
                _features(lists, domains, specs),
                grades,
                group=sizes[sizes > 0],
                reference=reference,
                categorical_feature=[0],
            )
        )
    trees = lightgbm.train(
        PARAMETERS | {"seed": settings.seed},
        sets[0],
        ROUNDS,
        valid_sets=[sets[1]],
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
    )
    held = parts[1]
    assert held.correct is not None
    raw = trees.predict(_features(held, domains, specs), num_threads=1)
    scales = {}
    for place, name in enumerate(held.domains):
        mine = held.domain == place
        scales[name] = {
            "temperature": _scale(raw[mine], held.correct[mine], offset=False),
            "platt": _scale(raw[mine], held.correct[mine], offset=True),
        }
    context.report({"step": trees.best_iteration, "loss": 1 - trees.best_score["valid_0"]["ndcg@1"]})
    body = {
        "domains": domains,
        "context": [context_json(spec) for spec in specs],
        "scales": scales,
    }
    return {"files": {TREES: trees.model_to_string().encode(), SCALES: canonical.dumps(body)}}


def _features(lists: Lists, domains: Sequence[str], specs: Sequence[Context]) -> np.ndarray:
    """Return (hypotheses, features): the domain's number, the three logarithms, and the context."""
    number = {name: place for place, name in enumerate(domains)}
    own = np.array([number.get(name, -1) for name in lists.domains])
    utterance = lists.utterance
    rows = [own[lists.domain][None], lists.logs]
    rows += [spec.matrix(lists.context[spec.name].take(utterance)) for spec in specs]
    return np.concatenate(rows).T


def _scale(scores: np.ndarray, correct: np.ndarray, *, offset: bool) -> list[float]:
    """Return the (scale, offset) of least log loss of sigmoid(scale x score + offset); without ``offset`` it is 0."""
    from scipy.optimize import minimize

    def loss(point: np.ndarray) -> float:
        s = np.exp(point[0]) * scores + (point[1] if offset else 0.0)
        return float((np.logaddexp(0.0, s) - correct * s).mean() + 1e-6 * (point**2).sum())

    found = minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9, "maxiter": 2000}).x
    return [float(np.exp(found[0])), float(found[1]) if offset else 0.0]


class LambdarankSettings(Settings):
    """Input columns of the peer, and the columns that it adds."""

    context: tuple[str, ...] = ()
    """Feature columns of the trees' training."""
    suffixes: dict[Scaling, str]
    """Suffix of the added columns, by the scaling of scores to confidences."""


class Lambdarank(Actor):
    """Adds confidences and the index of the best for each scaling, as the actor ``Rerank`` does for weights."""

    name = "lambdarank"
    batch = BatchLimits(rows=4096)
    settings: LambdarankSettings

    def __init__(self, settings: LambdarankSettings, model: str) -> None:
        import lightgbm

        super().__init__(settings)
        body = json.loads(read_file(model, SCALES))
        self.trees = lightgbm.Booster(model_str=read_file(model, TREES).decode())
        self.domains, self.scales = body["domains"], body["scales"]
        self.specs = [context_of(given) for given in body["context"]]

    @classmethod
    def contract(cls, settings: LambdarankSettings) -> dict[str, Any]:
        """Return the added columns."""
        return {"adds": tuple(field for suffix in settings.suffixes.values() for field in score_fields(suffix))}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``scores`` and ``best`` of each scaling, each with its suffix."""
        lists = lists_of(batch, self.settings.context)
        raw = np.zeros(len(lists.domain))
        if len(raw):
            raw[:] = self.trees.predict(_features(lists, self.domains, self.specs), num_threads=1)
        for scaling, suffix in self.settings.suffixes.items():
            s = raw
            if scaling != "none":
                pairs = np.array([self.scales.get(name, {}).get(scaling, (1.0, 0.0)) for name in lists.domains])
                s = raw * pairs[lists.domain, 0] + pairs[lists.domain, 1]
            confidence = (1 / (1 + np.exp(-s))).astype(np.float32)
            batch = with_scores(batch, suffix, lists, confidence, best_of(s, lists.offsets))
        return batch
