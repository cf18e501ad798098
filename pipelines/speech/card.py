"""The card of a published recogniser: where its data come from, how well it recognises, and how it is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gristmill.models.speech.features import FeatureSettings
from gristmill.pipelines.finished import Finished
from gristmill.pipelines.report.measures import PERCENT
from gristmill.shards.safe_text import redacted

_UNKNOWN = "not known to Gristmill: state it before you pass the model on"
_GENERATED = "Apache-2.0: sentences of `home-assistant-intents`, spoken by `hibari-tts`"
_MIXED = f"{_GENERATED} and by eSpeak NG, a program under the GPL-3.0-or-later"


@dataclass(frozen=True)
class PublishedModel:
    """What a card says of a model beside its run."""

    system: str
    seed: int
    digest: str
    parameters: int
    units: str
    """Their kind and number, in words."""
    features: FeatureSettings
    onnx: str
    """A sentence on the ONNX graph, or why there is none."""
    has_onnx: bool
    sizes: Mapping[str, tuple[int, float]]
    """Records and hours of the sets of speech, by name."""


def write_card(run: Finished, model: PublishedModel) -> str:
    """Return ``README.md``."""
    return "\n".join(
        [*_head(run, model), *_loading(model), *_figures(run, model), *_data(run, model), *_rest(run, model)]
    )


def _head(run: Finished, model: PublishedModel) -> Iterator[str]:
    rate = model.features.sampling_rate
    yield from ("---", "library_name: gristmill", "pipeline_tag: automatic-speech-recognition", "license: other", "---")
    yield from ("", f"# {model.system}: {run.report['title'].lower()}", "")
    yield (
        f"A recogniser of speech at {rate:,} Hz, trained by the recipe `{run.recipe}` of Gristmill, a data system on "
        f"Ray. It is a CTC model of {model.parameters:,} parameters over log-mel features, whose outputs are "
        f"{model.units}; it writes lower case without punctuation."
    )
    yield from ("", "| file | what it holds |", "| --- | --- |")
    yield "| `model.safetensors` | the weights; sizes, units and features in its metadata |"
    yield "| `units.json`, `features.json` | the same units and settings of features, for other tools |"
    yield "| `settings.json` | all settings of the recipe, and those of the training |"
    if model.has_onnx:
        yield "| `model.onnx` | the network as a graph |"
    yield "| `artifact.json` | the SHA-256 of each of these |"
    not_graph = (
        "; that of the graph, which Gristmill does not load, when it is published again" if model.has_onnx else ""
    )
    yield ""
    yield (
        "The SHA-256 of the weights, the units and the settings are compared when Gristmill loads the model"
        f"{not_graph}. This card has none: add to it."
    )


def _loading(model: PublishedModel) -> Iterator[str]:
    yield from ("", "## Use", "", "In a clone of Gristmill, `pip install .`; then, in this folder:", "")
    yield from ("    gristmill transcribe . my.wav", "", "```python")
    yield "from gristmill.pipelines.speech.transcribe import Transcriber"
    yield 'for one in Transcriber(".").transcribe("my.wav"):'
    yield from ("    print(one.start, one.text, one.confidence)", "```", "", model.onnx, "")
    if not model.has_onnx:
        return
    yield from (
        "```python",
        "import numpy as np",
        "import onnxruntime",
        "import soundfile",
        "from gristmill.models.speech.decode import greedy",
        "from gristmill.models.speech.features import FeatureSettings, log_mel",
        "from gristmill.models.speech.units import Units",
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


def _figures(run: Finished, model: PublishedModel) -> Iterator[str]:
    report = run.report
    measure = next(one for one in report["measures"] if one["name"] == report["metric"])
    scale, unit = (100.0, " %") if measure["unit"] == PERCENT.name else (1.0, "")
    rows = [row for row in report["metrics"] if row["metric"] == report["metric"] and row["seed"] is None]
    baseline = report["baseline"]
    seeds = report.get("run", {}).get("seeds", [0])
    yield from ("## Figures", "")
    several = f"means over seeds {', '.join(map(str, seeds))}, of which this model is of {model.seed}; "
    yield f"{measure['label']} of `{model.system}` ({several if len(seeds) > 1 else ''}95 % bootstrap intervals):"
    theirs = {row["test_set"]: row["value"] for row in rows if row["system"] == baseline != model.system}
    beside = f" `{baseline}` |" if theirs else ""
    yield from ("", f"| test set | {measure['label']} | interval | of |{beside}", "| --- " * (4 + bool(beside)) + "|")
    for row in rows:
        if row["system"] == model.system:
            own, low, high = (_shown(row[name], scale, unit) for name in ("value", "low", "high"))
            other = f" {_shown(theirs.get(row['test_set']), scale, unit)} |" if theirs else ""
            yield f"| {row['test_set']} | {own} | {low} to {high} | {row['n']:,} reference words |{other}"
    yield ""


def _shown(value: float | None, scale: float, unit: str) -> str:
    return "–" if value is None else f"{value * scale:.1f}{unit}"


def _data(run: Finished, model: PublishedModel) -> Iterator[str]:
    """Yield the sets of speech that the model was made of, or tested on, and where they come from."""
    made_of = _ancestors(run.report["lineage"], model.digest)
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
        licence = _UNKNOWN if noise else "no recordings"
        yield f"| noise_bank | training: noise | – | – | {_code(noise) if noise else 'generated'} | {licence} |"
    source = run.report["recipe"].get("teacher", {})
    if source.get("source", "trained") != "trained":
        place = _code(source["model"]) if source.get("model") else source["source"]
        yield f"| – | labels by a teacher from outside | – | – | {place} | {_UNKNOWN} |"
    yield from ("", f"It was made of: {', '.join(f'`{name}`' for name in made_of)}.", "")


def _origin(name: str, corpus: Mapping[str, Any]) -> tuple[str, str]:
    """Return where a set comes from, and its licence."""
    kind = corpus.get("kind")
    files = [corpus.get(part) for part in ("labelled", "unlabelled", "test")]
    if kind == "digits" or (kind is None and corpus.get("digits") and not any(files)):
        return _code(corpus.get("digits")), _UNKNOWN
    if kind == "files" or (kind is None and any(files)) or name == "transcribed":
        given = corpus.get(name) or corpus.get("labelled")  # a test part that is not given is held out of the labelled
        return _code(given), _UNKNOWN
    return "synthesised requests", _MIXED if corpus.get("voices") == "mixed" else _GENERATED


def _code(places: Any) -> str:
    """Return places as code; of a path on the machine of the run its last two names."""
    given = [places] if isinstance(places, str) else places or []
    return ", ".join(f"`{redacted(place if '://' in place else '/'.join(place.split('/')[-2:]))}`" for place in given)


def _ancestors(lineage: Sequence[Mapping[str, Any]], digest: str) -> list[str]:
    """Return the names of what the model of a digest was made of, inputs first."""
    inputs = {node["name"]: node["inputs"] for node in lineage}
    waiting = [node["name"] for node in lineage if node["digest"] == digest]
    found: set[str] = set()
    while waiting:
        for name in inputs.get(waiting.pop(), ()):
            if name not in found:
                found.add(name)
                waiting.append(name)
    return [node["name"] for node in lineage if node["name"] in found]


def _rest(run: Finished, model: PublishedModel) -> Iterator[str]:
    versions = ", ".join(f"{name} {version}" for name, version in run.report.get("versions", {}).items())
    yield from (
        "## Where it comes from",
        "",
        f"Digest of the training's artifact: `{model.digest}`. Made with {versions}.",
    )
    yield ""
