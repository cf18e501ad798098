"""The card of published models that read requests: what they are, how they are loaded and how well they read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gristmill.pipelines.card import UNKNOWN, ancestors, as_code, figures, origin
from gristmill.pipelines.finished import Finished
from gristmill.pipelines.requests.reading import RequestModels

_GENERATED = "Apache-2.0: sentences of `home-assistant-intents`"
_SHOWN = ("semer", "f1", "exact", "false_accept", "accuracy")


def write_card(run: Finished, given: RequestModels, *, copied: bool) -> str:
    """Return ``README.md``; ``copied``: the model of sentence embeddings lies in the folder."""
    digests = [one.digest for one in (*given.models.values(), *given.weights.values())]
    return "\n".join(
        [
            *_head(run, given, copied),
            *_loading(given, copied),
            *_figures(run, given),
            *_data(run, digests, given.embedder.embedder if given.embedder else None),
            *origin(run, digests),
        ]
    )


def _head(run: Finished, given: RequestModels, copied: bool) -> Iterator[str]:
    yield from ("---", "library_name: gristmill", "pipeline_tag: text-classification", "license: other", "---")
    yield from ("", f"# {given.system}: {run.report['title'].lower()}", "")
    names = ", ".join(f"`{name}`" for name in given.models)
    what = (
        f"Recognisers of the functions {names}: each accepts a request or not"
        if given.kind == "functions"
        else f"Models of the domains {names}, whose readings are ranked"
    )
    yield (
        f"{what}. Each gives the intent and the slots of a request, which is a text without punctuation at its end. "
        f"Trained by the recipe `{run.recipe}` of Gristmill, a data system on Ray."
    )
    yield from ("", "| file | what it holds |", "| --- | --- |")
    yield "| `models/` | a folder for each domain: its model, as its training committed it |"
    if given.weights:
        yield "| `weights/` | the same of the re-rankers |"
    if copied:
        yield "| `embedder/` | the sentence-transformers model that the models read |"
    yield "| `settings.json` | all settings of the recipe, and what reads by what |"
    yield "| `artifact.json` | the SHA-256 of each of these |"
    yield from ("", "The SHA-256 are compared when Gristmill loads the models. This card has none: add to it.", "")


def _loading(given: RequestModels, copied: bool) -> Iterator[str]:
    extra = "" if given.embedder is None else "'.[translation]'"
    yield from ("## Use", "", f"In a clone of Gristmill, `pip install {extra or '.'}`; then, in this folder:", "")
    yield from ("    gristmill annotate . requests.txt", "", "```python")
    yield "from gristmill.pipelines.requests.annotate import RequestAnnotator"
    yield 'for one in RequestAnnotator(".").annotate("wake me at nine"):'
    yield from ("    print(one.domain, one.intent, one.slots, one.confidence)", "```", "")
    if given.embedder is not None and not copied:
        yield from (f"The models read the sentence embeddings of `{given.embedder.embedder}`, found by its name.", "")


def _figures(run: Finished, given: RequestModels) -> Iterator[str]:
    if run.unmeasured:
        yield from ("## Figures", "", "Nothing was measured: the run had no test.", "")
        return
    shown = {run.report["metric"], *_SHOWN}
    yield from figures(run, given.system, "requests", shown)


def _data(run: Finished, digests: list[str], embedder: str | None) -> Iterator[str]:
    """Yield where the requests come from, and the sets that the models were made of."""
    recipe = run.report["recipe"]
    yield from ("## Data", "", "| what | from | licence |", "| --- | --- | --- |")
    for what, places in _places(recipe, embedder):
        yield f"| {what} | {as_code(places) if places else 'generated'} | {UNKNOWN if places else _GENERATED} |"
    nodes = {node["name"]: node for node in run.report["lineage"]}
    direct = [name for node in nodes.values() if node["digest"] in digests for name in node["inputs"]]
    rows = {name: nodes[name]["rows"] for name in direct if name in nodes and nodes[name]["rows"] is not None}
    if rows:
        yield from ("", "| trained on the set | records |", "| --- | --- |")
        yield from (f"| {name} | {count:,} |" for name, count in rows.items())
    above = ancestors(list(nodes.values()), digests)
    sources = ", ".join(f"`{name}`" for name in above if nodes[name]["kind"] == "source")
    yield from ("", f"They were made of {len(above):,} results of the run, all of which came of {sources}.", "")


def _places(recipe: dict[str, Any], embedder: str | None) -> Iterator[tuple[str, Any]]:
    yield "annotated requests", recipe.get("corpus", {}).get("places")
    if recipe.get("pool"):
        yield "text without labels", recipe["pool"]
    for one in recipe.get("own", ()):
        yield f"annotated requests of {one['name']}", one["seeds"]
    if embedder is not None:
        yield "sentence embeddings", embedder
