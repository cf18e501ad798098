"""Recordings as bytes in any container, and what probing says of a corpus."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import soundfile

from gristmill.actors.sources.pointers import REASONS
from gristmill.actors.sources.speech import list_sources
from gristmill.actors.speech.ingest import Probe, ProbeSettings


def speech(seconds: float = 1.0, rate: int = 16000, channels: int = 1) -> np.ndarray:
    noise = np.random.default_rng(1).normal(size=round(seconds * rate))
    samples = 0.3 * np.sin(np.arange(len(noise)) * 2 * np.pi * 440 / rate) + 0.01 * noise
    return np.repeat(samples[:, None], channels, axis=1).astype(np.float32)


def encoded(kind: str = "FLAC", subtype: str | None = "PCM_16", rate: int = 16000, **options: object) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, speech(rate=rate, **options), rate, format=kind, subtype=subtype)
    return out.getvalue()


def probe(url: object, **options: object) -> pa.Table:
    return pa.concat_tables([Probe(ProbeSettings(**options))(table) for table in list_sources(str(url))])


def reasons(table: pa.Table) -> dict[str, str | None]:
    found = {
        row["id"].rpartition("/")[2]: row["reject_reason"] for row in table.select(["id", "reject_reason"]).to_pylist()
    }
    assert set(found.values()) <= {None, *REASONS}
    return found
