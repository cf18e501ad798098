"""Trained recognisers to use: an artifact, a published folder, or the best system of a finished run."""

from __future__ import annotations

from gristmill.pipelines.finished import chosen, open_finished
from gristmill.shards import canonical, checked, store
from gristmill.shards.artifact import Artifact, get_artifact
from gristmill.shards.errors import Damaged, GristmillError, UserError
from gristmill.shards.stage import ArtifactRef

WEIGHTS = "model.safetensors"  # of a recogniser, in an artifact or a folder
GRAPH = "model.onnx"  # of one that was published, for other tools


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
        _check_published(made)
        return made.ref, url
    found = open_finished(url, "transcribe", f"a model (a folder with {WEIGHTS})")
    name, said = chosen(found, system)
    first = found.artifacts(name)[0]
    return first.ref, f"{said}: {first.url}"


def _check_published(made: Artifact) -> None:
    """Compare the small files of a published folder; its weights are compared when they are read.

    Raises:
        GristmillError: one is damaged or missing.
    """
    if "published" not in made.identity:
        return
    small = {path: made.sha256[name] for name, path in made.files.items() if name not in (WEIGHTS, GRAPH)}
    for fault in checked.find_faults(made.url, small):
        raise GristmillError(f"{fault.url}: {fault.fault}; expected the file as it was published")
