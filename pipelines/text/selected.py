"""Translators of selected pairs: a selection for each size of in-domain text, and a comparison of methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from gristmill.pipelines.run import Run
from gristmill.pipelines.text.domain_texts import DomainTexts
from gristmill.pipelines.text.selection import Method, SelectionSettings, check_selection, embed, select_pairs
from gristmill.pipelines.text.systems import Bootstrap, Key
from gristmill.pipelines.text.translators import TuneSettings
from gristmill.shards.dataset import SealedSet


class SelectedSettings(SelectionSettings):
    """The selection, and the training of a translator on it."""

    start: Literal["base", "scratch"] = "base"
    """The initial translator: that of all pairs, fine-tuned, or one from scratch."""
    tune: TuneSettings = TuneSettings(epochs=4, lr=1e-3)
    """The fine-tuning of the translator of all pairs."""
    compare: bool = False
    """Also train translators from scratch on equally many pairs, chosen by each method: the systems ``centroid_share``,
    ``moore_lewis_share`` and ``random_share``."""


def check_selected(settings: SelectedSettings) -> None:
    """Check that the embedder and the packages that the methods need are installed."""
    check_selection(settings)
    for method in get_args(Method) if settings.compare else ():
        # The other methods choose equally many pairs, whatever the radius.
        check_selection(settings.but(method=method, radius=None))


def select(
    run: Run, settings: SelectedSettings, corpora: DomainTexts, texts: Mapping[int, SealedSet]
) -> dict[int, SealedSet]:
    """Return the pairs most similar to the in-domain text of each size."""
    pairs, texts = compared(run, settings, corpora, texts)
    return {size: select_pairs(run, f"selected_1-{size}", pairs, text, settings) for size, text in texts.items()}


def compared(
    run: Run, settings: SelectionSettings, corpora: DomainTexts, texts: Mapping[int, SealedSet]
) -> tuple[SealedSet, Mapping[int, SealedSet]]:
    """Return the pairs and the in-domain texts as input of a selection: embedded, or as they are."""
    if settings.method != "centroid":
        return corpora.pairs, texts
    pairs = embed(run, "embedded_pairs", corpora.pairs, "target", settings)
    return pairs, {
        size: embed(run, f"embedded_in_domain_1-{size}", text, "text", settings) for size, text in texts.items()
    }


def compare(
    run: Run, make: Bootstrap, settings: SelectedSettings, corpora: DomainTexts, picked: Mapping[int, SealedSet]
) -> dict[str, dict[Key, SealedSet]]:
    """Test translators trained from scratch on equally many pairs, chosen by each method."""
    size = min(picked)
    count = picked[size].records
    found = {}
    for method in get_args(Method):
        how = settings.but(method=method, radius=None)
        pairs, texts = compared(run, how, corpora, {size: make.texts[size]})
        name, given = f"{method}_share", (pairs, texts[size], how)
        if method == "random":
            chosen = {seed: select_pairs(run, f"{name}_{seed}", *given, seed=seed, count=count) for seed in run.seeds}
        elif method == settings.method:
            chosen = dict.fromkeys(run.seeds, picked[size])
        else:
            chosen = dict.fromkeys(run.seeds, select_pairs(run, f"{name}_0", *given, count=count))
        data = {(size, seed): [some] for seed, some in chosen.items()}
        found[name] = make.tested(name, make.translators(f"{name}_translator", data))
    return found
