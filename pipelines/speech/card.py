"""The card of a published recogniser: where its data come from, how well it recognises, and how it is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gristmill.models.speech.features import FeatureSettings
from gristmill.pipelines.card import UNKNOWN, ancestors, as_code, figures, origin
from gristmill.pipelines.finished import Finished
from gristmill.pipelines.speech.lengths import Lengths

_GENERATED = "Apache-2.0: sentences of `home-assistant-intents`, spoken by `hibari-tts`"
_MIXED = f"{_GENERATED} and by eSpeak NG, a program under the GPL-3.0-or-later"


@dataclass(frozen=True)
class PublishedModel:
    """What a card says of a model beside its run."""

    system: str
    digest: str
    parameters: int
    units: str
    """Their kind and number, in words."""
    features: FeatureSettings
    onnx: str
    """A sentence on the ONNX graph."""
    sizes: Mapping[str, tuple[int, float]]
    """Records and hours of the sets of speech, by name."""
    lengths: Lengths


def write_card(run: Finished, model: PublishedModel) -> str:
    """Return ``README.md``."""
    parts = (_head(run, model), _loading(model), figures(run, model.system, "reference words"), _data(run, model))
    return "\n".join([line for part in parts for line in part] + [*origin(run, [model.digest])])


def _head(run: Finished, model: PublishedModel) -> Iterator[str]:
    rate = model.features.sampling_rate
    yield from ("---", "library_name: gristmill", "pipeline_tag: automatic-speech-recognition", "license: other", "---")
    yield from ("", f"# {model.system}: {run.report['title'].lower()}", "")
    yield (
        f"A recogniser of speech at {rate:,} Hz, trained by the recipe `{run.recipe}` of Gristmill, a data system on "
        f"Ray. It is a CTC model of {model.parameters:,} parameters over log-mel features, whose outputs are "
        f"{model.units}; it writes lower case without punctuation. Of long recordings: {model.lengths.describe()}."
    )
    yield from ("", "| file | what it holds |", "| --- | --- |")
    yield "| `model.safetensors` | the weights; sizes, units and features in its metadata |"
    yield "| `units.json`, `features.json` | the same units and settings of features, for other tools |"
    yield "| `settings.json` | all settings of the recipe, those of the training, and how long its utterances were |"
    yield "| `model.onnx` | the network as a graph |"
    yield "| `artifact.json` | the SHA-256 of each of these |"
    yield ""
    yield (
        "The SHA-256 of the weights, the units and the settings are compared when Gristmill loads the model; that of "
        "the graph, which Gristmill does not load, when it is published again. This card has none: add to it."
    )


def _loading(model: PublishedModel) -> Iterator[str]:
    yield from ("", "## Use", "", "In a clone of Gristmill, `pip install .`; then, in this folder:", "")
    yield from ("    gristmill transcribe . my.wav", "", "```python")
    yield "from gristmill.pipelines.speech.transcribe import Transcriber"
    yield 'for one in Transcriber(".").transcribe("my.wav"):'
    yield from ("    print(one.start, one.text, one.confidence)", "```", "", model.onnx, "")
    yield from (
        "```python",
        "from gristmill.models.speech.decode import greedy",
        "from gristmill.models.speech.features import FeatureSettings, log_mel",
        "from gristmill.models.speech.units import Units",
        "import numpy as np",
        "import onnxruntime",
        "import soundfile",
        "",
        f"# one channel at {model.features.sampling_rate} Hz",
        'samples, rate = soundfile.read("my.wav", dtype="float32")',
        'features = log_mel(samples, FeatureSettings.from_json(open("features.json").read()))',
        'session = onnxruntime.InferenceSession("model.onnx")',
        'given = {"features": features[None].astype(np.float32), "lengths": np.array([len(features)])}',
        "log_probs, frames = session.run(None, given)",
        'print(Units.from_json(open("units.json").read()).decode(greedy(log_probs[0])))',
        "```",
        "",
    )


def _data(run: Finished, model: PublishedModel) -> Iterator[str]:
    """Yield the sets of speech that the model was made of, or tested on, and where they come from."""
    made_of = ancestors(run.report["lineage"], [model.digest])
    corpus = run.report["recipe"].get("corpus", {})
    roles = {
        "labelled": "training: speech and text",
        "unlabelled": "training: speech",
        "transcribed": "training: long recordings and their text",
        "test": "test",
    }
    yield from (
        "## Data",
        "",
        "| set | use | records | hours | from | licence |",
        "| --- | --- | --- | --- | --- | --- |",
    )
    for name, role in roles.items():
        if name in model.sizes and (name in made_of or name == "test"):
            records, hours = model.sizes[name]
            place, licence = _origin(name, corpus)
            yield f"| {name} | {role} | {records:,} | {hours:.2f} | {place} | {licence} |"
    noise = run.report["recipe"].get("noise", {}).get("folder")
    if "noise_bank" in made_of:
        licence = UNKNOWN if noise else "no recordings"
        yield f"| noise_bank | training: noise | – | – | {as_code(noise) if noise else 'generated'} | {licence} |"
    source = run.report["recipe"].get("teacher", {})
    if source.get("source", "trained") != "trained":
        place = as_code(source["model"]) if source.get("model") else source["source"]
        yield f"| – | labels by a teacher from outside | – | – | {place} | {UNKNOWN} |"
    yield from ("", f"It was made of: {', '.join(f'`{name}`' for name in made_of)}.", "")


def _origin(name: str, corpus: Mapping[str, Any]) -> tuple[str, str]:
    """Return where a set comes from, and its licence."""
    kind = corpus.get("kind")
    files = [corpus.get(part) for part in ("labelled", "unlabelled", "test")]
    if kind == "digits" or (kind is None and corpus.get("digits") and not any(files)):
        return as_code(corpus.get("digits")), UNKNOWN
    if kind == "files" or (kind is None and any(files)) or name == "transcribed":
        given = corpus.get(name) or corpus.get("labelled")  # a test part that is not given is held out of the labelled
        return as_code(given), UNKNOWN
    return "synthesised requests", _MIXED if corpus.get("voices") == "mixed" else _GENERATED
