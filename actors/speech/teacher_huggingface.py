"""A teacher from a Hugging Face CTC model over samples (Wav2Vec2, HuBERT, WavLM and similar).

It is read from a local folder, or from the hub if, and only if, the user gives a hub name. Weights are read from
safetensors files only, and no code of a model's repository is run.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gristmill.actors.speech.teacher_source import Precision, TeacherInfo, device_of, inference, pad
from gristmill.models.speech.units import BLANK, Units
from gristmill.shards import canonical
from gristmill.shards.errors import UserError

HUB_NAME = re.compile(r"([\w-][\w.-]*/[\w.-]+)(?:@(\w+))?")
_FILES = ["*.json", "*.safetensors"]


class HuggingFace:
    """An ``AutoModelForCTC`` behind the interface of a teacher."""

    def __init__(self, model: str, device: str = "cpu", precision: Precision = "auto") -> None:
        from transformers import AutoModelForCTC

        folder = find(model)
        self.info, order, self._normalise = _describe(folder)
        try:
            self.network = AutoModelForCTC.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"teacher.model: {model} cannot be loaded: {str(error).splitlines()[0]}") from None
        self.device, self.precision = device_of(device), precision
        self.network.eval().to(self.device)
        self._order = torch.tensor(order, device=self.device)
        config = self.network.config
        # A group norm over time in the front end sees the padding (the original wav2vec 2.0 base): such a model is run
        # on utterances of equal length, without a mask, as in its training.
        self._masked = getattr(config, "feat_extract_norm", "layer") != "group"
        self.shortest = 1
        for kernel, stride in reversed(list(zip(config.conv_kernel, config.conv_stride, strict=True))):
            self.shortest = (self.shortest - 1) * stride + kernel

    def __call__(self, inputs: Sequence[np.ndarray]) -> tuple[torch.Tensor, list[int]]:
        """Return (log-softmax (B, T, V), frames of each) of samples."""
        lengths = torch.tensor([len(one) for one in inputs])
        frames = self.network._get_feat_extract_output_lengths(lengths).tolist()
        ready = [self._ready(one) for one in inputs]
        if self._masked:
            return self._run(ready), frames
        out = torch.zeros((len(ready), max(frames), len(self._order)), device=self.device)
        for length in sorted(set(lengths.tolist())):
            rows = [row for row, one in enumerate(ready) if len(one) == length]
            found = self._run([ready[row] for row in rows])
            out[torch.tensor(rows, device=self.device), : found.shape[1]] = found
        return out, frames

    def _ready(self, samples: np.ndarray) -> np.ndarray:
        if not self._normalise:
            return samples
        return ((samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)).astype(np.float32)

    def _run(self, inputs: list[np.ndarray]) -> torch.Tensor:
        with inference(self.device, self.precision):
            values, lengths = pad(inputs, self.device)
            mask = None
            if self._masked:
                mask = torch.arange(values.shape[1], device=self.device)[None] < lengths[:, None]
                mask = mask.long()
            logits = self.network(values, attention_mask=mask).logits
            return torch.log_softmax(logits.float().index_select(-1, self._order), dim=-1)


def find(model: str) -> Path:
    """Return the local folder of a model; a hub name (``owner/name``, ``owner/name@commit``) is downloaded."""
    folder = Path(model)
    if folder.is_dir():
        return folder
    name = HUB_NAME.fullmatch(model)
    if name is None:
        raise UserError(f"teacher.model: {model} is neither a folder nor a hub name (owner/name)")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name[1], revision=name[2], allow_patterns=_FILES))
    except Exception as error:  # the client passes on any exception of its transport
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"teacher.model: {model} is not a local folder, and the hub fails: {lines[0]}") from None


def pinned(model: str) -> str:
    """Return a name by which workers find the same bytes: a folder's path, or the hub name at its commit."""
    folder = find(model)
    if Path(model).is_dir():
        return str(folder.resolve())
    return f"{model.partition('@')[0]}@{folder.name}"  # the client keeps each commit in a folder of its name


def describe(model: str) -> TeacherInfo:
    """Return the description of a model from its files; its weights are hashed, not loaded."""
    return _describe(find(model))[0]


def _describe(folder: Path) -> tuple[TeacherInfo, list[int], bool]:
    """Return (description, the model's ids in the order of the units, whether samples are normalised)."""
    files = sorted(path for pattern in _FILES for path in folder.glob(pattern))
    if not any(path.suffix == ".safetensors" for path in files):
        raise UserError(f"teacher.model: {folder} has no safetensors file; weights in other formats are not read")
    config = _json(folder / "config.json")
    vocabulary = _json(folder / "vocab.json")
    extractor = _json(folder / "preprocessor_config.json")
    if not all(key in config for key in ("conv_kernel", "conv_stride", "vocab_size")):
        kind = config.get("model_type")
        raise UserError(f"teacher.model: {folder} has a {kind!r} model; expected a CTC model over samples")
    units, order = _units(vocabulary, int(config["vocab_size"]), config.get("pad_token_id"), folder)
    stride = int(np.prod(config["conv_stride"]))
    if config.get("add_adapter"):
        stride *= config.get("adapter_stride", 2) ** config.get("num_adapter_layers", 3)
    rate = int(extractor.get("sampling_rate", 16000))
    digest = canonical.digest({path.name: _sha256(path) for path in files})
    info = TeacherInfo(units, rate / stride, rate, None, digest)
    return info, order, bool(extractor.get("do_normalize", True))


def _units(vocabulary: dict[str, Any], size: int, blank: int | None, folder: Path) -> tuple[Units, list[int]]:
    tokens = {int(number): token for token, number in vocabulary.items() if isinstance(number, int)}
    if not tokens or max(tokens) >= size or blank is None or blank not in range(size):
        raise UserError(f"teacher.model: vocab.json of {folder} does not fit its config.json (vocabulary or blank)")
    names = [tokens.get(i, f"<unused{i}>") for i in range(size)]
    spelled = all(len(name) == 1 or name.startswith(("<", "[")) for name in names)
    if spelled:
        names = [" " if name == "|" else name for name in names]
        lower = [name.lower() if len(name) == 1 else name for name in names]
        names = lower if len(set(lower)) == len(lower) else names
    order = [blank, *(i for i in range(size) if i != blank)]
    rest = (names[i] if names[i] != BLANK else f"{BLANK}{i}" for i in order[1:])
    return Units("characters" if spelled else "phonemes", (BLANK, *rest)), order


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"teacher.model: {path} is missing or is not JSON") from None
    return dict(found)
