"""Trained recognisers to use: an artifact, a published folder, or the best system of a finished run."""

from __future__ import annotations

from gristmill.pipelines.finished import chosen, open_finished
from gristmill.shards import canonical, store
from gristmill.shards.artifact import get_artifact
from gristmill.shards.errors import Damaged, GristmillError, UserError
from gristmill.shards.stage import ArtifactRef

WEIGHTS = "model.safetensors"  # of a recogniser, in an artifact or a folder


def find_recogniser(place: store.Place, system: str | None = None) -> tuple[ArtifactRef, str]:
    """Return a trained model, and which it is in words, from its folder or from the output of a run.

    Of a run it is the best system of the report, or ``system``; of several seeds, the first.

    Raises:
        UserError: there is no model, or no such system.
        GristmillError: it is damaged.
    """
    url = store.absolute(place)
    try:
        made = get_artifact(url)
    except Damaged as error:
        raise GristmillError(f"{error.url}: {error.fault}; expected the folder of a model as it was written") from None
    if made is not None or store.exists(store.join(url, WEIGHTS)):
        if system is not None:
            raise UserError(f"{url}: one model; a system can be chosen of the output of a run only")
        if made is None:
            return ArtifactRef(url, canonical.sha256(store.read_bytes(store.join(url, WEIGHTS)))), url
        if WEIGHTS not in made.files:
            raise UserError(f"{url}: holds {', '.join(sorted(made.files))}; expected {WEIGHTS} of a recogniser")
        return made.ref, url
    found = open_finished(url, "transcribe", f"a model (a folder with {WEIGHTS})")
    name, said = chosen(found, system)
    first = found.artifacts(name)[0]
    return first.ref, f"{said}: {first.url}"
