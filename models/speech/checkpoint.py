"""Acoustic checkpoints: weights, sizes, units and feature settings in one safetensors file. Nothing is unpickled."""

from __future__ import annotations

import json

from gristmill.models.speech import plain_conformer
from gristmill.models.speech.acoustic import AcousticModel
from gristmill.models.speech.features import FeatureSettings
from gristmill.models.speech.plain_conformer import PlainConformer
from gristmill.models.speech.units import Units
from gristmill.models.weights import read_metadata
from gristmill.shards.errors import UserError, one_line

AcousticNetwork = AcousticModel | PlainConformer
"""What a checkpoint holds: features and lengths to log-probabilities and lengths."""
_NETWORKS: dict[str | None, type[AcousticModel] | type[PlainConformer]] = {
    None: AcousticModel,  # whose sizes name no kind
    plain_conformer.KIND: PlainConformer,
}


def save_acoustic(
    model: AcousticNetwork, units: Units, features: FeatureSettings, phones: Units | None = None
) -> bytes:
    """Return a checkpoint; the same weights give the same bytes. ``phones`` are those of the model's inner heads."""
    from safetensors.torch import save

    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    # safetensors keeps its metadata in a hash map whose order varies; one entry has only one order.
    described = {
        "config": model.sizes,
        "units": json.loads(units.to_json()),
        "features": features.described(),
    } | ({"phones": json.loads(phones.to_json())} if phones is not None else {})
    return save(tensors, metadata={"gristmill": json.dumps(described, sort_keys=True)})


def load_acoustic(data: bytes) -> tuple[AcousticNetwork, Units, FeatureSettings]:
    """Return (model in eval mode, units, feature settings); a pickle or another format is a ``UserError``."""
    from safetensors.torch import load

    described = json.loads(read_metadata(data).get("gristmill", "null"))
    if described is None:
        raise UserError("checkpoint: a safetensors file, but not of an acoustic model of this project")
    try:
        kind = described["config"].get("kind")
        if kind not in _NETWORKS:
            known = ", ".join(name for name in _NETWORKS if name)
            raise UserError(f"checkpoint: a network of kind {kind!r}; expected one of {known}, or none")
        model = _NETWORKS[kind].of(described["config"])
        units = Units.from_json(json.dumps(described["units"]))
        features = FeatureSettings.from_json(json.dumps(described["features"]))
        model.load_state_dict(load(data))
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"checkpoint: weights and description do not match: {one_line(error)}") from None
    return model.eval(), units, features


def read_phones(data: bytes) -> Units | None:
    """Return the phones of a checkpoint's inner heads; ``None`` if it has no head of phones."""
    phones = json.loads(read_metadata(data).get("gristmill", "null")).get("phones")
    return None if phones is None else Units.from_json(json.dumps(phones))
