"""Published folders of models that read requests: what lies where, and how they are opened.

A folder holds the artifact of each model as its training committed it, the folder of the sentence-transformers model
that they read, if any, and ``settings.json``, which says what reads by what.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from gristmill.actors.embed import EmbedderSettings
from gristmill.actors.nlu.hypotheses import ListSettings
from gristmill.pipelines.requests.reading import RequestModels
from gristmill.shards import checked, store
from gristmill.shards.artifact import Artifact, get_artifact
from gristmill.shards.errors import Damaged, GristmillError, UserError

SETTINGS = "settings.json"
MODELS, WEIGHTS, EMBEDDER = "models", "weights", "embedder"  # folders
_READS = "reads"


def folder_of(kind: str, domain: str) -> str:
    """Return the folder of a domain's model below the published one."""
    return f"{kind}/{quote(domain, safe=' ')}"


def described(given: RequestModels, *, copied: bool) -> dict[str, Any]:
    """Return what ``settings.json`` says of the models; the embedder is ``copied`` into the folder, or found by its
    name."""
    embedder = None if given.embedder is None else given.embedder.model_dump(mode="json")
    if embedder is not None and copied:
        embedder["embedder"] = EMBEDDER
    return {
        "system": given.system,
        "kind": given.kind,
        MODELS: list(given.models),
        WEIGHTS: list(given.weights),
        "lists": None if given.lists is None else given.lists.model_dump(mode="json"),
        EMBEDDER: embedder,
        "embedder copied": copied,
    }


def settings_of(reads: Mapping[str, Any], recipe: Mapping[str, Any]) -> str:
    """Return the text of ``settings.json``."""
    return json.dumps({_READS: reads, "recipe": recipe}, indent=1, sort_keys=True)


def published_models(url: str, system: str | None) -> RequestModels | None:
    """Return the models of a published folder, whose files are compared with their digests; ``None`` if it is none.

    Raises:
        UserError: a system is asked for, or the embedder would be read from where it cannot be.
        GristmillError: a file is damaged or missing.
    """
    try:
        made = get_artifact(url)
    except Damaged as error:
        raise GristmillError(f"{error.url}: {error.fault}; expected the file as it was published") from None
    if made is None or "published" not in made.identity or SETTINGS not in made.files:
        return None
    for fault in checked.find_faults(url, made.stored):
        raise GristmillError(f"{fault.url}: {fault.fault}; expected the file as it was published")
    reads = json.loads(made.read(SETTINGS)).get(_READS)
    if reads is None:
        return None
    if system is not None:
        raise UserError(f"{url}: one system, {reads['system']}; another can be chosen of the output of a run only")

    def artifacts(kind: str) -> dict[str, Artifact]:
        found = {domain: get_artifact(store.join(url, folder_of(kind, domain))) for domain in reads[kind]}
        return {domain: one for domain, one in found.items() if one is not None}

    embedder = None if reads[EMBEDDER] is None else EmbedderSettings.model_validate(reads[EMBEDDER])
    if embedder is not None and reads["embedder copied"]:
        if not store.is_local(url):
            raise UserError(f"{url}: its sentence embeddings are read from a folder; expected a copy on this machine")
        embedder = embedder.but(embedder=store.join(store.filesystem(url)[1], EMBEDDER))
    lists = None if reads["lists"] is None else ListSettings.model_validate(reads["lists"])
    said = f"{reads['system']}: {url}"
    found = RequestModels(reads["system"], said, reads["kind"], artifacts(MODELS), artifacts(WEIGHTS))
    return replace(found, lists=lists, embedder=embedder)
