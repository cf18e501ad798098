"""The recogniser of the pip package ``hama`` as a checkpoint of this project, so that its layers can be heard and used.

The package runs its network in an engine of its own and gives log-probabilities only. Its weights are a table of
tensors (version 1.7: names as an ONNX export left them, half precision), which is read here: log-mel features with the
mel filters that lie beside the weights, and a Conformer without position encodings. The package clips samples to full
scale and stops after 30 s of an utterance; neither is done here.
"""

from __future__ import annotations

import struct
from importlib import metadata

import numpy as np
import torch
from torch import Tensor

from gristmill.actors.speech.teacher_hama import SAMPLING_RATE, describe, tokens, unit_order, weights
from gristmill.models.speech.checkpoint import save_acoustic
from gristmill.models.speech.features import FeatureSettings, filters, taper
from gristmill.models.speech.plain_conformer import PlainConformer, PlainConformerSettings
from gristmill.shards.errors import UserError, one_line

FEATURES = FeatureSettings(
    n_mels=80,
    low_hz=40.0,
    high_hz=7600.0,
    preemphasis=0.0,
    floor=1e-10,
    normalise="none",
    style="slaney",
    whole_bins=True,
    sampling_rate=SAMPLING_RATE,
)
"""The features of the package, which rounds them to half precision as this project does."""
SIZES = PlainConformerSettings(dim=144, layers=4, heads=4, ff_factor=4, kernel=31)

_MAGIC = b"HAMAPK\x01\x02"  # the package's format, and its number for the recogniser
_TYPES = (np.dtype("<f4"), np.dtype("<f2"))
_ALIGNMENT = 16  # bytes, of the values behind the table
_PREFIX = "acoustic_model.model."
_FEATURE_TENSORS = ("stft_real_kernel", "stft_imag_kernel", "mel_fb")
_NAMED = (  # modules of a block there and here
    ("ffn1.norm", "first.0"),
    ("attn_norm", "attention.norm"),
    ("conv.norm", "convolution.norm"),
    ("conv.pointwise1", "convolution.gate"),
    ("conv.pointwise2", "convolution.out"),
    ("ffn2.norm", "second.0"),
    ("norm", "norm"),
)
_UNNAMED = (  # biases of a block there, and modules here: the matrices have lost their names
    ("ffn1.fc1.bias", "first.1"),
    ("ffn1.fc2.bias", "first.3"),
    ("attn.in_proj_bias", "attention.qkv"),
    ("attn.out_proj.bias", "attention.out"),
    ("ffn2.fc1.bias", "second.1"),
    ("ffn2.fc2.bias", "second.3"),
)


def hama_checkpoint() -> bytes:
    """Return the package's recogniser as a safetensors checkpoint: the same bytes for the same version.

    The network is a :class:`~gristmill.models.speech.plain_conformer.PlainConformer` over :data:`FEATURES`; its units
    are those of the teacher ``hama``. What is written as ``model.safetensors`` to a folder or an artifact can be used
    wherever a model of this project is.

    Raises:
        UserError: the package is not installed, or this version of it keeps its weights in another way.

    Example:
        >>> from gristmill.models.speech.checkpoint import load_acoustic
        >>> network, units, features = load_acoustic(hama_checkpoint())
        >>> len(units), features.n_mels, network.subsampling
        (191, 80, 2)
    """
    given, units = tokens(), describe().units
    try:
        table = read_table(weights())
        _check_features(table)
        state = _state(table)
        for name in ("head.weight", "head.bias"):
            state[name] = state[name][unit_order(given)]
        network = PlainConformer(SIZES, FEATURES.n_mels, len(units))
        network.load_state_dict(state)
    except (FileNotFoundError, IndexError, KeyError, RuntimeError, StopIteration, ValueError, struct.error) as error:
        raise UserError(
            f"hama {metadata.version('hama')}: the weights of its recogniser are not as in version 1.7, which is the "
            f"one that can be read: {one_line(error)}"
        ) from None
    return save_acoustic(network, units, FEATURES)


def read_table(data: bytes) -> dict[str, np.ndarray]:
    """Return the tensors of the package's file in their order, as float32.

    A file is its magic, the number of tensors (uint32), for each its name (uint16 length, UTF-8), type (0 float32, 1
    float16) and rank (a byte each), shape (uint32 each), offset and size in bytes (uint64 both), and from the next
    multiple of 16 bytes on the values; all little-endian.

    Raises:
        ValueError: the bytes are something else, or have been cut; also ``IndexError``, ``struct.error``.
    """
    if not data.startswith(_MAGIC):
        raise ValueError(f"it begins with {data[:8]!r}; expected {_MAGIC!r}")
    (count,) = struct.unpack_from("<I", data, 8)
    place, entries = 12, []
    for _ in range(count):
        (length,) = struct.unpack_from("<H", data, place)
        name = data[place + 2 : place + 2 + length].decode()
        place += 2 + length
        kind, rank = data[place], data[place + 1]
        shape = struct.unpack_from(f"<{rank}I", data, place + 2)
        offset, size = struct.unpack_from("<QQ", data, place + 2 + 4 * rank)
        place += 2 + 4 * rank + 16
        entries.append((name, _TYPES[kind], shape, offset, size))
    start = -(-place // _ALIGNMENT) * _ALIGNMENT
    found = {}
    for name, kind, shape, offset, size in entries:
        values = np.frombuffer(data[start + offset : start + offset + size], kind)
        found[name] = values.reshape(shape).astype(np.float32)
    return found


def _check_features(table: dict[str, np.ndarray]) -> None:
    """Raise a ``ValueError`` if the package's window or mel filters are not those of :data:`FEATURES`."""
    cosines, _, held_filters = (table[name] for name in _FEATURE_TENSORS)
    for name, held, ours in (
        ("window", cosines[0, 0], taper(FEATURES.window, FEATURES.style)),  # at frequency 0, where the cosine is 1
        ("mel filters", held_filters, filters(FEATURES)),
    ):
        if held.shape != ours.shape or not np.allclose(held, ours, rtol=0, atol=1e-6):
            raise ValueError(f"other {name}")


def _state(table: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Return the tensors by this project's names; those that the export has left without a name come in their order."""
    matrices = (value.T for name, value in table.items() if name.startswith("onnx::MatMul_"))
    kernels = (value for name, value in table.items() if name.startswith("onnx::Conv_"))

    def named(name: str) -> np.ndarray:
        value = table[f"{_PREFIX}{name}"]
        return value[..., 0] if value.ndim == 3 else value  # a convolution over one frame: a linear layer here

    found = {"front.weight": next(kernels), "front.bias": next(kernels)}
    for block in (f"blocks.{number}" for number in range(SIZES.layers)):
        for theirs, ours in _NAMED:
            for part in ("weight", "bias"):
                found[f"{block}.{ours}.{part}"] = named(f"{block}.{theirs}.{part}")
        for theirs, ours in _UNNAMED:
            found[f"{block}.{ours}.weight"] = next(matrices)
            found[f"{block}.{ours}.bias"] = named(f"{block}.{theirs}")
        for part in ("weight", "bias"):
            found[f"{block}.convolution.depthwise.{part}"] = next(kernels)
    found["head.weight"], found["head.bias"] = named("proj.weight"), named("proj.bias")
    expected = len(found) + len(_FEATURE_TENSORS)
    if len(table) != expected:
        raise ValueError(f"{len(table)} tensors, expected {expected}")
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in found.items()}
