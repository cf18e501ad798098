"""The small stages on text: its spoken form, its parts, the channel, and the choice among translations."""

import json

import numpy as np
import pyarrow as pa
import pytest

from gristmill.actors.text import choose, confuse
from gristmill.actors.text.parts import Subset, SubsetSettings, TextParts, TextPartSettings
from gristmill.actors.text.spoken import Spoken, SpokenSettings, SpokenTranslations, SpokenTranslationsSettings
from gristmill.models.text.confusions import ChannelSettings
from gristmill.shards.artifact import put_artifact
from gristmill.shards.errors import SettingsError
from gristmill.shards.random import RecordRandom
from gristmill.shards.schema import TRANSLATIONS_FIELD


def table(**columns: list) -> pa.Table:
    size = len(next(iter(columns.values())))
    return pa.table({"id": [f"r{n}" for n in range(size)], **columns})


def test_spoken_text_is_lower_case_without_punctuation() -> None:
    given = table(source=["Turn ON, please!", "...", "ok"], target=["चालू करें।", "क", "?!"])
    made = Spoken.stage(SpokenSettings(columns={"source": "en", "target": "hi"})).build(0)(given)
    assert made["source"].to_pylist() == ["turn on please", "", "ok"]
    assert made["target"].to_pylist() == ["चालू करें", "क", ""]
    assert made["reject_reason"].to_pylist() == [None, "no word: source", "no word: target"]


def test_equal_spoken_translations_are_merged() -> None:
    some = [{"text": "चालू करें।", "logprob": -1.0, "units": 3}, {"text": "चालू करें", "logprob": -2.0, "units": 2}]
    some.append({"text": "।", "logprob": -3.0, "units": 1})
    given = table(text=["x", "y"]).append_column(TRANSLATIONS_FIELD, pa.array([some, []], TRANSLATIONS_FIELD.type))
    made = SpokenTranslations.stage(SpokenTranslationsSettings(lang="hi")).build(0)(given)["translations"].to_pylist()
    assert made == [[{"text": "चालू करें", "logprob": -1.0, "units": 3}], []]


def test_equal_texts_are_in_one_part_and_small_shares_are_within_large_ones() -> None:
    given = table(text=[f"text {n // 2}" for n in range(4000)])
    made = TextParts.stage(TextPartSettings(dev=0.1, test=0.2)).build(3)(given)
    dealt = np.array(made["part"].to_pylist())
    assert (dealt[::2] == dealt[1::2]).all()
    assert {name: round(float((dealt == name).mean()), 1) for name in set(dealt)} == {
        "train": 0.7,
        "dev": 0.1,
        "test": 0.2,
    }
    kept = {}
    for share in (1.0, 0.1, 0.05):
        out = Subset.stage(SubsetSettings(parts=("train",), share=share)).build(0)(made)
        kept[share] = set(out.filter(pa.compute.is_null(out["reject_reason"]))["text"].to_pylist())
    assert kept[0.05] < kept[0.1] < kept[1.0]
    assert len(kept[0.1]) == pytest.approx(140, rel=0.35)
    both = Subset.stage(SubsetSettings(parts=("dev", "test"), share=0.05)).build(0)(made)
    left = both.filter(pa.compute.is_null(both["reject_reason"]))
    assert set(left["part"].to_pylist()) == {"dev", "test"}
    assert len(left) == int((dealt != "train").sum())


@pytest.mark.parametrize(
    ("dev", "test", "message"), [(0.0, 0.2, "greater than 0"), (0.5, 0.5, "expected a sum below 1")]
)
def test_shares_that_leave_no_training_are_rejected(dev: float, test: float, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        TextPartSettings(dev=dev, test=test)


def test_the_channel_does_not_depend_on_the_batch(tmp_path) -> None:
    put_artifact(str(tmp_path / "words"), {"vocabulary.txt": "का\nकी\nपंखा\nपंखे\n".encode()}, {})
    actor = confuse.Confuse(
        ChannelSettings(candidates=3, width=0.5, n=5),
        vocabulary=str(tmp_path / "words"),
        rng=RecordRandom(0, "confuse"),
    )
    given = table(text=["पंखा का", "की", "पंखे"])
    whole = actor(given)["nbest"].to_pylist()
    alone = [actor(given.slice(n, 1))["nbest"].to_pylist()[0] for n in range(3)]
    assert whole == alone
    assert [len(some) for some in whole] == [5, 4, 4]
    assert json.dumps(whole) != json.dumps([some[:1] for some in whole])


TRANSLATED = [
    {"text": "a b", "logprob": -2.0, "units": 2},  # -1 per unit
    {"text": "c d e", "logprob": -4.4, "units": 4},  # -1.1 per unit
]
IN_DOMAIN = [-9.0, -4.0]  # -3 and -1 per word, end included


@pytest.mark.parametrize(
    ("weight", "least", "target", "reason"),
    [
        (0.0, None, "a b", None),
        (0.04, None, "a b", None),
        (0.06, None, "c d e", None),  # 0.1 per unit is outweighed by 2 x 0.06
        (0.0, -2.9, "a b", choose.IMPROBABLE),
        (1.0, -2.9, "c d e", None),
    ],
)
def test_rescoring_and_filtering(weight: float, least: float | None, target: str, reason: str | None) -> None:
    given = table(text=["x", "y"], lm_logprobs=[IN_DOMAIN, []])
    given = given.append_column(TRANSLATIONS_FIELD, pa.array([TRANSLATED, []], TRANSLATIONS_FIELD.type))
    settings = choose.ChoiceSettings(source_lang="en", target_lang="hi", weight=weight, least=least)
    stage = choose.Choose.stage(settings)
    made = stage.build(0)(given)
    assert made["target"].to_pylist()[0] == target
    assert made["reject_reason"].to_pylist() == [reason, choose.NONE]
    assert made["source"].to_pylist() == ["x", "y"]
    assert made["target_lang"].to_pylist() == ["hi", "hi"]
    assert {field.name for field in stage.adds} <= set(made.column_names)
