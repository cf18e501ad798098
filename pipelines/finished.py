"""What a finished run left to use: its best system, where the models are, and the command that uses them."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from gristmill.pipelines.ledger import LEDGER, has_report, read_ledger
from gristmill.pipelines.report.files import REPORT, read_identity
from gristmill.pipelines.report.measures import DEAF, HEARING, PERCENT
from gristmill.pipelines.report.report import Report, Use
from gristmill.pipelines.report.tables import listed
from gristmill.pipelines.run import Run
from gristmill.shards import store
from gristmill.shards.artifact import Artifact, get_artifact
from gristmill.shards.errors import Damaged, UserError
from gristmill.shards.tombstone import refuse_cleaned
from gristmill.shards.wording import nearest, or_else


class _Use(NamedTuple):
    """The command that uses what a recipe makes."""

    verb: str
    given: str  # what it is given, after the output
    systems: tuple[str, ...] | None = None  # that it can use; None: those that were trained under their own names
    unmeasured: str | None = None  # that it uses where nothing was measured, as there is no test


_USES = {
    "distill": _Use("transcribe", "AUDIO"),
    "rerank": _Use("annotate", "REQUESTS.txt", ("R0", "R1", "R2", "R3")),
    "expand": _Use("annotate", "REQUESTS.txt", ("seeds", "self", "fused_seeds", "fused"), "fused"),
    "sessions": _Use("annotate", "REQUESTS.txt", ("base", "successes", "projected")),
    "personalise": _Use("transcribe", "AUDIO --words NAMES.txt", ("joint",)),
    "bootstrap_lm": _Use("score", "TEXTS.txt", ("in_domain", "combined")),
}


class Best(NamedTuple):
    """The best system of a report, and its values of the report's measure by test set."""

    system: str
    values: dict[str, float]
    of: int  # systems that were compared
    equal: tuple[str, ...] = ()  # others with the same mean
    deaf: bool = False  # all of them have errors of 95 % and more on all test sets

    @property
    def average(self) -> str:
        """What it is the best by, after a noun; empty for one test set."""
        return " on average over the test sets" if len(self.values) > 1 else ""

    @property
    def standing(self) -> str:
        """How it stands to the others; empty if there are none."""
        if self.of == 1:
            return "which hears nothing yet (more data or epochs are needed)" if self.deaf else ""
        if self.deaf:
            return f"one of {self.of} systems that hear nothing yet (more data or epochs are needed)"
        if len(self.equal) + 1 == self.of:
            return f"one of {self.of} systems that are equal{self.average}"
        if self.equal:
            return f"one of {len(self.equal) + 1} equal ones, the best of {self.of} systems{self.average}"
        return f"the best of {self.of} systems{self.average}"


def best_system(
    rows: Iterable[Mapping[str, Any]], metric: str, better: str | None, among: Collection[str]
) -> Best | None:
    """Return the system with the best mean of a metric over the test sets; ``None`` if none was measured on all.

    ``rows`` are those of the report's long table. No system is said to be better than another beyond chance by it: that
    is for the intervals to say.

    Example:
        >>> rows = [{"system": s, "test_set": "t", "metric": "wer", "value": v, "seed": None} for s, v in
        ...         (("teacher", 0.3), ("student", 0.2))]
        >>> best_system(rows, "wer", "lower", ["teacher", "student"])
        Best(system='student', values={'t': 0.2}, of=2, equal=(), deaf=False)
    """
    values: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["metric"] == metric and row["seed"] is None and row["value"] is not None and row["system"] in among:
            values.setdefault(row["system"], {})[row["test_set"]] = row["value"]
    whole = max(map(len, values.values()), default=0)
    found = {name: own for name, own in values.items() if len(own) == whole}
    if not found or better is None:
        return None
    sign = 1 if better == "lower" else -1
    means = {name: sum(own.values()) / whole for name, own in found.items()}
    system = min(means, key=lambda name: sign * means[name])
    equal = tuple(name for name in means if name != system and math.isclose(means[name], means[system]))
    deaf = metric in HEARING and all(value >= DEAF for own in found.values() for value in own.values())
    return Best(system, found[system], len(found), equal, deaf)


@dataclass(frozen=True)
class Finished:
    """A finished run: its recipe, its report, and by name the folders of its trained models and sets."""

    out: str
    recipe: str
    report: Mapping[str, Any]
    trained: Mapping[str, tuple[str, ...]]  # in the order of the seeds
    sets: Mapping[str, tuple[str, ...]]

    @property
    def usable(self) -> list[str]:
        """The systems of the report that a command of Gristmill can use."""
        named = self._use.systems
        if self.unmeasured:
            return list(named or ())
        systems = dict.fromkeys(row["system"] for row in self.report["metrics"])
        return [name for name in systems if name in (self.trained if named is None else named)]

    @property
    def unmeasured(self) -> str | None:
        """The system to use where nothing was measured; ``None`` where something was, or no command can use one."""
        return None if self.report["metrics"] else self._use.unmeasured

    @property
    def verb(self) -> str:
        """The command that uses what the recipe makes; empty if none does."""
        return self._use.verb

    @property
    def _use(self) -> _Use:
        return _USES.get(self.recipe, _Use("", ""))

    @property
    def best(self) -> Best | None:
        """The best of these."""
        measures = {one["name"]: one["better"] for one in self.report["measures"]}
        metric = self.report["metric"]
        return best_system(self.report["metrics"], metric, measures.get(metric), self.usable)

    @property
    def model(self) -> str | None:
        """The folder of the best system's model (of the first seed), if it has one of its own name."""
        best = self.best
        folders = self.trained.get(best.system) if best else None
        return folders[0] if folders else None

    @property
    def beside(self) -> str:
        """The number of systems in the report that no command can use, to follow a system; "" if there are none."""
        others = {row["system"] for row in self.report["metrics"]}.difference(self.usable)
        return f", beside {len(others)} without a model to use" if others else ""

    def command(self, out: str) -> str:
        """Return the command that uses the best system of the run below ``out``."""
        return f"gristmill {self._use.verb} {shlex.quote(out)} {self._use.given}"

    def describe(self, best: Best) -> str:
        """Return the values of the best system, in words."""
        measure = next(one for one in self.report["measures"] if one["name"] == self.report["metric"])
        percent = measure["unit"] == PERCENT.name
        values = ", ".join(f"{v:.1%} {name}" if percent else f"{v:.2f} {name}" for name, v in best.values.items())
        return f"{measure['label']} {values}"

    def artifacts(self, name: str) -> list[Artifact]:
        """Return the artifacts of the trainings of a name.

        Raises:
            Damaged: one of them is missing, or not as it was committed.
            Cleaned: `gristmill clean` has deleted one.
        """
        found = []
        for url in self.trained.get(name, ()):
            made = get_artifact(url)
            if made is None:
                refuse_cleaned(url)
                raise Damaged(url, "the artifact is missing")
            found.append(made)
        return found


def read_finished(out: str) -> Finished | None:
    """Return the newest finished run below a URL, or ``None`` if none that has a report was finished there.

    Raises:
        Damaged: its ledger or report is not as it was written.
    """
    ledger = read_ledger(out)
    if ledger is None:
        return None
    if read_identity(out) is None:
        if not has_report(ledger):
            return None
        raise Damaged(store.join(out, REPORT), "the file is missing")
    report = json.loads(store.read_bytes(store.join(out, REPORT)))

    def folders(*kinds: str) -> dict[str, tuple[str, ...]]:
        made = [entry for entry in ledger["made"] if entry["kind"] in kinds]
        return _by_name((entry["name"], store.join(out, entry["path"])) for entry in made)

    return Finished(out, ledger["recipe"], report, folders("training"), folders("source", "step"))


def _by_name(made: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Return the folders of results by name, each once, in their order."""
    found: dict[str, dict[str, None]] = {}
    for name, url in made:
        found.setdefault(name, {})[url] = None
    return {name: tuple(own) for name, own in found.items()}


def open_finished(out: str, verb: str, what: str, command: str = "") -> Finished:
    """Return the finished run that a command is to use; ``what`` are the models that it needs.

    ``command`` is the command if it is another than ``verb``, which uses such runs.

    Raises:
        UserError: nothing is there, no run was finished there, or it made other things.
        Cleaned: it is the folder of a model that `gristmill clean` has deleted.
    """
    found = read_finished(out)
    if found is None:
        refuse_cleaned(out)
        if not store.exists(out):
            raise UserError(f"{out}: nothing is there; expected {what}, or the output of a finished run")
        if (ledger := read_ledger(out)) is not None:
            raise UserError(
                f"{out}: the output of {ledger['recipe']}, which has sets and neither models nor a report; expected "
                f"{what}, or the output of a finished run that trained some"
            )
        if not store.exists(store.join(out, "config.json")):
            raise UserError(f"{out}: neither {what} nor the output of a run; expected one of them (it has no {LEDGER})")
        raise UserError(
            f"{out}: no run was finished here, and the best model is known at the end; "
            f"`gristmill status {shlex.quote(out)}` says how far it is. A folder of a "
            "model that it has trained can be given instead"
        )
    if found.recipe in _USES and _USES[found.recipe].verb != verb and verb != "translate":
        raise UserError(
            f"{out}: the output of the recipe {found.recipe}, which is not used by `{command or verb}`; expected "
            f"`{found.command(out)}`"
        )
    return found


def chosen(found: Finished, system: str | None) -> tuple[str, str]:
    """Return the system to use, the best one or that of a name, and words that say which and why. Where nothing was
    measured the recipe may say which one is used.

    Raises:
        UserError: there is no such system, or none was measured of a recipe that says no other to use then.
    """
    usable, best = found.usable, found.best
    if system is not None:
        if system not in usable:
            expected = f"one of {', '.join(usable)}" if usable else "the folder of a model: its report has none to use"
            raise UserError(f"{found.out}: has no system {system!r}{or_else(nearest(system, usable), expected)}")
        return system, f"{system}, as asked for"
    if found.unmeasured:
        return found.unmeasured, f"{found.unmeasured}; nothing was measured"
    if best is None:
        raise UserError(
            f"{found.out}: no system of its report can be used (it has {', '.join(found.trained) or 'no models'}); "
            "expected the folder of a model"
        )
    why = f", {best.standing}{found.beside}" if best.standing else ""
    return best.system, f"{best.system}{why} ({found.describe(best)})"


def use_of(recipe: str, report: Report, run: Run) -> Use | None:
    """Return the best system of a run that is over, for its report, or that to use where nothing was measured; ``None``
    if no command can use one."""
    trained = _by_name((trace.name, trace.url) for trace in run.trace if trace.kind == "training")
    shown = {
        "metric": report.main.name if report.main else None,
        "measures": [{"name": one.name, "better": one.better} for one in report.measures],
        "metrics": [row.to_json() for row in report.metrics],
    }
    found = Finished(run.out, recipe, shown, trained, {})
    if found.unmeasured:
        return Use(found.unmeasured, None, found.command("OUT"), "nothing was measured")
    if found.best is None or recipe not in _USES:
        return None
    model = found.model.removeprefix(run.out).strip("/") if found.model else None
    return Use(found.best.system, model, found.command("OUT"), found.best.standing)


def conclude(found: Finished) -> list[str]:
    """Return what to say of a run at its end: its best system and the path of its model, what it left to work on, and
    the next command.

    Of systems that are all equal, none is called the best.
    """
    lines = _best_lines(found, found.best) if found.best is not None else []
    if found.unmeasured:
        lines.append(f"model: {found.unmeasured} (nothing was measured)")
    lines += [f"{one['what']}: {store.join(found.out, one['file'])}" for one in found.report.get("to_do", ())]
    if lines and found.recipe in _USES:
        lines.append(f"next: {found.command(found.out)}")
    return lines


def _best_lines(found: Finished, best: Best) -> list[str]:
    lines, every = [], len(best.equal) + 1 == best.of
    if best.deaf:
        lines.append("no model hears anything yet: all have errors of 95% and more; expected more data or more epochs")
    if best.of == 1:
        which = f"model: {best.system}"
    elif every:
        which = f"equal{best.average}: all {best.of} systems; the first is {best.system}"
    elif best.deaf:
        which = f"model: {best.system} of {best.of}"
    else:
        also = f", equal with {listed(best.equal)}" if best.equal else ""
        which = f"best{best.average}: {best.system} of {best.of}{also}"
    lines.append(f"{which}{found.beside} ({found.describe(best)})" + (f": {found.model}" if found.model else ""))
    return lines
