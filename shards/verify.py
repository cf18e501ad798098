"""Compares what is opened by URL with the digest by which it was given."""

from __future__ import annotations

from gristmill.shards import store
from gristmill.shards.artifact import MARK, get_artifact
from gristmill.shards.dataset import SEAL, read_seals
from gristmill.shards.errors import Damaged
from gristmill.shards.stage import ArtifactRef
from gristmill.shards.tombstone import refuse_cleaned


def check_ref(ref: ArtifactRef) -> None:
    """Check that the set or artifact at a reference's URL is still the one that it names; others are not looked at.

    Raises:
        Damaged: it is missing or is another one.
        Cleaned: it is missing, since `gristmill clean` has deleted it.
    """
    if ref.commit == MARK:
        artifact = get_artifact(ref.url)
        found = [] if artifact is None else [artifact.digest]
    elif ref.commit == SEAL:
        found = [str(seal["digest"]) for seal in read_seals(ref.url)]
    else:
        return
    if ref.digest not in found:
        if not found:
            refuse_cleaned(ref.url)
        there = f"holds {found[-1][:12]}" if found else "is missing"
        raise Damaged(store.join(ref.url, ref.commit), f"{there}, {ref.digest[:12]} was expected")
