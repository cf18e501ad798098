"""The columns of a record, and the metadata by which other tools read them."""

from __future__ import annotations

import json

import pyarrow as pa

AUDIO = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])

ID = pa.field("id", pa.string())
PARENT_ID = pa.field("parent_id", pa.string())
REJECT_REASON = pa.field("reject_reason", pa.string())
SPEECH_FIELDS = (
    ID,
    PARENT_ID,
    pa.field("audio", AUDIO),
    pa.field("sampling_rate", pa.int32()),
    pa.field("duration", pa.float64()),  # seconds
    pa.field("text", pa.string()),
    pa.field("lang", pa.string()),
    pa.field("speaker", pa.string()),
    pa.field("label_source", pa.string()),  # gold, teacher, projected, pseudo or synthetic
    pa.field("confidence", pa.float32()),
)
SPEECH = pa.schema(SPEECH_FIELDS)

# A slot of a request: its name and value, and its tokens from start (inclusive) to end (exclusive).
SLOT = pa.struct(
    [
        pa.field("name", pa.string()),
        pa.field("value", pa.string()),
        pa.field("start", pa.int32()),
        pa.field("end", pa.int32()),
    ]
)
REQUEST_FIELDS = (
    ID,
    pa.field("text", pa.string()),
    pa.field("tokens", pa.list_(pa.string())),
    pa.field("domain", pa.string()),
    pa.field("intent", pa.string()),
    pa.field("slots", pa.list_(SLOT)),
    pa.field("lang", pa.string()),
    pa.field("label_source", pa.string()),
)
REQUESTS = pa.schema(REQUEST_FIELDS)

# One reading of a request by one domain: natural logarithms of its three models' probabilities, the number of its
# errors of intent and slots against the reference, and whether there are none.
HYPOTHESIS = pa.struct(
    [
        pa.field("domain", pa.string()),
        pa.field("intent", pa.string()),
        pa.field("slots", pa.list_(SLOT)),
        pa.field("domain_logprob", pa.float32()),
        pa.field("intent_logprob", pa.float32()),
        pa.field("slots_logprob", pa.float32()),
        pa.field("errors", pa.int32()),
        pa.field("correct", pa.bool_()),
    ]
)
HYPOTHESES_FIELDS = (
    pa.field("hypotheses", pa.list_(HYPOTHESIS)),
    pa.field("reference_length", pa.int32()),  # slots of the reference, and 1 for its intent
    pa.field("oracle_errors", pa.int32()),  # of the best reading in the list; of an empty list: all of the reference
)

# A turn of a session: what a user said, what a recogniser heard, how that was read, and what came of it.
TURN_FIELDS = (
    ID,
    pa.field("session", pa.string()),
    pa.field("turn", pa.int32()),  # its place in the session, from 0 on
    pa.field("time", pa.float64()),  # seconds since 1970 (UTC); null where it is not known, as all that follows may be
    pa.field("user", pa.string()),  # a hash
    pa.field("device", pa.string()),
    pa.field("text", pa.string()),  # what was said or typed
    pa.field("asr_text", pa.string()),  # what the recogniser heard: what is read and trained on
    pa.field("tokens", pa.list_(pa.string())),  # of asr_text, or of text where nothing else is known
    pa.field("lang", pa.string()),
    pa.field("domain", pa.string()),  # the interpretation that was chosen; slots are of tokens
    pa.field("intent", pa.string()),
    pa.field("slots", pa.list_(SLOT)),  # start and end are null where a value does not stand in the tokens
    pa.field("score", pa.float32()),  # of the interpretation, 0 to 1
    pa.field("alternatives", pa.list_(HYPOTHESIS)),  # other interpretations, best first
    pa.field("succeeded", pa.bool_()),  # whether the response did what was asked, where that is known
    pa.field("barge_in", pa.bool_()),  # whether the user spoke into the response
    pa.field("rewritten", pa.bool_()),  # whether the interpretation is of a rewrite of ours, and not of what was heard
)
TURNS = pa.schema(TURN_FIELDS)

# What is true of a turn that was simulated, or judged by an annotator: nothing that is learnt from sessions reads it.
TRUTH_FIELDS = (
    pa.field("meaning", pa.string()),  # equal of turns that mean the same
    pa.field("true_domain", pa.string()),
    pa.field("true_intent", pa.string()),
    pa.field("true_slots", pa.list_(SLOT)),  # of tokens: those of which something was heard
    pa.field("failed", pa.bool_()),  # whether the interpretation is wrong
    pa.field("role", pa.string()),  # first, rephrase, follow_up (planted), or poison (a false rephrase)
)

# The rare words of a record's text, single words: names that a recogniser has never seen.
NAMES = pa.field("names", pa.list_(pa.string()))

# Text of one language, and text with its translation.
TEXT_FIELDS = (
    ID,
    pa.field("text", pa.string()),
    pa.field("lang", pa.string()),
    pa.field("label_source", pa.string()),
)
TEXTS = pa.schema(TEXT_FIELDS)
PAIR_FIELDS = (
    ID,
    pa.field("source", pa.string()),
    pa.field("target", pa.string()),
    pa.field("source_lang", pa.string()),
    pa.field("target_lang", pa.string()),
    pa.field("label_source", pa.string()),  # gold, or synthetic: the target is machine-translated
)
PAIRS = pa.schema(PAIR_FIELDS)

# One translation of a text: the natural logarithm of its probability, and its number of units, end included.
TRANSLATION = pa.struct(
    [
        pa.field("text", pa.string()),
        pa.field("logprob", pa.float32()),
        pa.field("units", pa.int32()),
    ]
)
TRANSLATIONS_FIELD = pa.field("translations", pa.list_(TRANSLATION))  # best first

TOPK_FIELDS = (
    # One list per record, frames x k values, row-major; see gristmill.models.speech.topk for the encoding.
    pa.field("topk_ids", pa.large_list(pa.uint16())),
    pa.field("topk_logprobs", pa.large_list(pa.float16())),
    pa.field("tail_logmass", pa.large_list(pa.float16())),
    pa.field("topk_frames", pa.int32()),
)


def huggingface_metadata(schema: pa.Schema, sampling_rate: int | None = None) -> dict[bytes, bytes]:
    """Return schema metadata by which ``datasets`` reads ``audio`` as its ``Audio`` feature."""
    if "audio" not in schema.names:
        return {}
    features = {name: _feature(schema.field(name).type, sampling_rate) for name in schema.names}
    return {b"huggingface": json.dumps({"info": {"features": features}}, sort_keys=True).encode()}


def _feature(kind: pa.DataType, sampling_rate: int | None) -> dict:
    if kind == AUDIO:
        return {"sampling_rate": sampling_rate, "_type": "Audio"}
    if pa.types.is_large_list(kind):
        return {"feature": _feature(kind.value_type, sampling_rate), "_type": "LargeList"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type, sampling_rate), "_type": "List"}
    names = {"double": "float64", "float": "float32", "halffloat": "float16"}
    return {"dtype": names.get(str(kind), str(kind)), "_type": "Value"}


FEATURE_FIELDS = (
    pa.field("features", pa.large_list(pa.float16())),  # frames x mel bands, row-major
    pa.field("feature_frames", pa.int32()),
)

# Numbers that compress better with their bytes split: neighbouring exponents are similar, mantissas are noise.
PARQUET_ENCODINGS = {
    "topk_ids": "BYTE_STREAM_SPLIT",
    "topk_logprobs": "BYTE_STREAM_SPLIT",
    "tail_logmass": "BYTE_STREAM_SPLIT",
    "features": "BYTE_STREAM_SPLIT",
}
