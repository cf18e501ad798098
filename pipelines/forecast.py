"""The share of a whole run that is done, and the time to go, from its plan and what has been made of it so far.

A result that is to come takes what the estimate of ``gristmill plan`` says, corrected by the pace of the run. Without
one it takes what results of like work took: those of its name, of its stages or of its loop, by their sizes. What is
like nothing that was made is unknown, and so is then the time to go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from gristmill.pipelines.agenda import LEAST_MEASURED
from gristmill.pipelines.graph import DONE, TO_DO, UNDER_WAY

# What a result is guessed by if nothing like it was made: those of its kind; the driver itself makes two of these.
_ALIKE = {
    "step": ("step",),
    "source": ("source", "artifact"),
    "artifact": ("artifact", "source"),
    "training": ("training",),
    "fit": ("fit",),
}
_MUCH = 0.1  # of the time to go: a guess that is told
_SEEN = 0.05  # least share of a result from which its own pace is taken
_MOST = 4.0  # times by which a run may be slower than the sum of its results


@dataclass(frozen=True)
class Effort:
    """What is known of the work on one result."""

    name: str
    kind: str = "step"  # source, step, artifact, training, fit
    state: str = TO_DO  # done, under way, to do
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

    def nearest(self, key: str, size: float | None) -> float | None:
        """Return what one of the same name takes: the mean for its size."""
        known = self.made.get(key, [])
        sized = [(seconds, of) for seconds, of in known if of]
        if size and sized:
            return sum(seconds for seconds, _ in sized) / sum(of for _, of in sized) * size
        return sum(seconds for seconds, _ in known) / len(known) if known else None

    def common(self, key: str, size: float | None) -> float | None:
        """Return what one of like work takes: the lower median, as the first of a kind loads libraries too, and a few
        take far longer than the others."""
        known = self.made.get(key, [])
        rates = sorted(seconds / of for seconds, of in known if of)
        if size and rates:
            return rates[(len(rates) - 1) // 2] * size
        plain = sorted(seconds for seconds, _ in known)
        return plain[(len(plain) - 1) // 2] if plain else None

    def guess(self, kind: str, size: float | None) -> float | None:
        """Return what a result of a kind may take: the lower median of the kinds of work that were seen."""
        seen = [one.common("", size) for one in self.kinds.get(kind, {}).values()]
        known = sorted(seconds for seconds in seen if seconds is not None)
        return known[(len(known) - 1) // 2] if known else None


def forecast(
    work: Sequence[Effort],
    elapsed: float | None = None,
    rest: float = 0.0,
    a_record: Mapping[str, float] | None = None,
) -> Forecast:
    """Return how far a run is with the results ``work``, in the order of their declaration.

    ``elapsed`` are the seconds since the run began its work; ``rest`` those that it is estimated to take outside all
    results; ``a_record`` the seconds that each stage spends on a record, over all workers.

    Example:
        >>> texts = Effort("texts", "source", DONE, rows=100, seconds=2.0, like=["source texts"])
        >>> first = Effort("model", "training", DONE, [[0]], 4.0, ["training model"], seconds=40.0)
        >>> again = Effort("model", "training", TO_DO, [[0]], 2.0, ["training model"])
        >>> found = forecast([texts, first, again])
        >>> round(found.share, 3), found.left
        (0.677, 20.0)
    """
    sizes = _sizes(work)
    pace, rates = _pace(work), _rates(work, sizes)
    by_stage = _by_stage(work, sizes, a_record or {})
    is_priced = any(one.price is not None for one in work)
    kept = mine = left = 0.0  # seconds of earlier calls, of this one, and to go
    unknown: dict[str, None] = {}
    guessed: dict[str, float] = {}  # seconds
    for one, size in zip(work, sizes, strict=True):
        seconds = _spent(one)
        if one.kept:
            kept += seconds
        else:
            mine += seconds
        if one.state == DONE:
            continue
        whole = one.price * pace if one.price is not None else _estimated(one, size, rates, by_stage)
        guess = _guessed(one, size, rates) if whole is None else whole
        to_go = _to_go(one, seconds, guess)
        if to_go is not None:
            left += to_go
            if whole is None and one.left is None:
                guessed[one.name] = guessed.get(one.name, 0.0) + to_go
        elif not is_priced:
            unknown[one.name] = None
    if unknown:
        return Forecast(unlike=tuple(unknown))
    much = () if is_priced else tuple(name for name, seconds in guessed.items() if seconds > _MUCH * left)
    if elapsed is not None and mine >= LEAST_MEASURED:
        # Results that are made side by side take less than their sum; what lies between them takes time too.
        left *= min(1.0 if is_priced else _MOST, elapsed / mine)
    spent, left = kept + (mine if elapsed is None else elapsed), left + rest
    return Forecast(spent / (spent + left), left, much) if left > 0 else Forecast(1.0, 0.0)


def _spent(one: Effort) -> float:
    """Return the seconds that were spent on a result; where they are not known, by its estimate."""
    if one.state == TO_DO:
        return 0.0
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


def _pace(work: Sequence[Effort]) -> float:
    """Return how much longer priced results took in this run than they were estimated to."""
    known = [(one.seconds, one.price) for one in work if one.state == DONE and not one.kept]
    pairs = [(seconds, price) for seconds, price in known if seconds is not None and price is not None]
    estimated = sum(price for _, price in pairs)
    return sum(seconds for seconds, _ in pairs) / estimated if estimated >= LEAST_MEASURED else 1.0


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
    found = rates.nearest(nearest, size)
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


def _to_go(one: Effort, spent: float, whole: float | None) -> float | None:
    if one.left is not None:
        return one.left
    if one.share is not None and one.share >= _SEEN and spent:
        return spent / one.share * (1 - one.share)
    if whole is None:
        return None
    return whole * (1 - one.share) if one.share is not None else max(0.0, whole - spent)


def priced(work: Sequence[Effort], prices: Sequence[tuple[str, float]]) -> list[Effort]:
    """Return results with their estimated seconds, given by name in the order of declaration; behind them those that
    the estimate has, and that are not declared yet.

    Example:
        >>> [(one.name, one.price) for one in priced([Effort("kept")], [("kept", 2.0), ("model", 9.0)])]
        [('kept', 2.0), ('model', 9.0)]
    """
    waiting: dict[str, list[float]] = {}
    for name, seconds in prices:
        waiting.setdefault(name, []).append(seconds)
    found = [replace(one, price=waiting[one.name].pop(0)) if waiting.get(one.name) else one for one in work]
    return [*found, *(Effort(name, price=seconds) for name, all_of in waiting.items() for seconds in all_of)]
