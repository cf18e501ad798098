"""The published weights of the re-ranking recipe: a small file per domain."""

from __future__ import annotations

from collections.abc import Mapping

from gristmill.actors.requests.rerank import FILE, file_of
from gristmill.shards import store
from gristmill.shards.artifact import Artifact

FOLDER = "rerankers"  # below OUT: <domain>.json, of the last training


def publish(out: str, weights: Mapping[str, Artifact]) -> bool:
    """Write a file per domain below OUT unless it is there unchanged; return whether any was written."""
    files = {file_of(store.join(out, FOLDER), domain): artifact.read(FILE) for domain, artifact in weights.items()}
    new = {url: data for url, data in files.items() if store.read_if_present(url) != data}
    for url, data in new.items():
        store.write_bytes(url, data)
    return bool(new)
