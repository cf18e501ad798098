"""Context of single requests, by what re-rankers were trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gristmill.models.nlu.rerankers import Categorical, DomainReranker, Numeric
from gristmill.pipelines.requests.context import contexts
from gristmill.shards.errors import RejectRecord

SPECS = (
    Categorical("device", ("tv",)),
    Categorical("loud", ("true",)),
    Numeric("hour", 12, 3),
    Categorical("none", ()),
)
COLUMNS = contexts([DomainReranker("a", "R3", (), 0.0, SPECS), DomainReranker("b", "R3", (), 0.0, SPECS[::-1])])


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("device", "radio", "radio"),
        ("device", None, None),
        ("loud", False, "false"),
        ("loud", np.bool_(True), "true"),
        ("hour", np.int64(3), 3.0),
        ("hour", 2.5, 2.5),
        ("none", "tv", "tv"),
    ],
)
def test_a_value_is_as_the_column_was(name: str, given: Any, value: Any) -> None:
    assert COLUMNS[name].value(given) == value


@pytest.mark.parametrize(
    ("name", "given", "problem"),
    [
        ("device", True, '"device" is true or false; expected a text'),
        ("loud", "yes", '"loud" is a text; expected true or false'),
        ("hour", "20", '"hour" is a text; expected a number'),
        ("hour", {}, '"hour" is an object; expected a number'),
        ("hour", float("inf"), '"hour" is too large a number'),
    ],
)
def test_a_value_of_another_type_is_rejected(name: str, given: Any, problem: str) -> None:
    with pytest.raises(RejectRecord, match=problem):
        COLUMNS[name].value(given)
