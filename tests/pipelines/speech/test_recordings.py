"""Recordings to transcribe: pipes, names that no table can hold, and what is said of a corpus."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.actors.audio import encode
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.run import Run
from gristmill.pipelines.speech.recordings import is_listed, list_recordings
from gristmill.pipelines.speech.transcribe import Transcriber
from gristmill.shards.errors import UserError
from tests.pipelines.speech import used

SPEECH = encode(np.sin(np.arange(8000, dtype=np.float32)), 8000)


def test_a_pipe_is_one_recording(tmp_path: Path) -> None:
    pipe = str(tmp_path / "x.wav")
    os.mkfifo(pipe)
    assert not is_listed(pipe)
    writer = threading.Thread(target=Path(pipe).write_bytes, args=(SPEECH,))
    writer.start()
    listing = list_recordings([pipe])
    (row,) = next(listing).to_pylist()
    writer.join()
    assert (row["id"], row["audio_filepath"], Path(row["url"]).read_bytes()) == ("x.wav", pipe, SPEECH)
    with pytest.raises(UserError, match="given twice; a pipe can be read once"):
        next(list_recordings([pipe, pipe]))


def test_a_name_that_is_not_utf_8_is_told(tmp_path: Path) -> None:
    (tmp_path / "sp ace").mkdir()
    Path(os.fsdecode(bytes(tmp_path / "sp ace") + b"/bad\xff.wav")).write_bytes(SPEECH)
    (table,) = list_recordings([str(tmp_path)])
    (row,) = table.to_pylist()
    assert (row["audio_filepath"], row["problem"]) == (f"{tmp_path}/sp ace/bad\\udcff.wav", "not UTF-8")


def test_what_is_said_of_all_shards_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for number in range(3):
        audio = pa.array([{"bytes": SPEECH, "path": None}])
        pq.write_table(pa.table({"audio": audio, "vector": [[0.5]]}), tmp_path / "set" / f"{number}.parquet")
    said: list[str] = []
    model = used.recogniser(tmp_path / "model")
    transcriber = Transcriber(model.url, say=said.append)
    assert len(list(transcriber.transcribe(tmp_path / "set"))) == 3
    assert len(said) == 1
    transcriber.corpus(Run(tmp_path / "run", InProcessRunner()), "heard", tmp_path / "set")
    assert len(said) == 2
    with pytest.raises(UserError, match="samples can be read once"):
        transcriber.corpus(Run(tmp_path / "run", InProcessRunner()), "more", [(np.zeros(9, np.float32), 8000)])
