"""A verdict in words: a sentence on each test set, and a paragraph on all."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from gristmill.pipelines.report.measures import DEAF, HEARING
from gristmill.pipelines.report.report import FEW_SPEAKERS, OF_UNKNOWN, UNKNOWN_SPEAKERS, Report
from gristmill.pipelines.report.standing import Standing
from gristmill.pipelines.report.tables import change, label_of, listed, shown


class Wording:
    """The words for one test set."""

    def __init__(self, of: Standing) -> None:
        self.of = of
        self.label = label_of(of.report, of.measure)

    def group(self) -> Hashable:
        """Return what test sets have in common that one clause tells of together."""
        one = self.of
        groups = [one.lost_to, one.above]
        if one.kind in ("tied", "unproven"):
            groups += [one.equal, one.below, one.ahead_of]
        told = tuple(frozenset(some) for some in groups)
        return (one.kind, one.proposal, one.baseline, one.third, self._best(), *told)

    def sentence(self) -> str:
        """Return a sentence on the test set, which names every baseline."""
        text = shown(self.of.report, self.of.test_set)
        return f"{text[:1].upper()}{text[1:]}: {self._sentence()}."

    def clause(self, others: Sequence[Wording]) -> str:
        """Return a short sentence on this test set and others of the same group; figures are of this one."""
        names = [shown(self.of.report, one.of.test_set) for one in (self, *others)]
        where = listed(names) + (f" {self.of.report.tested}" if self.of.report.tested else "")
        at = f" on {names[0]}" if others else ""
        also = f" The best figure is that of {self._name(self.of.third)}, which is neither." if self.of.third else ""
        return f"{self._clause(where, at)}.{also}"

    def _name(self, system: str) -> str:
        return shown(self.of.report, system)

    def _names(self, systems: Sequence[str]) -> str:
        return listed([self._name(name) for name in systems])

    def _moved(self, baseline: str) -> str:
        """Return the change against a baseline, with its interval."""
        one = self.of.against[baseline]
        if one.change is None:
            return "no relative change"
        ends = "" if one.low is None or one.high is None else f", 95% interval {change(one.low)} to {change(one.high)}"
        return change(one.change) + ends

    def _measured(self, baselines: Sequence[str]) -> str:
        return listed([f"{self._name(name)}, {self.of.figures[name]} ({self._moved(name)})" for name in baselines])

    def _best(self) -> str:
        """Return what the best of those compared is."""
        if self.of.third:
            return "is the best of those compared"
        mates = self._names(self.of.mates)
        return f"is best, with the same figure as {mates}" if mates else "is best"

    def _sentence(self) -> str:
        one = self.of
        if one.proposal is None:
            best = f"{self._name(one.best)} is best, {self.label} {one.figures[one.best]}"
            return f"{best}; no proposed system has a figure"
        mine, my = self._name(one.proposal), one.figures[one.proposal]
        head = f"{mine}, {self.label} {my}"
        if one.baseline is None:
            return f"{head}, is the best proposed system; no baseline has a figure to compare with"
        told, their = [one.baseline], one.figures[one.baseline]
        theirs = self._name(one.baseline)
        if one.kind in ("lost", "behind"):
            place = "the best of those compared" if one.third else "best"
            how = "worse beyond chance" if one.baseline in one.lost_to else "the difference may be chance"
            text = f"a baseline is {place}, {theirs}, {self.label} {their}; the best proposed system, {mine}, has {my} "
            text += f"({self._moved(one.baseline)}): {how}"
        elif one.kind == "tied":
            told = one.equal
            are = [f"{self._name(name)} ({self._moved(name)})" for name in told]
            text = f"{mine} and the baseline{_s(told)} {listed(are)} have the same {self.label}, {my}"
        elif one.kind == "won":
            told = [*one.against]
            text = f"{head}, is ahead of every baseline beyond chance; the nearest is {theirs}, {their} "
            text += f"({self._moved(one.baseline)})"
        else:
            told = one.below
            text = f"{head}, {self._best()}, but its lead over {self._measured(told)} may be chance"
        return "; ".join([text, *self._rest(told), *self._beside()])

    def _rest(self, told: Sequence[str]) -> list[str]:
        """Return how the proposal stands to the baselines that were not told of."""
        groups = [self.of.lost_to, self.of.above, self.of.equal, self.of.below, self.of.ahead_of]
        lost, above, equal, below, ahead = ([name for name in some if name not in told] for some in groups)
        text = [f"worse beyond chance than {self._measured(lost)}"] if lost else []
        text += [f"that it is worse than {self._measured(above)} may be chance"] if above else []
        text += [f"the same figure as {self._measured(equal)}"] if equal else []
        text += [f"its lead over {self._measured(below)} may be chance"] if below else []
        return text + ([f"ahead beyond chance of {self._names(ahead)}"] if ahead else [])

    def _beside(self) -> list[str]:
        """Return what is to be known of systems beside the proposal and the baselines that have a figure."""
        missing = [name for name in self.of.report.compared if name not in self.of.values]
        text = [f"not scored there: {self._names(missing)}"] if missing else []
        if self.of.third:
            best = f"{self._name(self.of.third)}, {self.of.figures[self.of.third]}"
            text.append(f"the best figure is that of {best}, which is neither")
        return text

    def _clause(self, where: str, at: str) -> str:
        one = self.of
        if one.proposal is None:
            best = f"{self._name(one.best)} has {self.label} {one.figures[one.best]}"
            return f"On {where}, no proposed system was scored; {best}{at}"
        mine, my = self._name(one.proposal), one.figures[one.proposal]
        if one.baseline is None:
            return f"On {where}, {mine} has {self.label} {my}{at}; no baseline was scored to compare it with"
        against = f"{self.label} {my}{at} against {one.figures[one.baseline]} for {self._name(one.baseline)}"
        who = mine if one.kind == "tied" else "it"
        ahead = f"; {who} is ahead beyond chance of {self._names(one.ahead_of)}" if one.ahead_of else ""
        match one.kind:
            case "lost":
                begun = "Baselines win" if len(one.lost_to) > 1 else "A baseline wins"
                text = f"{begun} on {where}: {self._overtaken(one.proposal, one.lost_to, at)}, beyond chance"
                leads = listed([f"{self._name(name)}, {one.figures[name]}" for name in one.above])
                return text + (f"; the lead of {leads}, may be chance" if leads else "")
            case "behind":
                begun = f"A baseline {'is the best of those compared' if one.third else 'is best'}"
                begun = "Baselines are ahead" if len(one.above) > 1 else begun
                return f"{begun} on {where}: {self._overtaken(one.proposal, one.above, at)}, which may be chance"
            case "tied":
                names = f"{mine} and the baseline{_s(one.equal)} {self._names(one.equal)}"
                leads = f"; the lead of {mine} over {self._names(one.below)} may be chance" if one.below else ""
                return f"On {where}, {names} are equal, {self.label} {my}{at}{leads}{ahead}"
            case "unproven":
                lead = f"but its lead over {self._names(one.below)} may be chance"
                return f"On {where}, {mine} {self._best()}, {against}, {lead}{ahead}"
            case _:
                return f"On {where}, {mine} is ahead of every baseline beyond chance, {against}, the nearest"

    def _overtaken(self, mine: str, baselines: Sequence[str], at: str) -> str:
        have = "have" if len(baselines) > 1 else "has"
        better = f"{self._names(baselines)} {have} a {self.of.measure.better} {self.label} than {self._name(mine)}"
        theirs = listed([self.of.figures[name] for name in baselines])
        return f"{better}, {theirs} against {self.of.figures[mine]}{at}"


def paragraph(report: Report, groups: Sequence[Sequence[Wording]]) -> str:
    """Return what holds for the test sets together, a clause for each group, and what limits it."""
    text = [some[0].clause(some[1:]) for some in groups]
    measure = groups[0][0].of.measure.name
    if measure in HEARING and all(min(one.of.values.values()) >= DEAF for some in groups for one in some):
        label = groups[0][0].label
        deaf = f"No system hears anything yet: all have a {label} of 95% and more; more data or epochs are needed."
        return " ".join([deaf, *([] if all(some[0].of.kind == "tied" for some in groups) else text)])
    seeds = {row.seed for row in report.metrics if row.metric == measure and row.seed is not None}
    if len(seeds) == 1:
        text.append("One seed: another training may order them otherwise.")
    if len(seeds) == 2:
        text.append("Two seeds: they show whether two trainings agree, but not how far others may be from them.")
    told = [one.of.test_set for some in groups for one in some]
    tests = [report.test_sets[name] for name in told if name in report.test_sets]
    if any(one.resampled == FEW_SPEAKERS for one in tests):
        text.append("Few test speakers: it holds for these.")
    elif any(one.resampled == UNKNOWN_SPEAKERS or one.sizes.get(OF_UNKNOWN) for one in tests):
        text.append(
            "Test speakers are unknown: several utterances of one count as if they were independent, so that a "
            "difference may be less certain than it is said to be."
        )
    return " ".join(text)


def _s(names: Sequence[str]) -> str:
    return "s" if len(names) > 1 else ""
