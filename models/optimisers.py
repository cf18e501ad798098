"""The state of an optimiser as named tensors, so that training resumes from safetensors."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.optim import Optimizer

_PREFIX = "optimiser."


def state_tensors(optimiser: Optimizer) -> dict[str, Tensor]:
    """Return the optimiser's state of each parameter, as ``optimiser.<place>.<name>``."""
    return {
        f"{_PREFIX}{place}.{name}": value.detach().cpu().contiguous()
        for place, state in optimiser.state_dict()["state"].items()
        for name, value in state.items()
    }


def load_state_tensors(optimiser: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore the state from :func:`state_tensors`; tensors of other names are ignored."""
    state = optimiser.state_dict()
    for name, value in tensors.items():
        if name.startswith(_PREFIX):
            _, place, key = name.split(".")
            # The step counter stays on the CPU, where the optimiser keeps it.
            state["state"].setdefault(int(place), {})[key] = value.cpu() if key == "step" else value
    optimiser.load_state_dict(state)
