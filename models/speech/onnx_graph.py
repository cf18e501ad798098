"""Acoustic models as ONNX graphs, for runtimes without torch, and how far their outputs are from torch's."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import numpy as np
import torch

from gristmill.models.portable_graph import open_graph
from gristmill.models.speech.checkpoint import AcousticNetwork

OPSET = 17
INPUTS, OUTPUTS = ("features", "lengths"), ("log_probs", "frames")


def to_onnx(model: AcousticNetwork) -> bytes:
    """Return the graph of a model: its inputs and outputs are those of its ``forward``, for batches of any size."""
    time = 24 * model.subsampling
    example = torch.zeros(2, time, model.n_mels), torch.tensor([time, time // 2])
    axes = {"features": {0: "batch", 1: "time"}, "lengths": {0: "batch"}}
    axes |= {"log_probs": {0: "batch", 1: "frame"}, "frames": {0: "batch"}}
    out = io.BytesIO()
    with warnings.catch_warnings():
        # Not by torch.export (dynamo=True): it takes minutes to unroll a recurrent network, whose graph then fails for
        # batches of another size.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(),
            example,
            out,  # type: ignore[arg-type]  # a file is taken too, which the signature does not say
            dynamo=False,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_axes=axes,
            opset_version=OPSET,
        )
    return out.getvalue()


def difference(graph: bytes, model: AcousticNetwork, utterances: Sequence[np.ndarray]) -> float:
    """Return the largest difference of a log-probability of utterances (frames, n_mels), each run alone by both."""
    session = open_graph(graph)
    worst = 0.0
    for features in utterances:
        given = features[None].astype(np.float32), np.array([len(features)], np.int64)
        with torch.inference_mode():
            expected, frames = (out.numpy() for out in model(*map(torch.from_numpy, given)))
        found, counted = session.run(list(OUTPUTS), dict(zip(INPUTS, given, strict=True)))
        if found.shape != expected.shape or not np.array_equal(counted, frames):
            return float("inf")
        worst = max(worst, float(np.abs(found - expected).max(initial=0.0)))
    return worst
