"""Execution of a recipe: checks its requirements, runs it, and writes its report."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from gristmill.cluster.training_log import check
from gristmill.pipelines.agenda import Agenda
from gristmill.pipelines.command.leasing import leased
from gristmill.pipelines.command.occupied import Maker, refuse_occupied
from gristmill.pipelines.command.planfile import PlanKeeper, estimate, read_plan
from gristmill.pipelines.config import Common, Loaded, same_as_saved, save, saved_digest
from gristmill.pipelines.ledger import read_ledger
from gristmill.pipelines.progress import RunProgress
from gristmill.pipelines.run import Run
from gristmill.pipelines.scheduler import Cluster
from gristmill.shards import disk, processor, store
from gristmill.shards.engine import read_plan as read_step
from gristmill.shards.errors import Damaged, UserError
from gristmill.shards.finding import find_below
from gristmill.shards.wording import nearest, or_else, sentences, some_of

ANSWER_WITHIN = 20.0  # seconds until a storage must have answered

T = TypeVar("T")


def check_again(out: str, names: Sequence[str]) -> None:
    """Check that an output has results of the stages, steps, artifacts and trainings that are to be made anew.

    Raises:
        UserError: it has none of one of them.
    """
    if not names:
        return
    found = find_below(out)
    steps = [*(sealed.url for sealed in found.sealed), *found.unsealed, *found.cleaned]
    made = (*steps, *found.artifacts, *found.training, *found.unreadable)
    known = {name for url in made if (name := found.names[url]) != url}  # a folder that is in none has its URL
    for folder in steps:
        known.update(stage["name"] for stage in (read_step(folder) or {"stages": []})["stages"])
    short = sorted({one.rpartition(":")[2] for one in known})
    for name in names:
        if name not in known and name not in short:
            some = some_of(name, short) if short else "one that an earlier run made"
            raise UserError(
                f"--again {name}: {out} has no stage, step, artifact or training of that name"
                + or_else(nearest(name, short), some)
            )


def make_cluster(common: Common) -> Cluster:
    """Return the cluster that executes the recipe's work; Ray is started with the first work."""
    run = store.last_name(common.out)
    log = common.log.below(common.out)
    check(log, run)
    if common.runner == "inprocess":
        from gristmill.cluster.inprocess import InProcessRunner

        return InProcessRunner(run, log)
    try:
        import ray  # noqa: F401
    except ImportError:
        raise UserError(
            "runner=ray: Ray is not installed; expected `pip install 'ray[data,train]'` or runner=inprocess"
        ) from None
    from gristmill.cluster.ray_runner import RayRunner

    return RayRunner(common.workers, run, common.price, log, common.resources)


def carried_out(command: str, out: str, settings: Sequence[str]) -> Common:
    """Return the common settings of a command without a recipe, from ``runner=...`` and ``workers=N``."""
    values: dict[str, str] = {}
    for setting in settings:
        key, sign, value = setting.partition("=")
        if not sign or key not in ("runner", "workers"):
            raise UserError(f"{setting!r}: expected runner=ray, runner=inprocess or workers=N")
        values[key] = value
    try:
        return Common.model_validate({"recipe": command, "out": out, **values})
    except ValidationError as error:
        raise UserError("; ".join(sentences(error, Common))) from None


def check_storage(loaded: Loaded) -> None:
    """Check, before any work, that the output can be written and is no one else's, and that object storages respond."""
    check_out(loaded.common.out)
    refuse_occupied(loaded.common.out, Maker(loaded.recipe))
    for url in {_bucket(url) for url in _urls(loaded.to_json()) if url != loaded.common.out}:
        if not answered(url, functools.partial(_reached, url)):
            raise UserError(f"{url}: there is no such bucket, or it is not accessible")


_WEB = "nothing can be written to a web server"
_NOT_KEPT = {"http": _WEB, "https": _WEB, "memory": "what is kept in the memory of a process is gone at its end"}


def check_out(out: str) -> None:
    """Check that the output folder can be written."""
    if "::" in out:
        raise UserError(f"out={out}: holds '::', with which URLs are chained; expected a path or one URL without it")
    if store.is_local(out):
        try:
            disk.try_folder(store.filesystem(out)[1])
        except UserError as error:
            raise UserError(f"out={error}") from None
        return
    scheme = out.partition("://")[0]
    if scheme in _NOT_KEPT:
        raise UserError(
            f"out={out}: {_NOT_KEPT[scheme]}; expected a path, or the URL of an object storage, such as "
            "s3://bucket/folder"
        )
    bucket = _bucket(out)
    if not answered(bucket, lambda: _reached(bucket)):
        raise UserError(f"out={out}: there is no bucket {bucket}, or it is not accessible; expected one that exists")


def check_nodes(common: Common) -> None:
    """Check that a cluster to be joined is there and computes alike on all machines, and that the output is not on one
    disk if it has several."""
    from gristmill.cluster import nodes, session

    if common.runner == "ray" and session.joined():
        session.start(common.workers)
        nodes.check_processors()
        if store.is_local(common.out):
            nodes.check_shared(common.out)


def check_gpus(loaded: Loaded) -> None:
    """Check, before any work, that there are as many GPUs as one training or worker asks for.

    Raises:
        UserError: this machine, or the cluster that was joined, has fewer.
    """
    from gristmill.cluster import nodes, session

    common = loaded.common
    need, setting = max(_gpus_of(loaded.config.model_dump(mode="json")), default=(0.0, ""))
    if not need:
        return
    if common.runner == "ray" and session.joined():
        import ray

        session.start(common.workers)
        where, there = "the cluster", max(ray.cluster_resources().get("GPU", 0.0), common.resources.most.gpus)
        more = ", or resources.most.gpus set to the number that its autoscaler may add"
    else:
        where, there, more = "this machine", float(len(nodes.devices_seen())), ""
    if need > there:
        raise UserError(f"{setting}: asks for {need:g} GPU and {where} has {there:g}; expected at most that{more}")


def _gpus_of(settings: Any, path: str = "") -> Iterator[tuple[float, str]]:
    """Yield the GPUs that parts of the settings ask for, with the paths of these settings."""
    if not isinstance(settings, Mapping):
        return
    for name, value in settings.items():
        where = f"{path}.{name}" if path else name
        if name == "gpus" and value:
            yield value * settings.get("ranks", 1), where
        yield from _gpus_of(value, where)


def answered(url: str, ask: Callable[[], T]) -> T:
    """Return a storage's response, or raise a :class:`UserError` if it takes too long."""
    result: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            result.append(ask())
        except BaseException as error:
            errors.append(error)

    # A client library may block for minutes and cannot be interrupted; its thread ends with the process.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(ANSWER_WITHIN)
    if thread.is_alive():
        raise UserError(f"{url}: the storage gave no answer within {ANSWER_WITHIN:g} s; is its endpoint right?")
    if errors:
        error = errors[0]
        if isinstance(error, OSError):
            raise UserError(f"{url}: the storage cannot be reached: {error}") from None
        raise error
    return result[0]


def _reached(bucket: str) -> bool:
    # This raises if the storage is unreachable, whereas clients then report that a bucket does not exist.
    with store.patience(ANSWER_WITHIN / 2):
        store.exists(store.join(bucket, ".gristmill"))
        return store.exists(bucket)


def _urls(value: Any) -> set[str]:
    if isinstance(value, Mapping):
        return set().union(*map(_urls, value.values()))
    if isinstance(value, list):
        return set().union(*map(_urls, value))
    known = isinstance(value, str) and value.partition("://")[0] in ("s3", "s3a", "gs", "gcs", "abfs", "az")
    return {value} if known else set()


def _bucket(url: str) -> str:
    scheme, sign, rest = url.partition("://")
    return scheme + sign + rest.partition("/")[0]


def carry_out(
    loaded: Loaded, progress: RunProgress, *, requeue: bool = False, again: Sequence[str] = ()
) -> tuple[Run, bool]:
    """Run or resume a recipe and write its report; return the run, and whether there was anything to do.

    ``again`` names stages, steps, artifacts and trainings to make anew (:class:`~gristmill.pipelines.run.Run`).
    """
    from gristmill.pipelines.finished import use_of
    from gristmill.pipelines.provenance import add_provenance, add_sizes
    from gristmill.pipelines.report.report import Report
    from gristmill.pipelines.report.verdict import conclude
    from gristmill.pipelines.report.write import write_report

    common = loaded.common
    processor.choose(common.processor)
    check_storage(loaded)
    check_again(common.out, again)
    progress.agenda = expected(loaded)
    run = Run(common.out, make_cluster(common), common.seed, progress, requeue, seeds=list(common.seeds))
    run.again = frozenset(again)
    changed = False

    def keep_settings() -> None:
        nonlocal changed
        changed |= save(loaded)

    run.on_first = keep_settings
    begun = time.perf_counter()

    def check_cluster() -> None:
        check_nodes(common)
        check_gpus(loaded)

    keeper = PlanKeeper(run, loaded.digest)
    with leased(run, check_cluster, keeper):
        report = loaded.run(loaded.config, run)
        run.finish()
        if not isinstance(report, Report):
            given = "None" if report is None else type(report).__name__
            raise UserError(
                f"recipe {loaded.recipe}: run(config, run) returned {given}; expected a {Report.__module__}.Report. "
                "What it made is kept"
            )
        fresh = any(not entry.kept for entry in run.trace)
        actual: dict[str, Any] = {"seconds": round(time.perf_counter() - begun, 3)}
        for entry in run.trace:
            if not entry.kept:
                part = actual.setdefault(entry.name, {"seconds": 0.0})
                part["seconds"] = round(part["seconds"] + entry.seconds, 3)
        add_provenance(report, run, common.runner, keeper.earlier)
        report.use = use_of(loaded.recipe, report, run)
        counts = {"made": len({one.url for one in run.trace if not one.kept}),
                  "of": len({one.url for one in run.trace})}  # fmt: skip
        report.plan = {"estimate": estimate(common.out), "actual": actual, "results": counts}
        written = write_report(common.out, report, lambda: add_sizes(report, run))
        written |= run.write_ledger(loaded.recipe, saved_digest(common.out))  # last: by it a run is finished
        concluded = conclude(report)
        run.verdict = "" if concluded is None else concluded.sentence
    return run, fresh or changed or written


def expected(loaded: Loaded) -> Agenda:
    """Return the agenda of a run by its plan or an earlier run; empty without, as more may be declared by what is
    read."""
    out = loaded.common.out
    with contextlib.suppress(Damaged):  # as if it were not there; `gristmill audit` tells
        plan = read_plan(out)
        if plan is not None and "results" in plan and plan.get("settings") == loaded.digest:
            return Agenda([one["name"] for one in plan["results"]])
    with contextlib.suppress(Damaged):
        ledger = read_ledger(out)
        if ledger is not None and ledger["settings"] == saved_digest(out) and same_as_saved(loaded):
            made = {entry["path"]: entry["name"] for entry in ledger["made"]}  # one that is used twice is there twice
            return Agenda(list(made.values()))
    return Agenda()
