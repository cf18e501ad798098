"""Training of a skill network on sealed requests, with pseudo labels and negative feedback.

Kim and Kim, "Pseudo labeling and negative feedback learning for large-scale multi-label domain classification" (ICASSP
2020). The network is evaluated on its own training requests after each epoch; what that tells of each request lies in
buffers of the module, so that a resumed training has the same pseudo labels. The requests are in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field, NonNegativeFloat, model_validator
from torch import Tensor, nn

from gristmill.actors.nlu.folds import FOLD, TEST
from gristmill.actors.training.loop import run_training
from gristmill.actors.training.settings import LoopSettings, Schedule
from gristmill.actors.training.training import LoopPhase, PlainObjective, Training
from gristmill.models.sessions.skills import (
    Bag,
    FeatureRows,
    PseudoLabels,
    PseudoSettings,
    SkillModel,
    SkillNetwork,
    SkillNetworkSettings,
    marked,
    skill_loss,
)
from gristmill.shards import canonical
from gristmill.shards.dataset import open_sealed
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext
from gristmill.shards.schema import ID
from gristmill.shards.settings import Batch

PSEUDO = "pseudo.json"  # in the artifact: the pseudo labels of each training request that has some
SKILL_REQUEST_FIELDS = (
    ID,
    pa.field("group", pa.string()),  # a dialogue or session, whose requests are in one fold
    pa.field("tokens", pa.list_(pa.string())),
    pa.field("context", pa.list_(pa.string())),  # names of what else is known of the request, or null
    pa.field("skill", pa.string()),  # the one that it is labelled with, or null
    pa.field("negative", pa.string()),  # a skill that was chosen and got negative feedback, or null
    pa.field("right", pa.list_(pa.string())),  # all right ones, where they are known: for scoring only
    FOLD,  # -1: the test part
)
_EVALUATED = 1024  # requests at once


class SkillTraining(LoopSettings):
    """Training of a skill network."""

    schedule: Schedule = Schedule(epochs=12, lr=0.01)
    """Length and learning rate."""
    batch: Batch = Field(64, ge=1)
    """Requests per optimiser step."""
    network: SkillNetworkSettings = SkillNetworkSettings()
    """The network."""
    pseudo: PseudoSettings | None = None
    """Pseudo labels; null: none are made."""
    negative_weight: NonNegativeFloat = 0.0
    """Weight of -log(1 - p) of a skill with negative feedback; 0: the feedback is not read."""
    left_out: tuple[int, ...] = ()
    """Folds, beside the test part, that the network is not trained on."""
    seed: int = 0
    """Of the first weights and the order of requests."""

    @model_validator(mode="after")
    def _not_held_out(self) -> Self:
        if self.patience is not None or self.blocks is not None:
            raise ValueError("patience and blocks: pseudo labels follow the training data's epochs; expected null")
        return self


class SkillBatch(NamedTuple):
    """Some training requests: their places, features, and numbers of labelled and rejected skills (-1: none)."""

    places: Tensor
    bags: list[Bag]
    labels: Tensor
    negatives: Tensor


def train(settings: SkillTraining, context: TrainContext, *, data: str) -> dict[str, Any]:
    """Train on the sealed requests at ``data`` (``SKILL_REQUEST_FIELDS``), without the test part and folds left out.

    Returns the model's files, with the pseudo labels of each request in ``pseudo.json``, the curves (``dev_loss`` is
    the loss of labelled skills on the training requests after an epoch) and counts. A request without a label teaches
    by its negative feedback only, and gets no pseudo label. A skill that only negative feedback names is in the model.

    Raises:
        UserError: columns are missing, no request is labelled, or there is more than one rank.
    """
    if context.world_size > 1:
        raise UserError(f"skills: {context.world_size} ranks; expected 1, as pseudo labels are in its memory")
    training = _Skills(settings, data)
    trained = run_training(training, settings, context)
    return {**trained, "requests": len(training.ids), "pseudo": len(training.pseudo_rows())}


class _Skills(Training[np.ndarray, SkillBatch]):  # an item: the places of requests
    def __init__(self, settings: SkillTraining, data: str) -> None:
        self.settings, self.seed = settings, settings.seed
        table = _read(settings, data)
        self.ids = table["id"].to_pylist()
        named = [table[name].to_pylist() for name in ("skill", "negative")]
        self.skills = sorted({one for names in named for one in names if one is not None})
        number = {name: place for place, name in enumerate(self.skills)}
        labels, negatives = (torch.tensor([number.get(one, -1) for one in names]) for names in named)
        self.labels, self.negatives = labels, negatives if settings.negative_weight else torch.full_like(labels, -1)
        tokens = [one or [] for one in table["tokens"].to_pylist()]
        contexts = table["context"].to_pylist() if "context" in table.column_names else [None] * len(tokens)
        self.features = FeatureRows(tokens, contexts, settings.network.buckets)

    def build(self, device: torch.device) -> nn.Module:
        self.network = SkillNetwork(self.settings.network, len(self.skills)).to(device)
        self.pseudo = PseudoLabels(self.settings.pseudo, len(self.ids))
        return nn.ModuleDict({"network": self.network, "pseudo": self.pseudo})

    def phases(self) -> list[LoopPhase]:
        return [LoopPhase(self.settings.schedule, [PlainObjective("skills", self._loss)], data="the requests")]

    def _loss(self, logits: Tensor, batch: SkillBatch) -> Tensor:
        pseudo = self.pseudo.targets(batch.places, len(self.skills))
        return skill_loss(logits, batch.labels, batch.negatives, pseudo, self.settings.negative_weight)

    def batches(self, phase: int, epoch: int) -> list[np.ndarray]:
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.ids))
        return [order[start : start + self.settings.batch] for start in range(0, len(order), self.settings.batch)]

    def load(self, item: np.ndarray) -> SkillBatch:
        places = torch.from_numpy(item)
        return SkillBatch(places, self.features.take(item), self.labels[places], self.negatives[places])

    def forward(self, network: nn.Module, batch: SkillBatch, phase: int, seed: int) -> Tensor:
        return self.network(batch.bags)

    def held_out(self) -> Sequence[np.ndarray]:
        # The training requests themselves, in whose evaluation pseudo labels are found.
        labelled = np.flatnonzero(self.labels.numpy() >= 0)
        return [labelled[start : start + _EVALUATED] for start in range(0, len(labelled), _EVALUATED)]

    def held_out_loss(self, batch: SkillBatch) -> tuple[float, float]:
        found = torch.sigmoid(self.network(batch.bags))
        given = torch.stack([batch.labels, batch.negatives], 1)
        self.pseudo.note(batch.places, found, marked(given, len(self.skills)))
        own = found.gather(1, batch.labels[:, None])
        return float(-own.clamp(min=1e-7).log().mean()), float(len(own))

    def files(self) -> dict[str, bytes]:
        made = SkillModel(self.skills, self.settings.network, self.network)
        return {**made.files(), PSEUDO: canonical.dumps(self.pseudo_rows())}

    def pseudo_rows(self) -> dict[str, list[list[Any]]]:
        """Return [skill, value, epoch] of each pseudo label, by the ids of requests."""
        found: dict[str, list[list[Any]]] = {}
        values = self.pseudo.values
        for place, which in zip(*(one.tolist() for one in torch.where(self.pseudo.skills >= 0)), strict=True):
            skill = self.skills[int(self.pseudo.skills[place, which])]
            row = [skill, float(values[place, which]), int(self.pseudo.since[place, which])]
            found.setdefault(self.ids[place], []).append(row)
        return found


def _read(settings: SkillTraining, data: str) -> pa.Table:
    sealed = open_sealed(data)
    names = ["id", "tokens", "skill", "negative", FOLD.name]
    missing = [name for name in names if name not in sealed.schema.names]
    if missing:
        raise UserError(f"skills: {sealed.name} has no column {', '.join(missing)}; expected {', '.join(names)}")
    if "context" in sealed.schema.names:
        names.append("context")
    away = pa.array([TEST, *settings.left_out], FOLD.type)
    # What is read of a request: its label, or else the feedback.
    read = ["skill", "negative"] if settings.negative_weight else ["skill"]
    found = []
    for table in sealed.tables(names):
        taught = pc.is_valid(table[read[0]])
        for name in read[1:]:
            taught = pc.or_(taught, pc.is_valid(table[name]))
        found.append(table.filter(pc.and_(taught, pc.invert(pc.is_in(table[FOLD.name], away)))))
    whole = pa.concat_tables(found)
    if not whole.num_rows or not pc.any(pc.is_valid(whole["skill"])).as_py():
        raise UserError(f"skills: no training request in {sealed.name} has a skill; expected at least one")
    return whole
