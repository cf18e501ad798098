"""Rewrites of requests that fail, by what users went on to: an absorbing Markov chain over interpretations.

Ponnusamy et al., "Feedback-based self-learning in large-scale conversational AI agents" (AAAI 2020): the
reformulations of all users are pooled by interpretation, and a request is rewritten to the one through which chains
that start at it most probably succeed.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from gristmill.actors.sessions.components import ComponentSettings, Place, fit
from gristmill.actors.sessions.nodes import CountNodes, NodeSettings
from gristmill.actors.sessions.rewriting import GuardSettings, KeepRewrites, Solve, SolveSettings
from gristmill.actors.sessions.transitions import ChainSettings, Interpret, InterpretSettings, Transitions
from gristmill.pipelines.run import Run
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.exchange import MOST_PARTS, Deal, DealSettings, merge, parts_for
from gristmill.shards.job import TrainJob
from gristmill.shards.merging import MEMORY
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Stage
from gristmill.shards.step import Step

_ROW = 200  # bytes of a dealt turn, about


class RewriteSettings(Settings):
    """The mining of rewrites."""

    interpret: InterpretSettings = InterpretSettings()
    chains: ChainSettings = ChainSettings()
    nodes: NodeSettings = NodeSettings()
    pooled: ComponentSettings = ComponentSettings()
    solve: SolveSettings = SolveSettings()
    guard: GuardSettings = GuardSettings()
    parts: int | None = Field(None, ge=1, le=MOST_PARTS)
    """Parts that turns and interpretations are dealt to by key (``null``: as many as the turns ask for)."""

    def judged(self, failure: str | None) -> RewriteSettings:
        """Return the settings with the column ``failure`` for turns of unknown outcome, unless another one is set."""
        if failure is None or self.interpret.failure is not None:
            return self
        return self.but(interpret=self.interpret.but(failure=failure))


@dataclass(frozen=True)
class MinedRewrites:
    """What :func:`mine_rewrites` makes."""

    transitions: SealedSet  # a row for each turn: from its interpretation
    nodes: SealedSet  # a row for each interpretation
    components: Artifact
    connected: SealedSet  # the interpretations of each component
    candidates: SealedSet  # the best rewrite of each interpretation that has any
    rewrites: SealedSet  # those within the guardrails


def count_nodes(run: Run, settings: RewriteSettings, turns: SealedSet, suffix: str = "") -> tuple[SealedSet, SealedSet]:
    """Return the transitions of turns, and what they say of each interpretation
    (:class:`gristmill.actors.sessions.nodes.CountNodes`): for mining, or to count wins and losses in other sessions."""
    parts = settings.parts or parts_for(turns.records * _ROW, MEMORY)
    kept = ("turn", "time", "rewritten", *(field.name for field in Interpret.adds))
    stages = (Interpret.stage(settings.interpret), _dealt("session", parts, kept))
    by_session = run.step(Step(f"rewrites_by_session{suffix}", stages, turns))
    made = merge(f"transitions{suffix}", by_session, Transitions.stage(settings.chains))
    transitions = run.step(made)
    by_node = run.step(Step(f"rewrites_by_node{suffix}", (_dealt("source", parts, CountNodes.columns),), transitions))
    return transitions, run.step(merge(f"interpretations{suffix}", by_node, CountNodes.stage(settings.nodes)))


def mine_rewrites(run: Run, settings: RewriteSettings, turns: SealedSet, suffix: str = "") -> MinedRewrites:
    """Declare the mining of rewrites of turns (:data:`gristmill.shards.schema.TURNS`), each of which is there once.

    Example:
        >>> import pyarrow as pa
        >>> from gristmill.cluster.inprocess import InProcessRunner
        >>> from gristmill.shards.schema import TURNS
        >>> rows = []
        >>> for user in "abc":  # asks for maj and dragons, which fails, and again ten seconds later
        ...     for turn, song in enumerate(["maj and dragons", "imagine dragons"]):
        ...         row = {"session": user, "user": user, "turn": turn, "time": 10.0 * turn, "succeeded": turn == 1}
        ...         slots = [{"name": "song", "value": song}]
        ...         read = {"text": f"play {song}", "domain": "music", "intent": "play", "slots": slots}
        ...         rows.append({"id": f"{user}{turn}", **row, **read})
        >>> run = Run("made/rewrites", InProcessRunner())
        >>> mined = mine_rewrites(run, RewriteSettings(), run.table("turns", pa.Table.from_pylist(rows, TURNS)))
        >>> mined.rewrites.read(0, ["source_text", "target_text", "support", "margin"]).to_pylist()
        [{'source_text': 'play maj and dragons', 'target_text': 'play imagine dragons', 'support': 3, 'margin': 1.0}]
    """
    transitions, nodes = count_nodes(run, settings, turns, suffix)
    job = TrainJob(f"components{suffix}", fit, settings.pooled, {"data": nodes}, stepwise=False)
    components = run.train(job)
    parts = settings.parts or parts_for(turns.records * _ROW, MEMORY)
    place = Place.stage(settings.pooled, components=components.ref)
    dealt = (place, _dealt("component", parts, Solve.columns))
    by_component = run.step(Step(f"by_component{suffix}", dealt, nodes))
    candidates = run.step(merge(f"candidates{suffix}", by_component, Solve.stage(settings.solve)))
    kept = Step(f"rewrites{suffix}", (KeepRewrites.stage(settings.guard),), candidates)
    return MinedRewrites(transitions, nodes, components, by_component, candidates, run.step(kept))


def _dealt(key: str, parts: int, columns: tuple[str, ...]) -> Stage:
    return Deal.stage(DealSettings(key=(key,), parts=parts, columns=columns))
