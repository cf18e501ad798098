"""The weights that the re-ranking recipe hands over: a small file for each domain."""

from __future__ import annotations

from collections.abc import Mapping

from gristmill.actors.requests.rerank import FILE, file_of
from gristmill.shards import store
from gristmill.shards.artifact import Artifact

FOLDER = "rerankers"  # below OUT: <domain>.json, as it was last trained


def publish(out: str, weights: Mapping[str, Artifact]) -> bool:
    """Write a file a domain below OUT where it is not there as it is; tell whether any was written."""
    files = {file_of(store.join(out, FOLDER), domain): artifact.read(FILE) for domain, artifact in weights.items()}
    new = {url: data for url, data in files.items() if store.read_if_present(url) != data}
    for url, data in new.items():
        store.write_bytes(url, data)
    return bool(new)
