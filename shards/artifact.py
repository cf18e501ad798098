"""Artifacts: fitted models and other results that are not tables, committed like shards."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NotRequired

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from gristmill.shards import canonical, checked, interrupts, processor, store
from gristmill.shards.errors import Alarm, Damaged
from gristmill.shards.stage import ArtifactRef
from gristmill.shards.tombstone import refuse_cleaned

MARK = "artifact.json"
_KIND = "artifact"


@dataclass(frozen=True)
class Artifact:
    """A committed artifact: its files by name, and the identity of its inputs and settings."""

    url: str
    digest: str
    files: Mapping[str, str]  # name -> path below url
    sha256: Mapping[str, str]  # by name
    identity: Mapping[str, Any] = field(default_factory=dict)
    made_in: str = ""  # the last name of the folder that it was committed in
    beside: Mapping[str, str] = field(default_factory=dict)  # path below url -> SHA-256 of files that came before it
    code: Mapping[str, Any] | None = None  # what made it, see gristmill.shards.code
    processor: str = ""  # the level that it was made at (:mod:`gristmill.shards.processor`), if that was recorded

    @property
    def ref(self) -> ArtifactRef:
        """The reference by which a stage names it."""
        return ArtifactRef(self.url, self.digest, MARK)

    def read(self, name: str) -> bytes:
        """Return the bytes of one of its files.

        Raises:
            FileNotFoundError: it holds no file of that name.
            Damaged: the file is missing, or its bytes are not those that were committed.
            Cleaned: `gristmill clean` has deleted it since it was found.
        """
        place = self._place(name)
        try:
            return checked.read_file(place, self.sha256[name])
        except Damaged:
            refuse_cleaned(self.url)
            raise

    def checked_url(self, name: str) -> str:
        """Return the URL of one of its files, for a library that reads it by itself, after a check of its bytes; raises
        as :meth:`read`."""
        place = self._place(name)
        checked.check_file(place, self.sha256[name])
        return place

    def check_stored(self) -> None:
        """Check that its files are there, by one listing of each folder.

        Raises:
            Damaged: a file is missing.
        """
        there: dict[str, set[str]] = {}
        for path in self.stored:
            folder, _, name = path.rpartition("/")
            place = store.join(self.url, folder) if folder else self.url
            if folder not in there:
                there[folder] = set(store.list_names(place))
            if name not in there[folder]:
                raise Damaged(store.join(self.url, path), "the file is missing")
            checked.refuse_irregular(store.join(self.url, path))

    @property
    def stored(self) -> dict[str, str]:
        """The SHA-256 of all its files, by path below ``url``."""
        return {**{self.files[name]: sha for name, sha in self.sha256.items()}, **self.beside}

    def _place(self, name: str) -> str:
        if name not in self.files:
            raise FileNotFoundError(
                f"{self.url}: the artifact holds no {name}, it holds {', '.join(sorted(self.files))}"
            )
        return store.join(self.url, self.files[name])


class _Body(TypedDict):
    """What ``artifact.json`` holds."""

    digest: str
    files: dict[str, str]
    sha256: dict[str, str]
    identity: dict[str, Any]
    made_in: str
    beside: NotRequired[dict[str, str]]
    code: NotRequired[dict[str, Any] | None]
    processor: NotRequired[str]


_SHAPE = TypeAdapter(_Body)

Content = bytes | Callable[[], Iterable[bytes]]  # of a file; a large one comes in chunks, the same at each call


def put_artifact(
    url: str,
    files: Mapping[str, Content],
    identity: Mapping[str, Any],
    *,
    deterministic: bool = True,
    beside: Mapping[str, str] | None = None,
    code: Mapping[str, Any] | None = None,
    plain: bool = False,
) -> Artifact:
    """Commit an artifact and return the committed one: this one, or an earlier attempt's.

    Each file's name carries its digest (``model-<sha>.safetensors``), so that no attempt overwrites another's;
    ``artifact.json``, put if absent, is the commit point and maps names to files (law 3). Different content under the
    same URL raises :class:`~gristmill.shards.errors.Alarm`, unless the work is not deterministic.

    ``beside`` maps the paths of files that lie at the URL already, because they came to be one by one (the samples of
    a bank), to their SHA-256. A file of ``files`` must name each by its digest. ``code`` is kept beside the identity.

    ``plain``: the names carry no digest, so that other tools find the files; only one process may write there.

    Example:
        >>> made = put_artifact("made/words", {"words.txt": b"on off"}, {"version": 1})
        >>> made.read("words.txt"), get_artifact("made/words").digest == made.digest
        (b'on off', True)
    """
    shas = {name: _sha256(data) for name, data in sorted(files.items())}
    digest = canonical.digest(shas)
    found = get_artifact(url)
    if found is None:
        paths = {name: name if plain else _path(name, sha) for name, sha in shas.items()}
        for name, data in files.items():
            place = store.join(url, paths[name])
            if callable(data):
                store.write_chunks(place, data)
            else:
                store.write_bytes(place, data)
        name = store.last_name(url)
        body = {"digest": digest, "files": paths, "sha256": shas, "identity": identity, "made_in": name}
        body |= {"processor": (made_with := processor.label())}
        body |= {"beside": dict(beside)} if beside else {}
        body |= {"code": dict(code)} if code else {}
        interrupts.check()
        if store.put_if_absent(store.join(url, MARK), checked.encode(_KIND, body)):
            return Artifact(url, digest, paths, shas, dict(identity), name, dict(beside or {}), code, made_with)
        found = get_artifact(url)
        kept = set(found.files.values()) if found else set(paths.values())
        for path in set(paths.values()) - kept:
            store.remove_file(store.join(url, path))
    if found is None or (found.digest != digest and deterministic):
        raise Alarm(f"{url}: the artifact came out twice with different bytes (law 1)")
    return found


def _sha256(data: Content) -> str:
    if not callable(data):
        return canonical.sha256(data)
    found = hashlib.sha256()
    for chunk in data():
        found.update(chunk)
    return found.hexdigest()


def _path(name: str, sha: str) -> str:
    stem, suffix = posixpath.splitext(name)
    return f"{stem}-{sha[:16]}{suffix}"


def get_artifact(url: str) -> Artifact | None:
    """Return the artifact at a URL, or ``None`` if there is none.

    Raises:
        Damaged: its ``artifact.json`` is not what was committed.
    """
    body = checked.read_as(_KIND, store.join(url, MARK), _SHAPE)
    return None if body is None else Artifact(url, **body)


def find_made(url: str) -> Artifact | None:
    """Return the artifact that a run made in a folder, or ``None`` if there is none.

    Raises:
        Damaged: it was made in another folder, whose last name is the fingerprint of other settings.
    """
    found = get_artifact(url)
    if found is not None and found.made_in != store.last_name(url):
        raise Damaged(store.join(url, MARK), f"was made as {found.made_in}, and {store.last_name(url)} was expected")
    return found


def read_file(url: str, name: str) -> bytes:
    """Return a file of the artifact at a URL or, where no artifact was committed, of a plain folder.

    A plain folder is one that the user supplies, such as a checkpoint. A file that is in neither raises
    :class:`FileNotFoundError`.

    Example:
        >>> made = put_artifact("made/units", {"units.txt": b"a b"}, {})
        >>> read_file("made/units", "units.txt")
        b'a b'
    """
    artifact = get_artifact(url)
    return store.read_bytes(store.join(url, name)) if artifact is None else artifact.read(name)
