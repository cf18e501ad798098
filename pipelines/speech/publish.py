"""Publication of a run's recogniser: a folder that is a model by itself, with a card, and an ONNX graph."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable

import numpy as np

from gristmill.actors.speech.features import rows_of
from gristmill.models.speech import onnx_graph
from gristmill.models.speech.checkpoint import load_acoustic
from gristmill.models.speech.features import FeatureSettings
from gristmill.pipelines.finished import Finished, chosen, open_finished
from gristmill.pipelines.progress import plural
from gristmill.pipelines.publishing import BEST, Publication, Published
from gristmill.pipelines.speech.card import PublishedModel, write_card
from gristmill.pipelines.speech.lengths import MEAN_LENGTH, SETTINGS, Lengths, mean_length, sizes_of
from gristmill.pipelines.speech.recognisers import GRAPH, WEIGHTS
from gristmill.shards import processor, store
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet, find_sealed
from gristmill.shards.errors import GristmillError, UserError
from gristmill.shards.safe_text import redacted
from gristmill.shards.tombstone import find_tombstone, refuse_cleaned

BOUND = 1e-3
"""Nats by which a log-probability of the graph may differ from torch's."""
COMPARED = 100  # utterances of the test sets
_BESIDE = ("units.json", "features.json")
_SPEECH = ("labelled", "unlabelled", "transcribed", "test")  # sets of the recipe


def publish(
    out: store.Place, system: str, dest: store.Place, say: Callable[[str], None] = lambda sentence: None
) -> Published:
    """Write a system of a finished run (``best``: its best one) to a folder, which is a model to transcribe with.

    What an earlier publication wrote is compared with its digests, and written again if it is damaged or missing.

    Raises:
        UserError: there is no such run or system, the folder contains something else, cannot be written or lies in the
            run's output, or this machine does not offer the instruction set.
        GristmillError: the outputs of the ONNX graph are not within ``BOUND`` of torch's.
        Damaged: the model is not as it was trained.
    """
    processor.check()
    out, dest = store.absolute(out), store.absolute(dest)
    run = open_finished(out, "transcribe", "the output of a run that trains recognisers", "publish")
    name, said = chosen(run, None if system == BEST else system)
    made = run.artifacts(name)[0]
    publication = Publication(out, dest, made.digest, (GRAPH, WEIGHTS, *_BESIDE, SETTINGS))
    say(said)
    data = made.read(WEIGHTS)
    network, units, features = load_acoustic(data)
    sizes = sizes_of(run, _SPEECH)
    mean = mean_length(sizes)
    identity = {"published": name, "graph": True}
    command = f"gristmill transcribe {shlex.quote(dest)} AUDIO"
    files = {
        WEIGHTS: data,
        "units.json": units.to_json().encode(),
        "features.json": features.to_json().encode(),
        SETTINGS: _settings(run, made, mean),
    }
    if (there := publication.find(identity, say)) is not None:
        return Published(dest, there, command, fresh=False)
    utterances = _utterances(run, features)
    say(f"exporting to ONNX, and comparing {plural(len(utterances), 'utterance')} with torch")
    files[GRAPH] = onnx_graph.to_onnx(network)
    worst = onnx_graph.difference(files[GRAPH], network, utterances)
    if not worst <= BOUND:
        raise GristmillError(
            f"{dest}: a log-probability of the ONNX graph differs from torch's by {worst:.2g} nats, and at most "
            f"{BOUND:g} is allowed; nothing was published"
        )
    described = PublishedModel(
        system=name,
        digest=made.digest,
        parameters=sum(value.numel() for value in network.parameters()),
        units=f"{len(units):,} {units.kind} with the blank",
        features=features,
        onnx=f"`{GRAPH}` (opset {onnx_graph.OPSET}) gives the same within {BOUND:g} nats of each log-probability: on "
        f"{plural(len(utterances), 'utterance')} of the test sets the largest difference was {worst:.1e}.",
        sizes=sizes,
        lengths=Lengths(mean),
    )
    return Published(dest, publication.write(files, identity, write_card(run, described)), command)


def _settings(run: Finished, made: Artifact, mean: float | None) -> bytes:
    settings = {"recipe": run.report["recipe"], "training": made.identity.get("settings", {}), MEAN_LENGTH: mean}
    return redacted(json.dumps(settings, indent=1, sort_keys=True)).encode() + b"\n"


def _utterances(run: Finished, features: FeatureSettings) -> list[np.ndarray]:
    """Return features of the first utterances of each test set, (frames, n_mels) each.

    Raises:
        Cleaned: `gristmill clean` has deleted those of all test sets.
    """
    found: list[np.ndarray] = []
    sets = [_set(run, f"features_{name}") for name in run.report["test_sets"]]
    known = [one for one in sets if one is not None]
    present = [one for one in known if find_tombstone(one.url) is None]
    for number, sealed in enumerate(present, 1):
        wanted = COMPARED * number // len(present)
        for table in sealed.tables(["features"]):
            found += [row.reshape(-1, features.n_mels) for row in rows_of(table["features"]) if len(row)]
            if len(found) >= wanted:
                break
        del found[wanted:]
    if known and not present:
        refuse_cleaned(known[0].url)
    if not found:
        raise UserError(f"{run.out}: holds no features of its test sets to compare an ONNX graph on; run it again")
    return found


def _set(run: Finished, name: str) -> SealedSet | None:
    """Return a set of the run, or ``None`` if it made none of that name, or it was removed since."""
    return find_sealed(run.sets[name][0]) if name in run.sets else None
