"""What of an output the newest finished run does not use: what may be deleted, what is kept, and why."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from gristmill.pipelines.config import SAVED, saved_digest
from gristmill.pipelines.ledger import LEDGER, Entry, read_ledger
from gristmill.pipelines.progress import plural
from gristmill.shards import owner, store
from gristmill.shards.artifact import MARK, Artifact, get_artifact
from gristmill.shards.cleaning import Contents, comes_out_the_same, find_orphans, is_own, look, sizes
from gristmill.shards.dataset import SEAL, SealedSet, find_sealed
from gristmill.shards.disk import PART
from gristmill.shards.entries import FolderEntry, list_entries, walk_entries
from gristmill.shards.errors import Damaged, UserError
from gristmill.shards.lease import FOLDER
from gristmill.shards.repair import DAMAGED
from gristmill.shards.tombstone import TOMBSTONE, Tombstone, dated, find_tombstone
from gristmill.shards.wording import nearest, or_else, some_of

_RESULT = re.compile(r"[0-9a-f]{16}(-\d+)?")  # the folder of a result; a number is put behind by `--again`
_DEPTH = 4  # levels of folders below an output that are searched
_OWN = {SAVED, LEDGER, "plan.json", "report.json", "report.html"}  # the files of an output
_OTHER = {SAVED, LEDGER, ".gristmill"}  # in a folder that is an output, or an export, by itself


@dataclass(frozen=True)
class CleaningChoice:
    """What is to be deleted beside what no run uses, and what not. ``keep`` has names of sets, artifacts and models."""

    intermediate: bool = False
    keep: frozenset[str] = frozenset()
    quarantined: bool = False
    unfinished: bool = False


@dataclass(frozen=True)
class Unused:
    """What is to be deleted of one result. Without a tombstone, files that belong to nothing."""

    path: str  # below the output
    why: str
    files: int
    bytes: int
    tombstone: Tombstone | None = None
    entries: tuple[FolderEntry, ...] = ()
    marks: tuple[int, int] = (0, 0)  # by how many files and bytes tombstones become more


@dataclass
class Survey:
    """An output, as far as it matters to who cleans it."""

    unused: list[Unused] = field(default_factory=list)
    kept: list[tuple[str, str]] = field(default_factory=list)  # paths that are not used, and why they are kept
    foreign: list[str] = field(default_factory=list)  # paths of what is no result of a run
    names: set[str] = field(default_factory=set)  # of the results
    files: int = 0  # with tombstones
    bytes: int = 0
    marks: tuple[int, int] = (0, 0)  # files and bytes of tombstones that stay

    @property
    def before(self) -> tuple[int, int]:
        """The files and bytes that there are, without tombstones: they are a note of what is not there."""
        return self.files - self.marks[0], self.bytes - self.marks[1]

    @property
    def deleted(self) -> tuple[int, int]:
        """The files and bytes that are to be deleted."""
        return sum(one.files for one in self.unused), sum(one.bytes for one in self.unused)

    @property
    def after(self) -> tuple[int, int]:
        """The files and bytes that are left, without tombstones."""
        return self.before[0] - self.deleted[0], self.before[1] - self.deleted[1]

    @property
    def tombstones(self) -> tuple[int, int]:
        """The files and bytes of tombstones beside what is left."""
        marks = [self.marks, *(one.marks for one in self.unused)]
        return sum(files for files, _ in marks), sum(size for _, size in marks)


def read_newest(out: str, choice: CleaningChoice) -> dict[str, Any]:
    """Return the ledger of the newest finished run below a URL.

    Raises:
        UserError: there is none, or a newer run has begun, or it does not say what its report needs.
    """
    ledger = read_ledger(out)
    if ledger is None:
        if not store.exists(store.join(out, SAVED)):
            raise UserError(f"{out}: there is no run here; expected the output of `gristmill run`")
        raise UserError(
            f"{out}: no run was finished here, and what there is belongs to the one that was begun; expected the "
            "output of a finished run"
        )
    if ledger["settings"] != saved_digest(out) and not choice.unfinished:
        raise UserError(
            f"{out}: a run with other settings has begun since the newest finished one, and is not finished; expected "
            "`gristmill run` to its end, or --unfinished, which deletes what it has made"
        )
    if choice.intermediate and any("read" not in entry for entry in ledger["made"]):
        raise UserError(
            f"{out}: the run was finished by an earlier version of Gristmill, which did not note what its report "
            "reads; expected the same `gristmill run` once more, which notes it"
        )
    return ledger


def half_written(out: str) -> tuple[int, int]:
    """Return how many files, and bytes in them, dead processes have left half-written; they go with the lease."""
    if not store.is_local(out):
        return 0, 0  # elsewhere nothing is seen of them
    return sizes(entry for entry in walk_entries(out) if _is_dead_part(entry))


def survey(out: str, choice: CleaningChoice, parts: tuple[int, int]) -> Survey:
    """Look through an output and return what may be deleted, with what is kept; nothing is changed.

    ``parts`` is what :func:`half_written` returned, before the lease was taken.

    Raises:
        UserError: as :func:`read_newest`, or there is no result of a name to be kept.
    """
    return _Survey(out, choice, read_newest(out, choice)).work(parts)


class _Survey:
    def __init__(self, out: str, choice: CleaningChoice, ledger: Mapping[str, Any]) -> None:
        self.out, self.choice = out, choice
        self.found = Survey()
        self.used: dict[str, Entry] = {entry["path"]: entry for entry in ledger["made"]}
        self.users: dict[str, set[str]] = {}  # digest -> the kinds of what was made of it
        for entry in ledger["made"]:
            for digest in entry.get("inputs", ()):
                self.users.setdefault(digest, set()).add(entry["kind"])

    def work(self, parts: tuple[int, int]) -> Survey:
        found = self.found
        self._look("", _DEPTH)
        found.files, found.bytes = found.files + parts[0], found.bytes + parts[1]
        if parts[0]:
            found.unused.append(Unused("half-written files", "of processes that died", *parts))
        for name in sorted(self.choice.keep - found.names):
            some = some_of(name, sorted(found.names)) if found.names else "one that a run made"
            raise UserError(
                f"--keep {name}: {self.out} has no set, artifact or model of that name"
                + or_else(nearest(name, found.names), some)
            )
        found.unused.sort(key=lambda one: one.path)
        return found

    # Folders.

    def _look(self, folder: str, depth: int) -> None:
        """Look through a folder that is no result."""
        for entry in list_entries(self._url(folder)):
            path = f"{folder}/{entry.name}" if folder else entry.name
            if path == FOLDER:
                continue
            if entry.kind == "folder" and "." not in entry.name and depth:
                if _RESULT.fullmatch(entry.name) and folder:
                    self._result(path, folder)
                    continue
                names = {one.name for one in list_entries(self._url(path))}
                if not names & _OTHER and self._has_results(path, depth - 1):
                    self._look(path, depth - 1)
                    continue
            self._other(path, entry)

    def _other(self, path: str, entry: FolderEntry) -> None:
        """Note a file, link or folder that is no result, nor has any in it."""
        below = self._counted([entry] if entry.kind != "folder" else walk_entries(self._url(path)))
        if path.startswith(f"{DAMAGED}."):
            self.found.kept.append((path, "what `gristmill repair` moved aside; it may be deleted by hand"))
        elif below and path not in _OWN:
            self.found.foreign.append(path)

    def _counted(self, entries: Iterable[FolderEntry]) -> list[FolderEntry]:
        """Count files, and return all that is not half-written, which is counted by itself."""
        kept = [entry for entry in entries if not _is_dead_part(entry)]
        files, size = sizes(entry for entry in kept if entry.kind == "file")
        self.found.files, self.found.bytes = self.found.files + files, self.found.bytes + size
        return kept

    def _has_results(self, folder: str, depth: int) -> bool:
        for entry in list_entries(self._url(folder)):
            if entry.kind == "folder" and "." not in entry.name:
                inner = f"{folder}/{entry.name}"
                if _RESULT.fullmatch(entry.name) or (depth and self._has_results(inner, depth - 1)):
                    return True
        return False

    def _url(self, path: str) -> str:
        return store.join(self.out, path) if path else self.out

    # Results.

    def _result(self, path: str, name: str) -> None:
        url = self._url(path)
        entries = self._counted(walk_entries(url))
        if not entries:
            return  # an object storage may list a folder that was emptied
        self.found.names.add(name)
        try:
            self._judge(path, name, url, entries)
        except Damaged as error:
            fault = f"{error.url.removeprefix(url).lstrip('/')}: {error.fault}"
            self.found.kept.append((path, f"damaged ({fault}); `gristmill repair` is the way on"))

    def _judge(self, path: str, name: str, url: str, entries: Sequence[FolderEntry]) -> None:
        files = {entry.name for entry in entries}
        tombstone = find_tombstone(url) if TOMBSTONE in files else None
        sealed = find_sealed(url) if SEAL in files else None
        artifact = get_artifact(url) if MARK in files else None
        contents = look(url, tombstone.own if tombstone else (), entries)
        self.found.foreign += [f"{path}/{entry.name}" for entry in contents.foreign]
        entry = self.used.get(path)
        if tombstone is not None:
            self._mark(next(one.size for one in entries if one.name == TOMBSTONE))
        whole = tombstone is None or (tombstone.kind == "made" and (sealed or artifact))
        if tombstone is not None and not whole:
            # The run that was making it again has ended; what was being deleted is deleted to the end.
            self._add(path, contents, tombstone, put=tombstone.remaking)
        elif entry is None:
            why = self._kept(name, sealed)
            if why:
                self.found.kept.append((path, why))
            else:
                made = self._tombstone(path, name, url, contents, sealed, artifact)
                self._add(path, contents, made, put=tombstone is None)
        elif sealed is not None and tombstone is None and self._is_intermediate(path, name, entry, sealed):
            made = self._tombstone(path, name, url, contents, sealed, None, used=True)
            self._add(path, contents, made, put=True)
        elif tombstone is not None:  # put by a clean that was killed then, and the newest run uses it since
            stale = next(one for one in entries if one.name == TOMBSTONE)
            self._mark(-stale.size)  # it goes, as any other file
            self.found.unused.append(Unused(path, "a tombstone of what is used", 1, stale.size, None, (stale,)))
        elif orphans := find_orphans(url, contents):
            why = "belongs to nothing: of attempts that came late, or checkpoints of a finished training"
            self.found.unused.append(Unused(path, why, *sizes(orphans), None, tuple(orphans)))

    def _mark(self, size: int) -> None:
        """Count a tombstone that stays by itself; not any more, if its size is negative."""
        files, sizes_of = self.found.marks
        self.found.marks = files + (1 if size > 0 else -1), sizes_of + size

    def _kept(self, name: str, sealed: SealedSet | None) -> str:
        """Return why a result is kept all the same; empty if it is not."""
        if name in self.choice.keep:
            return "--keep"
        held = sealed.seal["quarantined"] if sealed is not None else 0
        if held and not self.choice.quarantined:
            return f"{plural(held, 'quarantined record')}, which could be requeued; --quarantined deletes it too"
        return ""

    def _is_intermediate(self, path: str, name: str, entry: Entry, sealed: SealedSet) -> bool:
        """Return whether a set of the run is one that only finished sets were made of."""
        users = self.users.get(entry["digest"], set())
        if not self.choice.intermediate or entry["kind"] != "step" or entry.get("read") or users != {"step"}:
            return False
        why = self._kept(name, sealed)
        if not why and not comes_out_the_same(sealed) and not sealed.seal["quarantined"]:
            why = "would come out otherwise if it were made again"
        if why:
            self.found.kept.append((path, why))
        return not why

    def _tombstone(
        self,
        path: str,
        name: str,
        url: str,
        contents: Contents,
        sealed: SealedSet | None,
        artifact: Artifact | None,
        *,
        used: bool = False,
    ) -> Tombstone:
        same = sealed is not None and (used or comes_out_the_same(sealed))
        kind: Literal["set", "made", "unfinished"] = "set" if same else "made" if sealed or artifact else "unfinished"
        made = sealed or artifact
        folder = store.last_name(url)
        why = "not finished" if made is None else "not used by the newest run"
        if used:
            why = "only finished sets were made of it"
        elif "-" in folder:
            why = "put aside by --again"
        files, size = sizes(one for group in contents.deletable(kind) for one in group)
        own = tuple(one for one in artifact.stored if not is_own(one)) if artifact is not None else ()
        return Tombstone(name, kind, made.digest if made else "", why, files, size, folder, own, used)

    def _add(self, path: str, contents: Contents, tombstone: Tombstone, *, put: bool) -> None:
        files, size = sizes(one for group in contents.deletable(tombstone.kind) for one in group)
        if not files:
            return
        marks = (0, 0)
        if tombstone.kind == "unfinished":  # whose tombstone is deleted at last
            marks = (0, 0) if put else (-1, -len(tombstone.encoded()))
        elif tombstone.remaking:
            marks = (0, len(replace(tombstone, remaking=False).encoded()) - len(tombstone.encoded()))
        elif put:
            marks = (1, len(dated(tombstone).encoded()))
        made = replace(tombstone, remaking=False)
        self.found.unused.append(Unused(path, tombstone.why, files, size, made, (), marks))


def _is_dead_part(entry: FolderEntry) -> bool:
    return any(part.startswith(PART) and not owner.in_use(part.removeprefix(PART)) for part in entry.name.split("/"))
