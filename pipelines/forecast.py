"""The share of a whole run that is done, and the time to go, from its plan and what has been made of it so far.

A result that is to come takes what the estimate of ``gristmill plan`` says. Without one it takes what results of like
work took: those of its name, of its stages or of its loop, by their sizes. What is like nothing that was made is
unknown, and so is then the time to go. What all results to come take side by side is a timetable's
(:mod:`gristmill.pipelines.timetable`), corrected by how much longer the run took so far than its timetable had it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from typing_extensions import TypedDict

from gristmill.pipelines.graph import DONE, TO_DO, UNDER_WAY
from gristmill.pipelines.timetable import Booking, span

# What a result is guessed by if nothing like it was made: those of its kind; the driver itself makes two of these.
_ALIKE = {
    "step": ("step",),
    "source": ("source", "artifact"),
    "artifact": ("artifact", "source"),
    "training": ("training",),
    "fit": ("fit",),
}
_MUCH = 0.1  # of the time to go: a guess that is told
_FAR = 10.0  # times the size of what was made, from which on it is a guess
_TRUSTED = 0.1  # of the whole run that goes as its timetable has it, whatever the clock says so far


@dataclass(frozen=True)
class Effort:
    """What is known of the work on one result."""

    name: str
    kind: str = "step"  # source, step, artifact, training, fit
    state: str = TO_DO  # done, under way, to do
    inputs: Sequence[int] = ()  # places of what it is made of, ahead of its own
    workers: int = 1  # that it keeps busy; 0: the driver makes it itself
    of: Sequence[Sequence[int]] = ()  # places of what its size is the sum of: of each part the largest
    passes: float = 1.0  # over them
    like: Sequence[str] = ()  # what results of like work have in common, the nearest first
    stages: Sequence[str] = ()  # of a step
    rows: float | None = None  # of a set, once they are known
    seconds: float | None = None  # that it took, if it is done; that were spent on it, if it is under way
    share: float | None = None  # of it that is done, if that is seen
    left: float | None = None  # seconds that it will take, by its own pace
    price: float | None = None  # seconds that it was estimated to take
    kept: bool = False  # made by an earlier call


class PlannedResult(TypedDict):
    """What ``gristmill plan`` estimates of a result."""

    name: str
    kind: str
    seconds: float
    workers: int  # that it keeps busy; 0: the driver makes it itself
    inputs: list[int]  # places in the plan, ahead of its own


@dataclass(frozen=True)
class Forecast:
    """How far a run is; ``share`` and ``left`` are ``None`` if the work on some results is unknown."""

    share: float | None = None  # 0 to 1
    left: float | None = None  # seconds
    unlike: Sequence[str] = ()  # names of results to come that are like nothing that was made: unknown, or a guess


@dataclass
class _Rates:
    """What results took that were made, by what they have in common with others: their seconds and sizes."""

    made: dict[str, list[tuple[float, float | None]]] = field(default_factory=dict)
    kinds: dict[str, dict[str, _Rates]] = field(default_factory=dict)  # by the kind of result and that of work

    def common(self, key: str, size: float | None, *, far: bool = False) -> float | None:
        """Return what one of like work takes: the lower median, as the first of a kind loads libraries too, and a few
        take far longer than the others. What is far larger than all that are known is unknown, unless ``far``: what
        they took may be what any of them takes to begin with."""
        known = self.made.get(key, [])
        if size and not far and size > _FAR * max((of for _, of in known if of), default=size):
            return None
        rates = sorted(seconds / of for seconds, of in known if of)
        if size and rates:
            return rates[(len(rates) - 1) // 2] * size
        plain = sorted(seconds for seconds, _ in known)
        return plain[(len(plain) - 1) // 2] if plain else None

    def guess(self, kind: str, size: float | None) -> float | None:
        """Return what a result of a kind may take: the lower median of the kinds of work that were seen."""
        seen = [one.common("", size, far=True) for one in self.kinds.get(kind, {}).values()]
        known = sorted(seconds for seconds in seen if seconds is not None)
        return known[(len(known) - 1) // 2] if known else None


def forecast(
    work: Sequence[Effort],
    workers: int = 0,
    elapsed: float | None = None,
    rest: float = 0.0,
    a_record: Mapping[str, float] | None = None,
) -> Forecast:
    """Return how far a run is with the results ``work``, in the order of their declaration.

    ``workers`` make results side by side; with 0, one is made after the other. ``elapsed`` are the seconds since the
    run began its work; ``rest`` those that it is estimated to take outside all results; ``a_record`` the seconds that
    each stage spends on a record, over all workers.

    Example:
        >>> texts = Effort("texts", "source", DONE, rows=100, seconds=2.0, like=["source texts"])
        >>> first = Effort("model", "training", DONE, [0], of=[[0]], passes=4.0, like=["training model"], seconds=40.0)
        >>> again = Effort("model", "training", TO_DO, [0], of=[[0]], passes=2.0, like=["training model"])
        >>> found = forecast([texts, first, again])
        >>> round(found.share, 3), found.left
        (0.677, 20.0)
        >>> forecast([texts, first, again, again], workers=2).left  # both at once
        20.0
    """
    sizes = _sizes(work)
    rates = _rates(work, sizes)
    by_stage = _by_stage(work, sizes, a_record or {})
    is_priced = any(one.price is not None for one in work)
    to_go = [0.0] * len(work)
    own = [False] * len(work)  # known by the pace of the result itself
    unknown: dict[str, None] = {}
    guessed: dict[str, float] = {}  # seconds
    for place, (one, size) in enumerate(zip(work, sizes, strict=True)):
        if one.state == DONE:
            continue
        seconds, own[place] = one.left, one.left is not None
        if seconds is None:
            whole = one.price if one.price is not None else _estimated(one, size, rates, by_stage)
            seconds = _rest_of(one, _guessed(one, size, rates) if whole is None else whole)
            if seconds is not None and whole is None:
                guessed[one.name] = guessed.get(one.name, 0.0) + seconds
        if seconds is not None:
            to_go[place] = seconds
        elif not is_priced:
            unknown[one.name] = None
    if unknown:
        return Forecast(unlike=tuple(unknown))
    much = () if is_priced else tuple(name for name, seconds in guessed.items() if seconds > _MUCH * sum(to_go))

    def together(seconds: Sequence[float]) -> float:
        return span([_part(one, its) for one, its in zip(work, seconds, strict=True)], workers)

    kept = together([_spent(one) if one.kept else 0.0 for one in work])
    mine = together([0.0 if one.kept else _planned(one) for one in work])
    pace = 1.0
    if elapsed is not None:
        trusted = _TRUSTED * (mine + together(to_go) + rest)
        pace = (elapsed + trusted) / (mine + trusted) if mine + trusted else 1.0
    left = pace * (together([its / pace if by_own else its for its, by_own in zip(to_go, own, strict=True)]) + rest)
    spent = kept + (mine if elapsed is None else elapsed)
    return Forecast(spent / (spent + left), left, much) if left > 0 else Forecast(1.0, 0.0)


def _part(one: Effort, seconds: float) -> Booking:
    return Booking(seconds, one.inputs, one.workers, divides=one.kind == "step")


def _planned(one: Effort) -> float:
    """Return the seconds that the timetable has for what was done of a result: by its price, or else as it took."""
    if one.price is None:
        return _spent(one)
    if one.state == UNDER_WAY and one.share is None:
        return min(one.price, _spent(one))
    return one.price * {DONE: 1.0, TO_DO: 0.0}.get(one.state, one.share or 0.0)


def _spent(one: Effort) -> float:
    """Return the seconds that were spent on a result; where they are not known, by its estimate.

    Of one under way they are by its own pace: trainings that were begun together may have waited for a worker.
    """
    if one.state == TO_DO:
        return 0.0
    if one.state == UNDER_WAY and one.share is not None and (whole := _by_pace(one)) is not None:
        return whole * one.share
    if one.seconds is not None:
        return one.seconds
    return (one.price or 0.0) * (1.0 if one.state == DONE else one.share or 0.0)


def _sizes(work: Sequence[Effort]) -> list[float | None]:
    """Return the size of each result's work: the rows of what it is made of, times the passes over them."""
    known = sorted(one.rows for one in work if one.kind == "source" and one.rows is not None)
    like_others = known[(len(known) - 1) // 2] if known else None  # rows of a source that is to come
    rows: list[float | None] = []
    sizes: list[float | None] = []
    for one in work:
        parts = [max((rows[place] or 0.0 for place in part if place < len(rows)), default=0.0) for part in one.of]
        size = sum(parts) * one.passes or None
        sizes.append(size)
        # A step that fans out or rejects has other rows than its input: nearly known.
        expected = {"step": size, "source": size or like_others}.get(one.kind)
        rows.append(one.rows if one.rows is not None else expected)
    return sizes


def _rates(work: Sequence[Effort], sizes: Sequence[float | None]) -> _Rates:
    rates = _Rates()
    for one, size in zip(work, sizes, strict=True):
        seconds = one.seconds
        if one.state == UNDER_WAY:
            seconds = _by_pace(one)
        elif one.state != DONE:
            seconds = None
        if seconds is not None:
            for key in one.like:
                rates.made.setdefault(key, []).append((seconds, size))
            work_of = ", ".join(one.stages) or (one.like[-1] if one.like else one.name)
            alike = rates.kinds.setdefault(one.kind, {}).setdefault(work_of, _Rates())
            alike.made.setdefault("", []).append((seconds, size))
    return rates


def _by_pace(one: Effort) -> float | None:
    """Return the seconds that a result under way takes from begin to end at its pace; what came before it had one, such
    as the loading of libraries, is not in it."""
    if one.left is None or one.seconds is None:
        return None
    return one.left / (1 - one.share) if one.share is not None and one.share < 1 else one.seconds + one.left


def _by_stage(work: Sequence[Effort], sizes: Sequence[float | None], a_record: Mapping[str, float]) -> dict[str, float]:
    """Return the seconds of the run that each stage takes for a record: workers share them, and writing adds some."""
    spent = told = 0.0
    for one, size in zip(work, sizes, strict=True):
        if one.state == DONE and one.stages and size and one.seconds and all(name in a_record for name in one.stages):
            spent += one.seconds
            told += sum(a_record[name] for name in one.stages) * size
    return {name: seconds * spent / told for name, seconds in a_record.items()} if told else {}


def _estimated(one: Effort, size: float | None, rates: _Rates, by_stage: Mapping[str, float]) -> float | None:
    """Return the seconds that a result will take, by what is most like it; ``None`` if nothing is."""
    nearest, *others = one.like or [""]
    found = rates.common(nearest, size)
    if found is None and one.stages and size and all(name in by_stage for name in one.stages):
        found = sum(by_stage[name] for name in one.stages) * size
    for key in others:
        found = rates.common(key, size) if found is None else found
    return found


def _guessed(one: Effort, size: float | None, rates: _Rates) -> float | None:
    """Return what a result may take that is like nothing that was made: as others of its kind."""
    found: float | None = None
    for kind in _ALIKE.get(one.kind, ()):
        found = rates.guess(kind, size) if found is None else found
    return found


def _rest_of(one: Effort, whole: float | None) -> float | None:
    """Return the seconds that a result still takes that takes so many in all."""
    if whole is None:
        return None
    return whole * (1 - one.share) if one.share is not None else max(0.0, whole - _spent(one))


def priced(work: Sequence[Effort], planned: Sequence[PlannedResult]) -> list[Effort]:
    """Return results with what is estimated of them, given in the order of declaration; behind them those that the
    plan has, and that are not declared yet.

    Example:
        >>> kept = {"name": "kept", "kind": "step", "seconds": 2.0, "workers": 2, "inputs": []}
        >>> model = {"name": "model", "kind": "training", "seconds": 9.0, "workers": 1, "inputs": [0]}
        >>> [(one.name, one.price, list(one.inputs)) for one in priced([Effort("kept")], [kept, model])]
        [('kept', 2.0, []), ('model', 9.0, [0])]
    """
    waiting: dict[str, list[int]] = {}
    for place, one in enumerate(planned):
        waiting.setdefault(one["name"], []).append(place)
    found: list[Effort] = []
    place_of: dict[int, int] = {}  # by the place in the plan
    for effort in work:
        if places := waiting.get(effort.name):
            place_of[places[0]] = len(found)
            one = planned[places.pop(0)]
            effort = replace(effort, price=one["seconds"], workers=one["workers"])
        found.append(effort)
    for place in sorted(place for places in waiting.values() for place in places):
        one = planned[place]
        place_of[place] = len(found)
        inputs = [place_of[need] for need in one["inputs"]]
        found.append(Effort(one["name"], one["kind"], inputs=inputs, price=one["seconds"], workers=one["workers"]))
    return found
