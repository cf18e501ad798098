"""Artifacts: fitted models and other results that are not tables, committed like shards."""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gristmill.shards import canonical, store
from gristmill.shards.errors import Alarm
from gristmill.shards.stage import ArtifactRef


@dataclass(frozen=True)
class Artifact:
    """A committed artifact: its files by name, and the identity of its inputs and settings."""

    url: str
    digest: str
    files: Mapping[str, str]  # name -> path below url
    identity: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ref(self) -> ArtifactRef:
        """The reference by which a stage names it."""
        return ArtifactRef(self.url, self.digest)

    def read(self, name: str) -> bytes:
        """Return the bytes of one of its files; raises :class:`FileNotFoundError` for an unknown name."""
        if name not in self.files:
            raise FileNotFoundError(
                f"{self.url}: the artifact holds no {name}, it holds {', '.join(sorted(self.files))}"
            )
        return store.read_bytes(store.join(self.url, self.files[name]))


Content = bytes | Callable[[], Iterable[bytes]]  # of a file; a large one comes in chunks, the same at each call


def put_artifact(
    url: str, files: Mapping[str, Content], identity: Mapping[str, Any], *, deterministic: bool = True
) -> Artifact:
    """Commit an artifact and return the committed one: this one, or an earlier attempt's.

    Each file's name carries its digest (``model-<sha>.safetensors``), so that no attempt overwrites another's;
    ``artifact.json``, put if absent, is the commit point and maps names to files (law 3). Different content under the
    same URL raises :class:`~gristmill.shards.errors.Alarm`, unless the work is not deterministic.

    Example:
        >>> made = put_artifact("made/words", {"words.txt": b"on off"}, {"version": 1})
        >>> made.read("words.txt"), get_artifact("made/words").digest == made.digest
        (b'on off', True)
    """
    shas = {name: _sha256(data) for name, data in sorted(files.items())}
    digest = canonical.digest(shas)
    found = get_artifact(url)
    if found is None:
        paths = {name: _path(name, sha) for name, sha in shas.items()}
        for name, data in files.items():
            place = store.join(url, paths[name])
            if callable(data):
                store.write_chunks(place, data)
            else:
                store.write_bytes(place, data)
        body = {"digest": digest, "files": paths, "sha256": shas, "identity": identity}
        if store.put_if_absent(store.join(url, "artifact.json"), canonical.dumps(body)):
            return Artifact(url, digest, paths, dict(identity))
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
    """Return the artifact at a URL, or ``None`` if there is none."""
    data = store.read_if_present(store.join(url, "artifact.json"))
    if data is None:
        return None
    body = json.loads(data)
    return Artifact(url, body["digest"], body["files"], body["identity"])


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
