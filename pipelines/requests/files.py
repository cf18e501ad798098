"""The published weights of the re-ranking recipe: a small file per domain."""

from __future__ import annotations

from collections.abc import Mapping

from gristmill.actors.nlu.rerank import FILE, file_of
from gristmill.shards import store
from gristmill.shards.artifact import Artifact

FOLDER = "rerankers"  # below OUT: <domain>.json, of the last training


def publish(out: str, weights: Mapping[str, Artifact]) -> bool:
    """Write a file per domain below OUT unless it is there unchanged; return whether any was written."""
    folder = store.join(out, FOLDER)
    files = {file_of(folder, domain): artifact.read(FILE) for domain, artifact in weights.items()}
    written = [store.write_changed(url, data) for url, data in files.items()]
    return any(written)
