"""Settings of domains: the family determines the known ones, and values that are set are not drawn."""

from __future__ import annotations

import pytest

from gristmill.models.nlu.linear import LinearSettings
from gristmill.models.nlu.neural import NeuralSettings
from gristmill.pipelines.nlu.systems import DomainSettings, _domain_job
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import SettingsError

SPLIT = SealedSet("split", {"digest": "0", "schema": ""})


def test_the_family_decides_which_settings_there_are() -> None:
    assert isinstance(DomainSettings().settings, LinearSettings)
    assert isinstance(DomainSettings(family="neural").settings, NeuralSettings)
    assert DomainSettings(family="neural", settings={"epochs": 2}).settings == NeuralSettings(epochs=2)
    for wrong, message in (
        ({"settings": {"epochs": 2}}, "epochs: there is no such setting"),
        ({"family": "neural", "settings": {"min_count": 1}}, "min_count: there is no such setting"),
        ({"settings": {"domain_c": 0, "iterations": 0}}, "domain_c: 0 is not right.*; iterations: 0 is not right"),
        ({"settings": 3}, "settings"),
        ({"family": "forest"}, "family"),
    ):
        with pytest.raises(SettingsError, match=message):
            DomainSettings(**wrong)


def test_what_is_given_is_not_drawn_also_when_it_is_read_again() -> None:
    for given in (DomainSettings(), DomainSettings(settings={"domain_c": 30.0, "min_count": 1})):
        kept = given.model_dump(mode="json")
        again = DomainSettings.model_validate(kept)
        assert kept["settings"] == given.settings.model_dump(exclude_unset=True)
        first, second = (_domain_job(one, SPLIT, "alarm", -1, 0, "domain_models").settings for one in (given, again))
        assert first == second
    drawn, set_ = (
        _domain_job(DomainSettings(settings=more), SPLIT, "alarm", 1, 0, "domain_models").settings.model
        for more in ({}, {"domain_c": 30.0})
    )
    assert drawn.domain_c == drawn.intent_c == set_.intent_c != set_.domain_c == 30.0
    assert drawn.negatives == set_.negatives != LinearSettings().negatives
