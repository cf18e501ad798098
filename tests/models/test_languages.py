"""Tags, names and scripts of languages."""

import pytest

from gristmill.models.languages import base_language, is_language, is_tag, script_share, tags_of


def test_script_of_a_language():
    assert is_language("लाइट on करो", "hi")
    assert is_language("लाइट चालू", "hi-IN")
    assert not is_language("turn on the light", "hi")
    assert not is_language("लाइट चालू", "en_GB")
    assert is_language("123 !", "hi")
    assert not is_language("!", "hi")
    assert is_language("whatever", "tlh")
    assert script_share("whatever", "tlh") is None
    assert script_share("ab लल", "hi") == 0.5
    assert [base_language(tag) for tag in ("hi_IN", "hin", "eng-GB", "sr@latin", "mul", "")] == [
        *("hi", "hi", "en", "sr", "mul", ""),
    ]


@pytest.mark.parametrize(
    ("tag", "base"),
    [
        ("Hindi", "hi"),
        ("hindi ", "hi"),
        ("Norwegian Bokmål", "nb"),
        ("Norwegian Nynorsk", "nn"),
        ("Brazilian Portuguese", "pt"),
        ("Chinese (Simplified)", "zh"),
        ("no", "nb"),
        ("nb_NO", "nb"),
        ("nno", "nn"),
        ("lao", "lo"),  # a tag, and a name
        ("iw", "he"),
        ("klingon", "klingon"),
    ],
)
def test_tags_and_names(tag, base):
    assert base_language(tag) == base
    assert is_tag(tag) == (len(base) < 4)


def test_tags_that_mean_the_same():
    assert tags_of("no") == ["no", "nb"]
    assert tags_of("nb") == ["nb", "no"]
    assert tags_of("zh-CN") == ["zh-CN", "zh"]
    assert tags_of("hi") == ["hi"]
