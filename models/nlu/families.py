"""The families of domain models by name, and how a stored model of any family is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from gristmill.models.nlu.domain import FAMILIES, FORMAT, DomainModel, FamilySettings
from gristmill.shards.errors import UserError


class Family(NamedTuple):
    """A family of domain models: its settings and its model."""

    settings: type[FamilySettings]
    model: type[DomainModel]


def family_of(name: str) -> Family:
    """Return the family named, one of ``FAMILIES``. Only that one is imported: the neural one loads torch."""
    if name == "linear":
        from gristmill.models.nlu import linear

        return Family(linear.LinearSettings, linear.LinearModel)
    from gristmill.models.nlu import neural

    return Family(neural.NeuralSettings, neural.NeuralModel)


def load(files: Mapping[str, bytes]) -> DomainModel:
    """Return the model stored in files, of any family.

    Raises:
        UserError: the files are not those of a domain model, are of another version, or do not match each other.
    """
    try:
        described = json.loads(files.get("model.json", b"null"))
    except ValueError:
        described = None
    if not isinstance(described, dict) or not {"format", "family", "domain", "intents"} <= set(described):
        raise UserError(f"domain model: {sorted(files)}; expected a model.json that describes one")
    if described["format"] != FORMAT or described["family"] not in FAMILIES:
        raise UserError(
            f"domain model {described['domain']!r}: format {described['format']} of family {described['family']!r}; "
            f"expected format {FORMAT} of {' or '.join(FAMILIES)}"
        )
    try:
        return family_of(described["family"]).model.from_files(described, files)
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
        raise UserError(f"domain model {described['domain']!r}: its files do not match each other: {error}") from None
