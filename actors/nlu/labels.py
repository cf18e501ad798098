"""Columns of labels that a model has made, and not an annotator."""

from __future__ import annotations

import pyarrow as pa

from gristmill.shards.schema import SPEECH_FIELDS

CONFIDENCE = SPEECH_FIELDS[-1]
PSEUDO = "pseudo"  # the source of labels of a recogniser that was trained on annotated requests
PROJECTED = "projected"  # the source of labels that come from another wording of the request
WITHOUT = pa.field("accepted_without", pa.list_(pa.int8()))  # folds whose own recogniser accepts the request too
