"""How the best proposal of a report stands to the baselines on a test set, with its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from gristmill.pipelines.report.measures import Measure
from gristmill.pipelines.report.report import Report

Kind = Literal["lost", "behind", "tied", "unproven", "won", "alone", "unscored"]


@dataclass(frozen=True)
class Comparison:
    """A proposal against a baseline on one test set, paired; ``None`` is what the recipe has no number for."""

    system: str
    baseline: str
    test_set: str
    change: float | None  # of the main measure, relative
    low: float | None  # bound of its 95 % interval
    high: float | None
    p: float | None
    p_holm: float | None
    mapsswe_p: float | None
    mapsswe_p_holm: float | None
    outcome: Literal["ahead", "behind", "open"]  # beyond chance, or neither


@dataclass(frozen=True)
class SetVerdict:
    """The verdict on one test set, on the best proposal against every baseline.

    ``kind`` is the first that holds: a baseline is ahead of the proposal beyond chance (``lost``); one has a better
    figure, which may be chance (``behind``); one has the same figure, as it is shown (``tied``); the proposal has the
    best figure, but may be ahead of some by chance (``unproven``); it is ahead of each beyond chance (``won``). No
    baseline (``alone``) or no proposal (``unscored``) has a figure.

    Baselines are grouped by how the proposal stands to them, the best first.
    """

    test_set: str
    kind: Kind
    best: str  # of all systems
    equal: Sequence[str]  # the systems with the figure of the best one, as it is shown
    proposal: str | None  # the best of them
    baseline: str | None
    lost_to: Sequence[str] = ()  # ahead of the proposal beyond chance
    uncertain: Sequence[str] = ()  # ahead, equal or behind, which may be chance
    ahead_of: Sequence[str] = ()  # behind the proposal beyond chance
    sentence: str = ""


@dataclass(frozen=True)
class Standing:
    """How the best proposal stands to each baseline on one test set."""

    report: Report
    measure: Measure
    test_set: str
    values: Mapping[str, float]  # by system, the best first; one at least
    comparisons: Sequence[Comparison]  # of all proposals

    @cached_property
    def figures(self) -> dict[str, str]:
        """The values as they are shown."""
        return {name: self.measure.show(value) for name, value in self.values.items()}

    @property
    def best(self) -> str:
        """The best of all systems."""
        return next(iter(self.values))

    @property
    def equal_best(self) -> list[str]:
        """The systems with the figure of the best one."""
        return [name for name, figure in self.figures.items() if figure == self.figures[self.best]]

    @cached_property
    def proposal(self) -> str | None:
        """The best proposal."""
        return next((name for name in self.values if name in self.report.proposed), None)

    @cached_property
    def baselines(self) -> list[str]:
        """The baselines with a figure, the best first."""
        return [name for name in self.values if name in self.report.compared]

    @property
    def baseline(self) -> str | None:
        """The best baseline."""
        return self.baselines[0] if self.baselines else None

    @cached_property
    def against(self) -> dict[str, Comparison]:
        """The comparisons of the best proposal, by baseline."""
        return {one.baseline: one for one in self.comparisons if one.system == self.proposal}

    @property
    def third(self) -> str:
        """The best system, if neither a proposal nor a baseline of a verdict on both has its figure."""
        compared = self.proposal is not None and self.baseline is not None
        return self.best if compared and not {self.proposal, self.baseline}.intersection(self.equal_best) else ""

    @property
    def mates(self) -> list[str]:
        """The systems that share the best figure with the proposal, and are no baselines."""
        others = [name for name in self.equal_best if name != self.proposal and name not in self.report.compared]
        return others if self.proposal in self.equal_best else []

    @cached_property
    def lost_to(self) -> list[str]:
        """The baselines that are ahead of the proposal beyond chance."""
        return self._with("behind")

    @cached_property
    def uncertain(self) -> list[str]:
        """The baselines that are ahead, equal or behind, which may be chance."""
        return self._with("open")

    @cached_property
    def ahead_of(self) -> list[str]:
        """The baselines that the proposal is ahead of beyond chance."""
        return self._with("ahead")

    @cached_property
    def above(self) -> list[str]:
        """The uncertain baselines with a better figure, as it is shown."""
        return [name for name in self.uncertain if self._better(name) and name not in self.equal]

    @cached_property
    def equal(self) -> list[str]:
        """The uncertain baselines with the proposal's figure."""
        return [name for name in self.uncertain if self.proposal and self.figures[name] == self.figures[self.proposal]]

    @cached_property
    def below(self) -> list[str]:
        """The uncertain baselines with a worse figure."""
        return [name for name in self.uncertain if not self._better(name) and name not in self.equal]

    @property
    def kind(self) -> Kind:
        """The first kind that holds."""
        if self.proposal is None:
            return "unscored"
        if not self.baselines:
            return "alone"
        if self.lost_to:
            return "lost"
        if self.above:
            return "behind"
        return "tied" if self.equal else "unproven" if self.below else "won"

    def verdict(self, sentence: str) -> SetVerdict:
        """Return the verdict on the test set."""
        systems = (self.best, self.equal_best, self.proposal, self.baseline)
        return SetVerdict(
            self.test_set, self.kind, *systems, self.lost_to, self.uncertain, self.ahead_of, sentence=sentence
        )

    def _with(self, outcome: str) -> list[str]:
        return [name for name in self.baselines if name in self.against and self.against[name].outcome == outcome]

    def _better(self, name: str) -> bool:
        names = list(self.values)
        return self.proposal is not None and names.index(name) < names.index(self.proposal)
