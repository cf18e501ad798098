"""Tuning of rescoring and filtering: the candidate that is best on the development text is chosen."""

import json
import random

import pyarrow as pa
import pytest

from gristmill.actors.text.lm_tuning import Tuning, TuningSettings, tune
from gristmill.models.ngrams.estimate import NgramSettings, estimate
from gristmill.shards.artifact import put_artifact
from gristmill.shards.dataset import seal_tables
from gristmill.shards.errors import SettingsError
from gristmill.shards.schema import TRANSLATIONS_FIELD

pytest.importorskip("kenlm")

VERBS, THINGS = ["on", "off", "up", "down"], [f"lamp{n}" for n in range(12)]


class Silent:
    rank, world_size = 0, 1

    def resume(self) -> None:
        return None

    def report(self, metrics: dict, checkpoint: bytes | None = None) -> None:
        assert metrics


def text(rng: random.Random) -> str:
    return f"turn {rng.choice(VERBS)} the {rng.choice(THINGS)}"


NGRAMS = NgramSettings(order=3)


@pytest.fixture
def inputs(tmp_path) -> dict:
    """Each list has a scrambled text that the translator likes best and, in two records of three, a good one."""
    rng = random.Random(0)
    from gristmill.actors.text.language_model import LanguageModel

    words = sorted({*VERBS, *THINGS, "turn", "the", "blah", "bloh"})
    own = [text(rng).split() for _ in range(30)]
    model = estimate(own, NGRAMS, words)
    put_artifact(str(tmp_path / "lm"), {"lm.arpa": model.to_bytes()}, {})
    put_artifact(str(tmp_path / "words"), {"vocabulary.txt": "\n".join(words).encode()}, {})
    rows = []
    with LanguageModel.of(model) as lm:
        for n in range(300):
            bad = " ".join(rng.sample(["the", "blah", "turn", "bloh", "on"], 5))
            some = [{"text": bad, "logprob": -1.0, "units": 5}]
            if n % 3:
                some.append({"text": text(rng), "logprob": -1.5, "units": 5})
            logprobs = [lm.score(one["text"].split())[0] for one in some]
            rows.append({"id": f"r{n}", "translations": some, "lm_logprobs": logprobs})
    schema = pa.schema(
        [pa.field("id", pa.string()), TRANSLATIONS_FIELD, pa.field("lm_logprobs", pa.list_(pa.float32()))]
    )
    lists = seal_tables(str(tmp_path / "lists"), "lists", iter([pa.Table.from_pylist(rows, schema)]))
    dev = pa.table({"id": [f"d{n}" for n in range(60)], "text": [text(rng) for _ in range(60)]})
    sealed = seal_tables(str(tmp_path / "dev"), "dev", iter([dev]))
    return {
        "translations": lists.url,
        "lm": str(tmp_path / "lm"),
        "dev": [sealed.url, "text"],
        "vocabulary": str(tmp_path / "words"),
    }


def tuned(inputs: dict, *keeps: float) -> dict:
    settings = Tuning(weights=(0.2, 1.0), keeps=keeps, ngrams=NGRAMS)
    return json.loads(tune(settings, Silent(), **inputs)["files"]["choice.json"])


def test_the_candidate_with_the_lowest_perplexity_is_chosen(inputs: dict) -> None:
    choice = tuned(inputs, 1.0, 0.6, 0.3)
    assert choice["rescoring"]["weight"] > 0
    assert choice["rescoring"]["least"] is None
    together = dict(choice["perplexities"]["together"])
    assert choice["keep_together"] == min(together, key=together.get) < 1.0
    assert min(together.values()) < min(dict(choice["perplexities"]["rescoring"]).values())
    assert choice["together"]["least"] < 0
    assert tuned(inputs, 1.0, 0.6, 0.3) == choice


def test_the_threshold_keeps_the_share_that_was_tried(inputs: dict) -> None:
    from gristmill.actors.text.choose import ChoiceSettings, Choose
    from gristmill.shards.dataset import open_sealed

    choice = tuned(inputs, 0.3)
    given = open_sealed(inputs["translations"]).read(0)
    given = given.append_column("text", given["id"])
    rule = ChoiceSettings(source_lang="en", target_lang="hi", **choice["together"])
    made = Choose.stage(rule).build(0)(given)
    kept = pa.compute.is_null(made["reject_reason"]).to_pylist()
    assert sum(kept) == pytest.approx(90, abs=25)  # equal scores are on one side
    assert all("lamp" in target for target, keep in zip(made["target"].to_pylist(), kept, strict=True) if keep)


@pytest.mark.parametrize("wrong", [{"keeps": [0.0]}, {"keeps": [1.5]}, {"keeps": []}, {"weights": []}])
def test_candidates_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(SettingsError, match=f"TuningSettings: {next(iter(wrong))}"):
        TuningSettings(**wrong)
