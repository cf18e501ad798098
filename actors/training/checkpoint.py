"""Checkpoints of the loop: named tensors in parts, and numbers, as one safetensors file. Nothing is unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gristmill.models.weights import read_metadata

_KEY = "training"  # of the metadata


def pack(parts: Mapping[str, Mapping[str, Tensor]], moments: Mapping[str, Tensor], written: Mapping[str, Any]) -> bytes:
    """Return a checkpoint of tensors by part and name, an optimiser's state, and JSON values."""
    from safetensors.torch import save

    named = {f"{part}.{name}": value for part, tensors in parts.items() for name, value in tensors.items()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in named.items()}
    return save({**tensors, **moments}, metadata={_KEY: json.dumps(written)})


def unpack(
    data: bytes, device: torch.device, parts: Sequence[str]
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor], dict[str, Any]] | None:
    """Return what :func:`pack` was given, on a device; ``None`` if the checkpoint was written by an earlier version."""
    from safetensors.torch import load

    written = json.loads(read_metadata(data).get(_KEY, "null"))
    if not isinstance(written, dict) or not {"done", "counts", "chosen", "curves"} <= set(written):
        return None
    found: dict[str, dict[str, Tensor]] = {part: {} for part in parts}
    moments = {}
    for name, value in load(data).items():
        part, _, rest = name.partition(".")
        if part in found:
            found[part][rest] = value.to(device)
        else:
            moments[name] = value.to(device)
    return found, moments, written


def buffers(module: nn.Module) -> dict[str, Tensor]:
    """Return the buffers of a network that are part of its state."""
    state = module.state_dict()
    return {name: value for name, value in module.named_buffers() if name in state}
