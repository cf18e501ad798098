"""Translators: encoder-decoder transformers in the form of Marian checkpoints, with the units of both languages.

Vaswani et al., Attention is all you need, 2017, in the form of Junczys-Dowmunt et al., Marian, 2018 (transformers'
``MarianMTModel``): sinusoidal positions, layers normalised after their residual, the output tied to the embedding.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from gristmill.models.text.translator_units import END, UNKNOWN, TranslatorUnits
from gristmill.models.weights import read_metadata
from gristmill.shards import canonical
from gristmill.shards.errors import UserError
from gristmill.shards.settings import Settings, Size

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, WEIGHTS, PICKLED = "config.json", "model.safetensors", "pytorch_model.bin"
_TIED = "lm_head.weight"


class TranslatorSizes(Settings):
    """Sizes of a translator that is trained from scratch."""

    dim: Size = Field(192, ge=8)
    """The width of embeddings and layers."""
    encoder_layers: Size = Field(3, ge=1)
    """Layers over the source."""
    decoder_layers: Size = Field(1, ge=1)
    """Layers over the target."""
    ff: Size = Field(768, ge=8)
    """The width inside feed-forward layers."""
    heads: Size = Field(4, ge=1)
    """Attention heads of a layer."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """The probability of dropout in training."""
    positions: Size = Field(256, ge=8)
    """Maximum units of a text."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.dim % (2 * self.heads):
            raise ValueError(
                f"dim is {self.dim} and heads is {self.heads}; expected a dim that is a multiple of twice the heads"
            )
        return self


def available() -> None:
    """Check that transformers and CTranslate2 are installed."""
    try:
        import ctranslate2  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise UserError(f"{error.name} is not installed: run `pip install '.[translation]'`") from None


def new_model(sizes: TranslatorSizes, units: TranslatorUnits) -> Any:
    """Return a network with random weights; the caller seeds torch's generator."""
    import torch
    from transformers import MarianConfig, MarianMTModel

    vocabulary = len(units.target.tokens)
    config = MarianConfig(
        vocab_size=vocabulary,
        decoder_vocab_size=vocabulary,
        share_encoder_decoder_embeddings=units.joint,
        d_model=sizes.dim,
        encoder_layers=sizes.encoder_layers,
        decoder_layers=sizes.decoder_layers,
        encoder_ffn_dim=sizes.ff,
        decoder_ffn_dim=sizes.ff,
        encoder_attention_heads=sizes.heads,
        decoder_attention_heads=sizes.heads,
        max_position_embeddings=sizes.positions,
        dropout=sizes.dropout,
        activation_function="relu",
        scale_embedding=True,
        pad_token_id=vocabulary - 1,
        eos_token_id=units.target.number[END],
        decoder_start_token_id=vocabulary - 1,
        forced_eos_token_id=None,
    )
    model = MarianMTModel(config)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "embed_positions" in name:
                continue
            if "embed" in name or name == _TIED:
                value.normal_(std=sizes.dim**-0.5)
                value[vocabulary - 1] = 0.0  # decoding starts from zeros
            elif value.ndim > 1:
                torch.nn.init.xavier_uniform_(value)
    return model


def sizes_of(model: Any) -> dict[str, int]:
    """Return the sizes of a network and its number of parameters."""
    config = model.config
    return {
        "dim": config.d_model,
        "encoder_layers": config.encoder_layers,
        "decoder_layers": config.decoder_layers,
        "units": config.decoder_vocab_size,
        "parameters": sum(value.numel() for value in model.parameters() if value.requires_grad),
    }


def logits(model: Any, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scores (units, vocabulary) of the target's units, and the units' numbers; the end of a text is one.

    ``source`` and ``target`` are padded unit numbers (rows, units). Only real units reach the output layer, and the pad
    has no score: its row stays zero, as decoding expects.
    """
    from torch.nn.functional import linear

    config = model.config
    pad = config.pad_token_id
    before = target.roll(1, dims=1)
    before[:, 0] = config.decoder_start_token_id
    states = model.model(
        input_ids=source, attention_mask=(source != pad).long(), decoder_input_ids=before, use_cache=False
    )[0]
    real = target != pad
    scores = linear(states[real], model.lm_head.weight[:pad], model.final_logits_bias[0, :pad])
    return scores.float(), target[real]


def save_translator(model: Any, units: TranslatorUnits) -> dict[str, bytes]:
    """Return a translator's files by name; ``MarianMTModel.from_pretrained`` can read a folder of them."""
    from safetensors.torch import save

    tied = {_TIED} | (
        {f"model.{side}.embed_tokens.weight" for side in ("encoder", "decoder")} if units.joint else set()
    )
    tensors = {
        name: value.detach().cpu().contiguous()
        for name, value in model.state_dict().items()
        if name not in tied and "embed_positions" not in name
    }
    config = {key: value for key, value in model.config.to_dict().items() if key != "transformers_version"}
    config["architectures"] = ["MarianMTModel"]
    return {
        WEIGHTS: save(tensors, metadata={"format": "pt"}),
        CONFIG: canonical.dumps(config),
        **units.to_files(),
    }


def load_translator(read: Any, where: str, prefix: str = "") -> tuple[Any, TranslatorUnits]:
    """Read a translator of this project or a Marian checkpoint; return (network in eval mode, units).

    ``read(name)`` returns a file's bytes, or ``None`` if it is absent. Weights are safetensors, or a state dictionary
    that is read without unpickling anything but tensors.

    Raises:
        UserError: a file is missing, or weights and config do not fit together.
    """
    from transformers import MarianConfig, MarianMTModel

    units = TranslatorUnits.from_files(read, where, prefix)
    try:
        described = json.loads(read(CONFIG) or b"null")
        if not isinstance(described, dict) or described.get("model_type") != "marian":
            kind = described.get("model_type") if isinstance(described, dict) else described
            raise UserError(f"{where}: {CONFIG} is of model type {kind!r}; expected a Marian checkpoint")
        config = MarianConfig(**described)
        tensors = _weights(read, where)
        model = MarianMTModel(config)
        vocabulary = config.decoder_vocab_size
        if len(units.target.tokens) != vocabulary or config.pad_token_id != vocabulary - 1:
            raise UserError(
                f"{where}: {len(units.target.tokens)} tokens for {vocabulary} outputs with pad {config.pad_token_id}; "
                "expected as many, the pad as the last one"
            )
        _take(model, tensors, where)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"{where}: weights and {CONFIG} do not fit together: {error}") from None
    return model.eval(), units


def _weights(read: Any, where: str) -> dict[str, Tensor]:
    data = read(WEIGHTS)
    if data is not None:
        from safetensors.torch import load

        read_metadata(data, f"{where}: {WEIGHTS}")  # rejects other formats
        return load(data)
    data = read(PICKLED)
    if data is None:
        raise UserError(f"{where}: no weights; expected {WEIGHTS} or {PICKLED}")
    import io
    import pickle

    import torch

    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError):
        raise UserError(f"{where}: {PICKLED} holds more than tensors, or is damaged; expected plain weights") from None


def _take(model: Any, tensors: dict[str, Tensor], where: str) -> None:
    """Copy weights into the network; aliases of tied weights may be missing, and positions are computed."""
    held = model.state_dict(keep_vars=True)
    given = {name: value.float() for name, value in tensors.items() if "embed_positions" not in name}
    unknown = sorted(set(given) - set(held))
    covered = {id(held[name]) for name in given if name in held}
    missing = sorted(
        name
        for name, value in held.items()
        if id(value) not in covered and "embed_positions" not in name and name != "final_logits_bias"
    )
    if unknown or missing:
        raise UserError(f"{where}: weights are not those of the config: unknown {unknown[:3]}, missing {missing[:3]}")
    model.load_state_dict(given, strict=False)


def to_ctranslate2(model: Any, units: TranslatorUnits) -> Any:
    """Return CTranslate2's specification of a network, which can be saved into a folder."""
    import torch
    from ctranslate2.converters import transformers as converters

    class Loader(converters.MarianMTLoader):
        """Takes the tokens of each side from our units."""

        def get_vocabulary(self, model: Any, tokenizer: Any) -> Any:
            return [units.source.tokens[:-1], units.target.tokens[:-1]]

        def set_vocabulary(self, spec: Any, tokens: Any) -> None:
            spec.register_source_vocabulary(list(tokens[0]))
            spec.register_target_vocabulary(list(tokens[1]))

        def set_config(self, config: Any, model: Any, tokenizer: Any) -> None:
            config.eos_token, config.unk_token = END, UNKNOWN
            config.decoder_start_token = END  # unused: decoding starts from zeros

    with torch.no_grad():
        spec = Loader()(model.float().cpu(), None)
    spec.validate()
    spec.optimize()
    return spec
